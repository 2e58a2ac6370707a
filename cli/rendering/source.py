"""What one kind of object is to a rendering: fields to write into it, and the pod that the cluster makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from cli.rendering.refused import RefusedError
from cli.support.admission import Admission
from measured.image import Image
from measured.pod_name import PodName
from measured.refusal import Refusal, member, objects
from measured.users import GROUPS, missing_users, users_of_images
from server.files import UnusableInputError
from webhook.errors import MalformedError
from webhook.request import User

REPLICA_SETS = User("system:serviceaccount:kube-system:replicaset-controller", ("system:authenticated",))
"""Who creates the pods of Deployments, Knative's among them."""
A_TEMPLATE_HASH = "5d4f8c7b99"
"""Like those that a Deployment's controller puts behind its name."""


class Source(Protocol):
    """An author's object on its way to be applied."""

    file: str
    """The name of the file that the object goes into."""
    injects: bool
    """Whether its pods are injected; the key server's are not."""

    @property
    def result(self) -> dict[str, Any]:
        """The object to apply."""

    @property
    def summary(self) -> str:
        """The line that names what runs."""

    def pod(self) -> tuple[dict[str, Any], PodName | None]:
        """The pod before our injection, and the names that it can have; None where it has one of its own."""

    def injected(self) -> dict[str, Any]:
        """The pod as the webhook makes it, before there is a document. Raises RefusedError."""

    def names(self) -> list[str]:
        """Some of the names that its pods can have."""

    def prove(self) -> None:
        """Let the webhook judge the pod with its document. Raises RefusedError."""

    def annotate(self, key: str, value: str) -> None:
        """Write an annotation into the pods' template."""


def names_of_deployment(name: str) -> list[str]:
    """Pods of a Deployment, by two hashes of its template."""
    hashes = ((A_TEMPLATE_HASH, "x2x4z"), ("7c8f9", "b9bqw"))
    return [f"{name}-{template}-"[:58] + random for template, random in hashes]


def write_users(spec: Mapping[str, Any], images: Mapping[str, Image]) -> None:
    """Write the users and groups that the author's containers leave open into the spec."""
    whole = member(spec, "securityContext")
    for group in GROUPS:
        for container in objects(spec.get(group)):
            alone = {"spec": {"securityContext": whole, "containers": [{**container, "name": "only"}]}}
            for _, _, missing in missing_users(alone, users_of_images(alone, images)):
                container["securityContext"] = {**(container.get("securityContext") or {}), **missing}


def admitted(
    admission: Admission, pod: dict[str, Any], namespace: str, creator: User, *, injects: bool = True
) -> dict[str, Any]:
    """The pod as the webhook admits it. Raises RefusedError where it denies the pod, or does not inject it."""
    try:
        found = admission.pod(pod, namespace, creator)
    except MalformedError as error:
        raise UnusableInputError(str(error)) from None
    if found.denial is not None:
        raise RefusedError([Refusal("the pod", found.denial)])
    if injects and (not found.changed or found.reason in ("cannot-inject", "opted-out")):
        raise RefusedError([Refusal("the pod", f"would not be injected ({found.reason or 'unchanged'})")])
    return found.object
