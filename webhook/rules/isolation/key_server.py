"""In the key server's namespace runs the key server's pod alone, made by its StatefulSet.

The verifier and its OpenBao hold what every workload's secrets depend on. Any other pod there could take the Service's
name, its volume or its account.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from webhook.pod.pod import Pod
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
from webhook.wellknown import KMS_NAMESPACE, KMS_STATEFUL_SET


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    if pod.namespace != KMS_NAMESPACE:
        return
    if subject.source is not None or not _is_of_the_key_server(pod):
        yield (
            "metadata.ownerReferences",
            f"namespace {KMS_NAMESPACE} is for the pods of StatefulSet {KMS_STATEFUL_SET}; create this one in another"
            " namespace",
        )
    elif subject.old is None and _is_another_author(subject):
        yield (
            "metadata.ownerReferences",
            f"only the controller creates pods of StatefulSet {KMS_STATEFUL_SET}; scale the StatefulSet instead",
        )


def _is_another_author(subject: Subject) -> bool:
    """Whether another user than the controller creates the pod; who owns it is that user's own word."""
    controllers = subject.pod.configuration.identities.statefulSetControllers
    return subject.user is not None and subject.user.name not in controllers


def _is_of_the_key_server(pod: Pod) -> bool:
    owners: list[dict[str, Any]] = pod.metadata.get("ownerReferences") or []
    controllers = [each for each in owners if each.get("controller") is True]
    return len(controllers) == 1 and (
        (controllers[0].get("apiVersion"), controllers[0].get("kind"), controllers[0].get("name"))
        == ("apps/v1", "StatefulSet", KMS_STATEFUL_SET)
    )


RULE = Rule(
    id="isolation/key-server",
    severity=Severity.CRITICAL,
    summary="in morphisms-kms run the key server's own pods alone",
    check=check,
)
