"""A Binding has no annotations or labels of Morphisms, Knative or Kata: the API server copies them onto the pod."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import BindingSubject, FieldMessage, Rule, Severity
from webhook.wellknown import KATA_PREFIX, KNATIVE_PREFIX, PREFIX

_PROTECTED = (PREFIX, KNATIVE_PREFIX, KATA_PREFIX)


def check(subject: BindingSubject) -> Iterator[FieldMessage]:
    for member in ("annotations", "labels"):
        if any(key.startswith(_PROTECTED) for key in subject.metadata.get(member) or {}):
            yield f"metadata.{member}", f"remove {member} that start with {', '.join(_PROTECTED)} from the Binding"


RULE = Rule(
    id="isolation/binding-metadata",
    severity=Severity.CRITICAL,
    summary="a binding does not overwrite the pod's annotations",
    check=check,
    needed_for_injection=True,
)
