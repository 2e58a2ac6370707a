"""A signal on a changed secret can reach its process: both need one process namespace and one user."""

from __future__ import annotations

from collections.abc import Iterator

from plan.document import NO_REACTION
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject

_FIELD = "metadata.annotations[morphisms.dev/on-change]"


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    if pod.options.on_change == NO_REACTION:
        return
    if not pod.spec.get("shareProcessNamespace"):
        yield _FIELD, "signals need shareProcessNamespace: true in the pod; without it use on-change: none"
    if pod.file_owner is None:
        yield _FIELD, "signals need the containers that get secrets to share one runAsUser other than root; set it"


RULE = Rule(
    id="secrets/on-change",
    severity=Severity.MEDIUM,
    summary="signals on changed secrets can be delivered",
    check=check,
    needed_for_injection=True,
)
