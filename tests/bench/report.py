"""`morphisms report verify`, from process start to its answer, on a real report where the vectors are at hand."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.bench.figures import spread
from tests.support.paths import ROOT
from tests.support.vectors import store


def main() -> None:
    """Print the time; say why there is none."""
    vectors = store(print)
    if not (vectors.has("roots") and vectors.has("reports/milan-v2-virtee")):
        print("report verify: skipped, the real report and AMD's chains could not be fetched")
        return
    report, roots = vectors.path("reports/milan-v2-virtee"), vectors.path("roots")
    command = [sys.executable, "-m", "cli.main", "report", "verify", report / "report.bin", "--vek", report / "vek.der"]
    command += [
        "--authenticity-only",
        "--no-revocation",
        "--roots",
        roots,
        "--certs",
        roots,
        "--at",
        "2026-01-01T00:00:00Z",
    ]
    times = []
    for _ in range(10):
        start = time.perf_counter()
        done = subprocess.run(list(map(str, command)), capture_output=True, cwd=ROOT, check=False)
        times.append((time.perf_counter() - start) * 1000)
        if done.returncode == 2:
            raise RuntimeError(done.stderr.decode())
    print(f"report verify, start to answer: {spread(times, ' ms')}")
