"""What was found in one workload: each finding says what to change, and whether that is its author's to do."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.kubernetes.untyped import text
from webhook.configuration.exceptions import PolicyException
from webhook.modes import Action, Mode
from webhook.rules.rule import Severity


class FindingClass(enum.StrEnum):
    """Who has to act on a finding. Only the last two keep a workload from being ready."""

    FIXED_BY_INJECTION = "fixed-by-injection"
    """The webhook corrects it in every pod that it injects."""
    YOURS_TO_CHANGE = "yours-to-change"
    """It is still there after injection, so the author has to change the object."""
    NOT_EVALUATED = "not-evaluated"
    """It is not known, because what it depends on could not be looked at."""


@dataclass(frozen=True, slots=True)
class ObjectId:
    """Which object: as an ownerReference or a report's subject names one. `namespace` is empty for a cluster's."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> ObjectId:
        """The object's own. What is no text counts as empty."""
        metadata = item.get("metadata")
        known: Mapping[str, Any] = metadata if isinstance(metadata, Mapping) else {}
        return cls(
            text(item.get("apiVersion")),
            text(item.get("kind")),
            text(known.get("namespace")),
            text(known.get("name")),
            text(known.get("uid")),
        )

    def owner_by(self, reference: Mapping[str, Any]) -> ObjectId | None:
        """The object in the same namespace that an ownerReference of this one names; None for an empty reference."""
        return ObjectId.of({**reference, "metadata": {**reference, "namespace": self.namespace}}) if reference else None

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One place in one object. `message` says what to change; it never holds a value of the object.

    `rule` is the id of a rule of docs/rules.md, or of what else is looked at. `field` is in the object as its author
    wrote it, empty for the object as a whole. `action` is what admission does for it in the mode that was asked about,
    `action_now` what it does in the namespace's present mode. `exception` covers it, so that it does not count.
    """

    rule: str
    severity: Severity
    kind: FindingClass
    object: ObjectId
    field: str
    message: str
    action: Action = "record"
    action_now: Action = "record"
    exception: PolicyException | None = None

    @property
    def link(self) -> str:
        """The part of the documentation that explains the rule."""
        return link_of(self.rule)

    @property
    def denies(self) -> bool:
        """Whether admission refuses for it, in the mode that was asked about."""
        return self.action == "deny" and self.exception is None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One workload, evaluated as in a namespace of mode `target`, which has mode `mode` now.

    `exempt` says why the policy does not apply to its pods, where it does not. `notes` say what its author may expect
    and does not happen; they are no findings. `opts_in`: whether its pods opt in, in the target mode.
    """

    object: ObjectId
    mode: Mode
    target: Mode
    findings: tuple[Finding, ...] = ()
    excepted: tuple[Finding, ...] = ()
    exempt: str = ""
    notes: tuple[str, ...] = ()
    opts_in: bool = False

    @property
    def denying(self) -> tuple[Finding, ...]:
        """The findings for which its next pod is refused in the target mode."""
        return tuple(each for each in self.findings if each.denies)

    @property
    def not_evaluated(self) -> tuple[Finding, ...]:
        """What is not known about it."""
        return tuple(each for each in self.findings if each.kind is FindingClass.NOT_EVALUATED)

    @property
    def is_ready(self) -> bool:
        """Whether its next pod is admitted in the target mode, and all that decides this was looked at."""
        return not self.denying and not self.not_evaluated


def link_of(rule: str) -> str:
    """Where the documentation explains the rule: the page, and the heading with the rule's id."""
    if rule.startswith(("scan/", "cluster/")):
        return "docs/operations.md#what-reports-say"
    return f"docs/rules.md#{rule.replace('/', '')}"
