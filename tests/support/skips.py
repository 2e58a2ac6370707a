"""A pytest plugin: at its end a run lists what it left out, by tier and reason, and the packages that would help."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from tests.support.packages import named_in


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the section; nothing when no test was skipped."""
    skipped: list[pytest.TestReport] = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    terminalreporter.section(f"left out: {len(skipped)}")
    for line in summary([(report.nodeid, _reason(report)) for report in skipped]):
        terminalreporter.line(line)


def summary(skipped: list[tuple[str, str]]) -> list[str]:
    """The lines for (node id, reason) pairs."""
    tiers: dict[str, Counter[str]] = defaultdict(Counter)
    for nodeid, reason in skipped:
        tiers["/".join(nodeid.split("::")[0].split("/")[:2])][reason] += 1
    lines = []
    for tier, reasons in sorted(tiers.items()):
        lines.append(f"{tier}: {reasons.total()}")
        lines += [f"  {count:4} {reason}" for reason, count in reasons.most_common()]
    if packages := sorted({package for _, reason in skipped if (package := named_in(reason))}):
        lines.append(f"`make packages`, as root, installs what is missing: {' '.join(packages)}")
    return lines


def _reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")
