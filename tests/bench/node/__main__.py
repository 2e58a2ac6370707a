"""`make bench-node`: cold starts on a real node, measured, and docs/benchmarks.md with its plot written.

`--levels 1,10` chooses how many start at once, `--minutes` how long it may take after the node is up, `--record FILE`
keeps each start's phases, `--from FILE` writes the page of such a file without a run.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.node import page, plot
from tests.bench.node.runner import LEVELS, Runner, available_mebibytes, load, make_room
from tests.bench.node.starts import Run
from tests.bench.node.variants import VARIANTS, Variants
from tests.node import probe, programs
from tests.node.morphisms import make_openbao_image
from tests.node.stack import running
from tests.support.paths import ROOT

_PAGE, _PLOT = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.svg"
_ROUNDS_OF_OTHERS = 2


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.node", description=__doc__)
    parser.add_argument("--levels", type=_levels, default=dict(LEVELS), help="such as 1,25,50,75")
    parser.add_argument("--minutes", type=float, default=13.0, help="for the rounds; the node comes up before")
    parser.add_argument("--record", type=Path, help="where each start's phases are kept, as JSON")
    parser.add_argument("--from", type=Path, dest="recorded", help="a file of --record, to write the page from")
    options = parser.parse_args()
    if options.recorded:
        _write(Run.read(options.recorded.read_text()))
        return 0
    if (why := probe.why_not()) is not None:
        print(f"bench-node left out: {why}")
        return 0
    if missing := programs.missing_packages():
        print(f"it needs Debian's packages {' '.join(missing)}: `NODE=1 make packages`, as root", file=sys.stderr)
        return 1
    result = _measured(options.levels, options.minutes)
    if options.record:
        options.record.write_text(result.write())
    _write(result)
    return 0


def _measured(levels: Mapping[int, int], minutes: float) -> Run:
    before = load()
    with running(_report) as stack:
        openbao = make_openbao_image(stack.sandbox.folder / "images")
        variants = Variants(stack, openbao)
        variants.prepare()
        make_room(stack)
        titles = {variant.key: variant.title for variant in VARIANTS}
        result = Run(datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), {}, titles)
        Runner(stack, variants, _report, minutes * 60, available_mebibytes).run(levels, result)
        after = load()
        version = stack.admin.get("/version")["gitVersion"]
        (node,) = stack.admin.items("/api/v1/nodes")
        runtime = node["status"]["nodeInfo"]["containerRuntimeVersion"]
    result.machine = {
        **_machine(),
        "Kubernetes": f"{version}, {runtime}",
        "load": f"{before} before the node came up, {after} after the last round",
    }
    return result


def _machine() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"machine": f"{os.cpu_count()} processors ({model}), {memory:.0f} GiB, Linux {platform.release()}"}


def _write(result: Run) -> None:
    _PAGE.write_text(page.write(result))
    _PLOT.write_text(plot.draw(result))
    print(page.table(result))
    print(f"written: {_PAGE.relative_to(ROOT)} and {_PLOT.relative_to(ROOT)}")


def _levels(text: str) -> dict[int, int]:
    """Of those with a number of rounds that one, of others two."""
    return {level: LEVELS.get(level, _ROUNDS_OF_OTHERS) for level in map(int, text.split(","))}


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
