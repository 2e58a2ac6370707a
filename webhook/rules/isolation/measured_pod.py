"""A rendered pod is the one that its initdata document measured: its guest would refuse another, a minute later.

Only what reaches the guest counts. A document with a policy of others is not compared: the guest decides in any case.
"""

from __future__ import annotations

from collections.abc import Iterator

from measured.measured_document import differences
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
from webhook.wellknown import INITDATA

_MOST = 20
_RENDER = "render it again with morphisms render"


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    document = pod.measured
    # A Service's template is not the whole pod: Knative adds its own container and variables.
    if document is None or subject.old is not None or subject.source is not None:
        return
    named = document.data.get("template")
    if named and pod.named_template != pod.template.digest:
        if subject.snapshot is None:
            return  # offline, only the cluster's own templates could be compared
        yield (
            f"metadata.annotations[{INITDATA}]",
            f"the pod was measured with another container template than it is injected with; {_RENDER}",
        )
        return
    metadata = {**pod.metadata, "namespace": pod.namespace}
    found = differences({**pod.object, "metadata": metadata}, document)
    for each in found[:_MOST]:
        yield each.field, f"{each.field}: {each.message}; the guest would refuse the pod, so {_RENDER}"


RULE = Rule(
    id="isolation/measured-pod",
    severity=Severity.HIGH,
    summary="a rendered pod is the one that its initdata document measured",
    check=check,
    needed_for_injection=True,
)
