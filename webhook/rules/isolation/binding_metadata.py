"""A Binding has no annotation or label of Morphisms, Knative or a runtime: the API server copies them onto the pod."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.container import display_name
from webhook.pod.runtime_annotations import reaches_runtime
from webhook.rules.rule import BindingSubject, FieldMessage, Rule, Severity
from webhook.wellknown import KNATIVE_PREFIX, PREFIX

_PROTECTED = (PREFIX, KNATIVE_PREFIX)


def check(subject: BindingSubject) -> Iterator[FieldMessage]:
    for member in ("annotations", "labels"):
        for key in subject.metadata.get(member) or {}:
            if key.startswith(_PROTECTED) or reaches_runtime(key):
                yield (
                    f"metadata.{member}",
                    f"remove {display_name(key)} from the Binding: the API server would write it over the pod's own",
                )
                break


RULE = Rule(
    id="isolation/binding-metadata",
    severity=Severity.CRITICAL,
    summary="a binding does not overwrite the pod's annotations",
    check=check,
    needed_for_injection=True,
)
