"""The webhook's decision on one request, ready to be sent, counted and logged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

from webhook.configuration.exceptions import PolicyException
from webhook.modes import Mode
from webhook.rules.rule import Violation

# The API server keeps warnings whole up to 4,096 characters in all, and advises 120 each.
_WARNING_LENGTH: Final = 240
_MAX_WARNINGS: Final = 15
# A denial travels through ReplicaSet, Deployment and Revision conditions: one line, for a person to read.
_MAX_DENIALS: Final = 8
_MAX_CAUSES: Final = 100

Outcome = Literal["unchanged", "mutated", "allowed", "denied", "skipped"]


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason of a denial, as `status.details.causes[]`."""

    reason: str
    message: str
    field: str


@dataclass(frozen=True, slots=True)
class Denial:
    """HTTP code, Kubernetes reason and message for `status`."""

    message: str
    causes: tuple[Cause, ...] = ()
    code: int = 403
    reason: str = "Forbidden"


@dataclass(frozen=True, slots=True)
class Covered:
    """A violation that does not count, because an exception of the configuration covers it."""

    violation: Violation
    exception: PolicyException

    def __str__(self) -> str:
        until = f"{self.exception.expires:%Y-%m-%dT%H:%M:%SZ}"
        return f"[{self.violation.rule.id}] an exception covers this until {until}: {self.exception.reason}"


class Decision(msgspec.Struct, frozen=True):
    """Everything about one request. `reason` is a short stable word: why this outcome, for logs and metrics.

    `violations` count; `covered` are those that an exception covers.
    `result` is the object after `operations`, None where there are none. It shares parts with the request's object.
    """

    outcome: Outcome
    mode: Mode | None
    reason: str
    operations: Sequence[dict[str, Any]] = ()
    result: dict[str, Any] | None = None
    denial: Denial | None = None
    warnings: tuple[str, ...] = ()
    audit: dict[str, str] = {}
    violations: tuple[Violation, ...] = ()
    covered: tuple[Covered, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the request is admitted."""
        return self.denial is None


def deny(
    mode: Mode | None, reason: str, violations: Sequence[Violation], audit: dict[str, str] | None = None
) -> Decision:
    """Refuse for these violations: the first few in the message, all of them in the causes."""
    lines = [str(violation) for violation in violations[:_MAX_DENIALS]]
    if len(violations) > _MAX_DENIALS:
        lines.append(f"and {len(violations) - _MAX_DENIALS} more")
    causes = tuple(Cause(each.rule.id, each.message, each.field) for each in violations[:_MAX_CAUSES])
    return Decision(
        "denied",
        mode,
        reason,
        denial=Denial("; ".join(lines), causes),
        audit=summary(mode, "denied", violations) | (audit or {}),
        violations=tuple(violations),
    )


def refuse(message: str, code: int, reason: str) -> Decision:
    """Refuse a request that is unusable rather than in violation of a rule."""
    return Decision("denied", None, "unusable", denial=Denial(message, (), code, reason))


def summary(mode: Mode | None, outcome: str, violations: Sequence[Violation]) -> dict[str, str]:
    """The audit annotations that every decision carries: rule ids and counts, never messages or values."""
    annotations = {"decision": outcome}
    if mode is not None:
        annotations["mode"] = mode.value
    if violations:
        annotations["violations"] = rule_ids(violations)
    return annotations


def rule_ids(violations: Iterable[Violation]) -> str:
    """Comma list of the rules, each once, in order."""
    return ",".join(dict.fromkeys(violation.rule.id for violation in violations))


def with_covered(decision: Decision, covered: Sequence[Covered]) -> Decision:
    """The decision with what exceptions cover: in audit annotations, and in warnings where it is admitted."""
    if not covered:
        return decision
    first = min(each.exception.expires for each in covered)
    audit = {"excepted": rule_ids(each.violation for each in covered), "excepted-until": f"{first:%Y-%m-%dT%H:%M:%SZ}"}
    warnings = as_warnings((*decision.warnings, *covered)) if decision.allowed else decision.warnings
    return replace(decision, covered=tuple(covered), warnings=warnings, audit={**decision.audit, **audit})


def as_warnings(lines: Iterable[object]) -> tuple[str, ...]:
    """The lines as warnings for kubectl to show: without repetitions, bounded in number and length."""
    texts = list(dict.fromkeys(map(str, lines)))
    if not texts:
        return ()
    kept = [text if len(text) <= _WARNING_LENGTH else text[: _WARNING_LENGTH - 1] + "…" for text in texts]
    if len(kept) > _MAX_WARNINGS:
        kept = [*kept[: _MAX_WARNINGS - 1], f"and {len(kept) - _MAX_WARNINGS + 1} more"]
    return tuple(kept)
