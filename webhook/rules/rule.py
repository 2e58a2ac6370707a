"""The parts of a rule: an id, a severity, a check, and whether injection itself depends on it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from webhook.configuration.model import Configuration
from webhook.modes import Action, Mode
from webhook.pod.pod import Pod
from webhook.policy_version import FIRST
from webhook.request import User
from webhook.snapshot import Snapshot


class Severity(enum.StrEnum):
    """As policy reports (wgpolicyk8s.io, openreports.io) and SARIF viewers sort them."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Subject(NamedTuple):
    """A pod that the rules of `POD` check, or the pod that a Service's template would become, and its surroundings.

    `old` is the pod before an UPDATE; `user` is None offline; `snapshot` is None where the cluster is not known.
    `source` is the object that the author wrote, where that is not the pod: a Service, Configuration or Revision.
    `just_rewritten`: the rewrite compared or wrote the injected container just before, so no rule compares it again.
    """

    pod: Pod
    snapshot: Snapshot | None = None
    user: User | None = None
    old: Pod | None = None
    source: dict[str, Any] | None = None
    just_rewritten: bool = False


@dataclass(frozen=True, slots=True)
class BindingSubject:
    """A Binding: the node that it names, and the pod where a rule needs it and the webhook could look it up."""

    namespace: str
    node: str
    metadata: dict[str, Any]
    configuration: Configuration
    snapshot: Snapshot | None
    pod: Pod | None


@dataclass(frozen=True, slots=True)
class ConnectSubject:
    """A CONNECT to a pod's exec, attach or portforward."""

    namespace: str
    subresource: str
    user: User
    configuration: Configuration


S = TypeVar("S", Subject, BindingSubject, ConnectSubject)

# Where a rule is violated, and one line: what is wrong and what to do about it. Never a value of the object.
OF_SOURCE: Final = "source."
"""Before a field of `Subject.source` itself; without it a field is the pod's."""

# A third member says since which release this place denies, where it is newer than the rule.
FieldMessage = tuple[str, str] | tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Rule(Generic[S]):
    """One property that the policy requires.

    `needed_for_injection`: in every mode, a pod that opts in and violates this rule is denied. `since`: the release
    from whose policy on it denies (webhook.policy_version).
    """

    id: str
    severity: Severity
    summary: str
    check: Callable[[S], Iterable[FieldMessage]]
    needed_for_injection: bool = False
    needs_cluster: bool = False
    since: str = FIRST


@dataclass(frozen=True, slots=True)
class Violation:
    """One place where an object violates a rule."""

    rule: Rule[Any]
    field: str
    message: str
    since: str = FIRST

    def __str__(self) -> str:
        return f"[{self.rule.id}] {self.message}"


def evaluate(rules: Iterable[Rule[S]], subject: S) -> Iterator[Violation]:
    """Every violation, in the order of the rules."""
    for rule in rules:
        for field, message, *since in rule.check(subject):
            yield Violation(rule, field, message, since[0] if since else rule.since)


def action_of(rule: Rule[Any], mode: Mode, configured: Action | None, opted_in: bool) -> Action:
    """What the violation of a rule does: `configured` first, but a pod that opts in is injected whole or denied."""
    if rule.needed_for_injection and opted_in:
        return "deny"
    return configured or ("deny" if mode is Mode.ENFORCE else "record")
