"""A workload's results, gathered from its evaluations: the Service's own, and those of its routable Revisions. Pure.

Fifty Revisions of a Service mostly have the same findings, and a report has to stay small, so a finding is kept once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from webhook.modes import Mode
from webhook.rules import POD
from webhook.rules.rule import Severity
from webhook.scanner.finding import Evaluation, Finding, FindingClass, ObjectId, link_of

SOURCE: Final = "morphisms"
CATEGORY: Final = "Confidential Computing"
READY: Final = "ready"
"""The rule of the one result that a workload gets which has nothing to change."""

MAX_RESULTS: Final = 60
_MAX_MESSAGE: Final = 500
_ORDER: Final = (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW)


class Result(NamedTuple):
    """One entry of a report, with the members that both APIs have."""

    rule: str
    result: str
    severity: str
    message: str
    properties: tuple[tuple[str, str], ...]
    resource: ObjectId | None = None
    """Which object it is about, in a report that is about several."""

    @property
    def category(self) -> str:
        """The rule's family, as dashboards group by."""
        return f"{CATEGORY}: {self.rule.partition('/')[0]}"


class _Key(NamedTuple):
    rule: str
    field: str
    message: str
    result: str


@dataclass(slots=True)
class WorkloadResults:
    """Gathers evaluations of one workload. `first_object`: where a finding was met first, if not in the workload."""

    workload: ObjectId
    mode: Mode
    target: Mode
    _found: dict[_Key, tuple[Finding, str, int]] = field(default_factory=dict)
    _more: int = 0
    is_evaluated: bool = False

    def add(self, evaluation: Evaluation) -> None:
        """Take one object's findings."""
        if evaluation.exempt:
            return
        self.is_evaluated = True
        for finding in evaluation.findings:
            self._add(finding, _result_of(finding))
        for finding in evaluation.excepted:
            self._add(finding, "skip")

    def _add(self, finding: Finding, result: str) -> None:
        key = _Key(finding.rule, finding.field, finding.message, result)
        if (known := self._found.get(key)) is not None:
            self._found[key] = (known[0], known[1], known[2] + 1)
        elif len(self._found) < MAX_RESULTS:
            self._found[key] = (finding, str(finding.object), 1)
        else:
            self._more += 1

    @property
    def is_ready(self) -> bool:
        """Whether its next pods are admitted in the target mode, and all of it was looked at."""
        return not self._more and not self.obstacles

    @property
    def obstacles(self) -> frozenset[str]:
        """The ids of what stands in the way, as far as it is kept."""
        return frozenset(key.rule for key in self._found if key.result in ("fail", "error"))

    @property
    def results(self) -> list[Result]:
        """The gravest first."""
        found = sorted(
            self._found.items(), key=lambda each: (_RESULTS.index(each[0].result), _ORDER.index(each[1][0].severity))
        )
        results = [
            Result(
                key.rule,
                key.result,
                finding.severity.value,
                key.message[:_MAX_MESSAGE],
                tuple(self._properties(finding, where, count)),
            )
            for key, (finding, where, count) in found
        ]
        if self._more:
            message = f"and {self._more} more, which are not listed; kubectl morphisms audit shows them"
            results.append(Result("scan/more", "fail", "medium", message, ()))
        if self.is_ready:
            message = f"its next pods are admitted in mode {self.target.value}"
            results.append(
                Result(
                    READY,
                    "pass",
                    "info",
                    message,
                    (("link", "docs/rules.md"), ("mode", self.mode.value), ("target", self.target.value)),
                )
            )
        return results

    def _properties(self, finding: Finding, where: str, count: int) -> Iterator[tuple[str, str]]:
        yield "class", finding.kind.value
        yield "action", finding.action
        if finding.field:
            yield "field", finding.field[:_MAX_MESSAGE]
        yield "link", finding.link if "/" in finding.rule else link_of(finding.rule)
        yield "mode", self.mode.value
        yield "target", self.target.value
        if where != str(self.workload):
            yield "object", where
        if count > 1:
            yield "objects", str(count)
        if finding.exception is not None:
            yield "exceptionUntil", f"{finding.exception.expires:%Y-%m-%dT%H:%M:%SZ}"


def summary_of(results: list[Result]) -> dict[str, int]:
    """How many results of each kind; a rule that is not listed holds, and counts as passed."""
    counts = {name: sum(each.result == name for each in results) for name in _RESULTS}
    named = {each.rule for each in results}
    counts["pass"] = sum(rule.id not in named for rule in POD)
    return counts


_RESULTS: Final = ("fail", "error", "warn", "skip", "pass")


def _result_of(finding: Finding) -> str:
    if finding.kind is FindingClass.NOT_EVALUATED:
        return "error"
    if finding.kind is FindingClass.FIXED_BY_INJECTION:
        return "warn"
    return "fail" if finding.denies else "warn"
