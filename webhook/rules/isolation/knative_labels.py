"""Only Knative and the built-in controllers create pods with Knative's labels, and only Knative changes them.

The verifier may look up a pod's Service by these labels, so they identify the pod.
"""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.pod import Pod
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
from webhook.wellknown import KNATIVE_PREFIX


def check(subject: Subject) -> Iterator[FieldMessage]:
    if subject.user is None or subject.source is not None:
        return
    identities = subject.pod.configuration.identities
    if subject.user.name in identities.knative:
        return
    labels = _knative_labels(subject.pod.labels)
    if subject.old is not None:
        if labels != _knative_labels(subject.old.labels):
            yield (
                "metadata.labels",
                "serving.knative.dev labels cannot change on a running pod: they identify its Service; restore them",
            )
    elif labels and (subject.user.name not in identities.podControllers or _is_of_another_workload(subject.pod)):
        yield "metadata.labels", "remove the serving.knative.dev labels: only Knative creates pods of a Service"


def _is_of_another_workload(pod: Pod) -> bool:
    """Whether a controller made the pod for something else than a ReplicaSet, from which all pods of Services come.

    Where all controllers act as one user, a StatefulSet's pod comes from a ControllerRevision, which authors may write.
    """
    references = pod.metadata.get("ownerReferences")
    return any(
        isinstance(each, dict)
        and each.get("controller") is True
        and (each.get("apiVersion"), each.get("kind")) != ("apps/v1", "ReplicaSet")
        for each in (references if isinstance(references, list) else ())
    )


def _knative_labels(labels: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in labels.items() if key.startswith(KNATIVE_PREFIX)}


RULE = Rule(
    id="isolation/knative-labels",
    severity=Severity.HIGH,
    summary="only Knative says which Service a pod belongs to",
    check=check,
)
