"""A binding changes none of our annotations or labels: the API server copies a Binding's onto the pod."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import BindingSubject, Finding, Rule, Severity
from webhook.wellknown import KATA_PREFIX, KNATIVE_PREFIX, PREFIX

_KEPT = (PREFIX, KNATIVE_PREFIX, KATA_PREFIX)


def check(subject: BindingSubject) -> Iterator[Finding]:
    for member in ("annotations", "labels"):
        if any(key.startswith(_KEPT) for key in subject.metadata.get(member) or {}):
            yield f"metadata.{member}", f"remove {', '.join(_KEPT)} {member} from the Binding"


RULE = Rule(
    id="isolation/binding-metadata",
    severity=Severity.CRITICAL,
    summary="a binding does not overwrite the pod's annotations",
    check=check,
    needed_for_injection=True,
)
