"""Only Knative's and the built-in controllers' identities make pods with Knative's labels, and nobody changes them.

The verifier may read a pod's Service back from these labels, so they say who the pod is.
"""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import Finding, Rule, Severity, Subject
from webhook.wellknown import KNATIVE_PREFIX


def check(subject: Subject) -> Iterator[Finding]:
    if subject.user is None or subject.source is not None:
        return
    identities = subject.pod.configuration.identities
    if subject.user.name in identities.knative:
        return
    labels = _knative_labels(subject.pod.labels)
    if subject.old is not None:
        if labels != _knative_labels(subject.old.labels):
            yield "metadata.labels", "serving.knative.dev labels of a pod do not change; they say whose it is"
    elif labels and subject.user.name not in identities.podControllers:
        yield "metadata.labels", "remove the serving.knative.dev labels; only Knative makes pods of a Service"


def _knative_labels(labels: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in labels.items() if key.startswith(KNATIVE_PREFIX)}


RULE = Rule(
    id="isolation/knative-labels",
    severity=Severity.HIGH,
    summary="only Knative says which Service a pod belongs to",
    check=check,
)
