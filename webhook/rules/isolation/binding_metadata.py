"""A binding changes none of our annotations or labels: the API server copies a Binding's onto the pod."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.names import INITDATA, KNATIVE_PREFIX, PREFIX
from webhook.rules.rule import BindingSubject, Finding, Rule, Severity


def check(subject: BindingSubject) -> Iterator[Finding]:
    for member in ("annotations", "labels"):
        for key in subject.metadata.get(member) or {}:
            if key.startswith((PREFIX, KNATIVE_PREFIX)) or key == INITDATA:
                yield f"metadata.{member}", f"remove {PREFIX}, {KNATIVE_PREFIX} and initdata {member} from the Binding"
                break


RULE = Rule(
    id="isolation/binding-metadata",
    severity=Severity.CRITICAL,
    summary="a binding does not overwrite the pod's annotations",
    check=check,
    needed_for_injection=True,
)
