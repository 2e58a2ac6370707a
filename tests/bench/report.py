"""`morphisms report verify`, from process start to its answer, on a real report where the vectors are at hand."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.bench.figures import spread
from tests.support.paths import ROOT

_VECTORS = ROOT.parent / "shared" / "vectors"


def main() -> None:
    """Print the time; say why there is none."""
    if not _VECTORS.is_dir():
        print("report verify: skipped, the real vectors are not beside this checkout (../shared/vectors)")
        return
    report = _VECTORS / "reports" / "milan-v3-routex"
    command = [sys.executable, "-m", "cli.main", "report", "verify", report / "report.bin", "--vek", report / "vek.der"]
    command += ["--roots", _VECTORS / "roots", "--certs", _VECTORS / "roots", "--at", "2026-01-01T00:00:00Z"]
    times = []
    for _ in range(10):
        start = time.perf_counter()
        done = subprocess.run(list(map(str, command)), capture_output=True, cwd=ROOT, check=False)
        times.append((time.perf_counter() - start) * 1000)
        if done.returncode == 2:
            raise RuntimeError(done.stderr.decode())
    print(f"report verify, start to answer: {spread(times, ' ms')}")
