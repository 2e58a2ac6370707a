"""A Pod, Deployment or StatefulSet that is rendered: numeric users, and the pod that its controller makes."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from cli.rendering.files import Inputs
from cli.rendering.refused import RefusedError
from cli.rendering.source import A_TEMPLATE_HASH, REPLICA_SETS, admitted, names_of_deployment, write_users
from cli.support.admission import AUTHOR, Admission
from measured.image import Image
from measured.pod import INITDATA_ANNOTATION, TEMPLATE_ANNOTATION
from measured.pod_name import PodName, name_of_deployment, name_of_stateful_set
from measured.refusal import Refusal, member
from webhook.pod.pod import Pod
from webhook.pod.schema import validate_pod_shape
from webhook.pod.workloads import as_made, template_at, template_path, workload_of
from webhook.request import User
from webhook.rewrite import rewrite
from webhook.rules import NEEDED_FOR_INJECTION
from webhook.rules.rule import Subject, evaluate
from webhook.wellknown import POD_TEMPLATE_HASH

KINDS: Final = ("Pod", "Deployment", "StatefulSet")
_LONGEST: Final = {"Pod": 63, "Deployment": 63, "StatefulSet": 57}
"""A pod's name is its host name, of 63 characters at most; a StatefulSet's adds a dash and five digits."""
_STATEFUL_SETS: Final = User("system:serviceaccount:kube-system:statefulset-controller", ("system:authenticated",))
_CREATORS: Final = {"Pod": AUTHOR, "Deployment": REPLICA_SETS, "StatefulSet": _STATEFUL_SETS}


def is_workload(item: Mapping[str, Any]) -> bool:
    """Whether the object is of a kind that can be rendered, besides Knative's Service."""
    return str(item.get("kind")) in KINDS and workload_of(dict(item)) is not None


class Workload:
    """See `cli.rendering.source.Source`."""

    file = "workload.yaml"

    def __init__(
        self, item: dict[str, Any], namespace: str, inputs: Inputs, images: Mapping[str, Image], admission: Admission
    ) -> None:
        self._kind = str(item["kind"])
        self._namespace = namespace
        self._admission = admission
        self._result = deepcopy(item)
        self._name = str(member(item, "metadata").get("name") or "")
        self._service = _service(self._kind, namespace, self._name, inputs)
        template = template_at(self._result, template_path(item))
        if template is None or not isinstance(template.get("spec"), dict):
            raise RefusedError([Refusal("spec.template", "is missing")])
        self._template = template
        metadata = template.get("metadata") or {}
        template["metadata"] = metadata
        metadata["annotations"] = metadata.get("annotations") or {}
        for key in (INITDATA_ANNOTATION, TEMPLATE_ANNOTATION):
            metadata["annotations"].pop(key, None)
        self.injects = self._injects()
        if self.injects:
            self.annotate(TEMPLATE_ANNOTATION, f"sha256:{inputs.cluster.template.digest}")
        write_users(template["spec"], images)

    @property
    def result(self) -> dict[str, Any]:
        """The object to apply."""
        return self._result

    @property
    def summary(self) -> str:
        """The kind, and the service that it is."""
        claimed = f", as service {self._service}" if self.injects else ", without injection"
        return f"workload        {self._kind} {self._namespace}/{self._name}{claimed}"

    def pod(self) -> tuple[dict[str, Any], PodName | None]:
        """The pod that the kind's controller makes."""
        metadata = {"namespace": self._namespace, **deepcopy(self._template["metadata"])}
        metadata["namespace"] = self._namespace
        spec = deepcopy(self._template["spec"])
        name = None
        if self._kind == "Deployment":
            metadata["generateName"] = f"{self._name}-{A_TEMPLATE_HASH}-"
            metadata["labels"] = {**(metadata.get("labels") or {}), POD_TEMPLATE_HASH: A_TEMPLATE_HASH}
            name = name_of_deployment(self._name)
        elif self._kind == "StatefulSet":
            metadata["name"] = spec["hostname"] = f"{self._name}-0"
            metadata["labels"] = {
                **(metadata.get("labels") or {}),
                "apps.kubernetes.io/pod-index": "0",
                "statefulset.kubernetes.io/pod-name": f"{self._name}-0",
            }
            made = as_made(self._result, {"metadata": {}, "spec": spec})
            metadata["ownerReferences"], spec = made["metadata"]["ownerReferences"], dict(made["spec"])
            spec["subdomain"] = str(self._result["spec"].get("serviceName") or "")
            name = name_of_stateful_set(self._name)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        validate_pod_shape(pod)
        return pod, name

    def injected(self) -> dict[str, Any]:
        """That pod, injected by the service's name, which no label of it says. Raises RefusedError."""
        pod = Pod(self.pod()[0], self._namespace, self._admission.configuration, claims=self._service)
        patch = rewrite(pod, None)
        subject = Subject(pod.rewritten(patch.result), None, _CREATORS[self._kind], just_rewritten=True)
        if found := [Refusal(each.field, each.message) for each in evaluate(NEEDED_FOR_INJECTION, subject)]:
            raise RefusedError(found)
        return deepcopy(patch.result)

    def names(self) -> list[str]:
        """By the kind's controller; a Pod has its own."""
        if self._kind == "Deployment":
            return names_of_deployment(self._name)
        return [self._name] if self._kind == "Pod" else [f"{self._name}-{ordinal}" for ordinal in (0, 1, 10000)]

    def prove(self) -> None:
        """Admitted with its document. Raises RefusedError."""
        admitted(self._admission, self.pod()[0], self._namespace, _CREATORS[self._kind], injects=self.injects)

    def annotate(self, key: str, value: str) -> None:
        """In the template."""
        self._template["metadata"]["annotations"][key] = value

    def _injects(self) -> bool:
        profile = Pod(self.pod()[0], self._namespace, self._admission.configuration).profile
        return profile is None or profile.injects


def _service(kind: str, namespace: str, name: str, inputs: Inputs) -> str:
    """What the workload is called in the record and in its secrets' path. Raises RefusedError."""
    if not name or len(name) > _LONGEST[kind]:
        raise RefusedError(
            [Refusal("metadata.name", f"is missing, or longer than {_LONGEST[kind]} characters, which a host name has")]
        )
    named = {} if inputs.trust is None else inputs.trust.workloads
    return named.get(f"{namespace}/{kind}/{name}", name)
