"""What a rule is: an id, a severity, a check that yields findings, and whether injection itself needs it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from webhook.configuration.model import Configuration
from webhook.modes import Action, Mode
from webhook.pod.pod import Pod
from webhook.request import User
from webhook.snapshot import Snapshot


class Severity(enum.StrEnum):
    """As policy reports (wgpolicyk8s.io, openreports.io) and SARIF viewers sort them."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Subject(NamedTuple):
    """What a rule looks at: a pod (or what a Service's template would become), and what is known around it.

    `old` is the pod before an UPDATE; `user` is None offline; `snapshot` is None where the cluster is not known.
    `source` is the object that people wrote, where it is not the pod itself: a Service, Configuration or Revision.
    `just_rewritten`: the rewrite has a moment ago compared or written our container, so that need not be done again.
    """

    pod: Pod
    snapshot: Snapshot | None = None
    user: User | None = None
    old: Pod | None = None
    source: dict[str, Any] | None = None
    just_rewritten: bool = False


@dataclass(frozen=True, slots=True)
class BindingSubject:
    """A Binding: the node named, and the pod where it was needed and could be looked up."""

    namespace: str
    node: str
    metadata: dict[str, Any]
    configuration: Configuration
    snapshot: Snapshot | None
    pod: Pod | None


@dataclass(frozen=True, slots=True)
class ConnectSubject:
    """A CONNECT to a pod's exec, attach or portforward."""

    subresource: str
    user: User
    configuration: Configuration


S = TypeVar("S", Subject, BindingSubject, ConnectSubject)

# (field, message): where, and in one line what is wrong and what to do. Never a value.
Finding = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Rule(Generic[S]):
    """One policy property. `needed_for_injection`: a pod that asks is denied in every mode when this is violated."""

    id: str
    severity: Severity
    summary: str
    check: Callable[[S], Iterable[Finding]]
    needed_for_injection: bool = False
    needs_cluster: bool = False


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule's finding in one object."""

    rule: Rule[Any]
    field: str
    message: str

    def __str__(self) -> str:
        return f"[{self.rule.id}] {self.message}"


def evaluate(rules: Iterable[Rule[S]], subject: S) -> Iterator[Violation]:
    """Every violation, in the order of the rules."""
    for rule in rules:
        for field, message in rule.check(subject):
            yield Violation(rule, field, message)


def action_of(rule: Rule[Any], mode: Mode, configured: Action | None, asks: bool) -> Action:
    """What the violation of a rule does: `configured` first, but a pod that asks is never injected half."""
    if rule.needed_for_injection and asks:
        return "deny"
    return configured or ("deny" if mode is Mode.ENFORCE else "record")
