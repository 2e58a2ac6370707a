"""A Knative Service that is rendered: an explicit revision name, numeric users, and the pod of its Deployment."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from cli.knative.defaults import fill_in
from cli.knative.names import deployment_name
from cli.knative.pod import pod_of
from cli.knative.settings import Settings
from cli.rendering.files import Inputs
from cli.rendering.refused import RefusedError
from cli.rendering.source import REPLICA_SETS, admitted, names_of_deployment, write_users
from cli.support.admission import Admission
from measured.image import Image
from measured.pod import INITDATA_ANNOTATION, TEMPLATE_ANNOTATION
from measured.pod_name import PodName
from measured.refusal import Refusal, member, objects
from measured.users import GROUPS

_LONGEST_SERVICE: Final = 52
"""The Revision's name is the Service's, a dash and ten digits; 63 characters at most."""
_OWN_REVISION: Final = re.compile(r"[0-9a-f]{10}")


class KnativeService:
    """See `cli.rendering.source.Source`."""

    file = "service.yaml"
    injects = True

    def __init__(
        self,
        service: dict[str, Any],
        namespace: str,
        inputs: Inputs,
        images: Mapping[str, Image],
        admission: Admission,
    ) -> None:
        self._namespace = namespace
        self._settings = inputs.settings
        self._admission = admission
        self._named = _prepared(admission.copied_down(service, namespace), inputs, images)
        # The same changes on the author's object, which the API server will copy annotations down in again.
        self._result = _with_template_fields(service, self._named, inputs.settings)

    @property
    def result(self) -> dict[str, Any]:
        """The Service to apply."""
        return self._result

    @property
    def summary(self) -> str:
        """The Revision's name."""
        return f"revision        {self._result['spec']['template']['metadata']['name']}"

    def pod(self) -> tuple[dict[str, Any], PodName | None]:
        """The pod that Knative's controller makes."""
        return pod_of(self._named, self._namespace, self._settings)

    def injected(self) -> dict[str, Any]:
        """That pod, injected."""
        return admitted(self._admission, self.pod()[0], self._namespace, REPLICA_SETS)

    def names(self) -> list[str]:
        """Of the Revision's Deployment."""
        return names_of_deployment(deployment_name(self._result["spec"]["template"]["metadata"]["name"]))

    def prove(self) -> None:
        """Injected with its document."""
        self.injected()

    def annotate(self, key: str, value: str) -> None:
        """In the template, of the Service as applied and as the webhook completes it."""
        for service in (self._result, self._named):
            service["spec"]["template"]["metadata"]["annotations"][key] = value


def _prepared(service: dict[str, Any], inputs: Inputs, images: Mapping[str, Image]) -> dict[str, Any]:
    """The Service with an explicit revision name, numeric users and the template's digest."""
    prepared = deepcopy(service)
    refusals = []
    name = str(member(service, "metadata").get("name", ""))
    template = member(member(prepared, "spec"), "template")
    if len(name) > _LONGEST_SERVICE:
        refusals.append(
            Refusal("metadata.name", f"is longer than {_LONGEST_SERVICE} characters, which a Revision leaves")
        )
    given = member(template, "metadata").get("name")
    if given is not None and not _is_own(str(given), name):
        refusals.append(Refusal("spec.template.metadata.name", "is written by render; remove it"))
    if refusals:
        raise RefusedError(refusals)
    metadata = template.setdefault("metadata", {}) or {}
    template["metadata"] = metadata
    metadata.pop("name", None)
    annotations = metadata.get("annotations") or {}
    for key in (INITDATA_ANNOTATION, TEMPLATE_ANNOTATION):
        annotations.pop(key, None)
    metadata["annotations"] = annotations
    revision = _revision(name, template, inputs)
    annotations[TEMPLATE_ANNOTATION] = f"sha256:{inputs.cluster.template.digest}"
    metadata["name"] = revision
    write_users(member(template, "spec"), images)
    return prepared


def _is_own(revision: str, service: str) -> bool:
    head, dash, digits = revision.rpartition("-")
    return bool(dash) and head == service and _OWN_REVISION.fullmatch(digits) is not None


def _revision(service: str, template: Mapping[str, Any], inputs: Inputs) -> str:
    """A name that changes with whatever changes the pod; never with HOST_DATA, which covers the name."""
    content: dict[str, Any] = {"template": template, "inputs": dict(inputs.digests)}
    if inputs.evidence:
        content["evidence"] = inputs.evidence
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"{service}-{hashlib.sha256(canonical.encode()).hexdigest()[:10]}"


def _with_template_fields(service: dict[str, Any], prepared: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The author's Service with what was written into its template, without annotations that the webhook copies.

    And with Knative's defaults: where a Revision's name is explicit and unchanged, Knative's webhook fills in none, and
    would take the Service, applied once more as it is, for one that lost them ("changes without a name change").
    """
    result = deepcopy(service)
    template, written = result["spec"]["template"], prepared["spec"]["template"]
    metadata = template.setdefault("metadata", {}) or {}
    template["metadata"] = metadata
    metadata["name"] = written["metadata"]["name"]
    annotations = metadata.setdefault("annotations", {}) or {}
    metadata["annotations"] = annotations
    annotations.pop(INITDATA_ANNOTATION, None)
    annotations[TEMPLATE_ANNOTATION] = written["metadata"]["annotations"][TEMPLATE_ANNOTATION]
    for own, other in zip(template["spec"]["containers"], written["spec"]["containers"], strict=True):
        if "securityContext" in other:
            own["securityContext"] = deepcopy(other["securityContext"])
    fill_in(template["spec"], settings)
    for group in GROUPS:
        for container in objects(template["spec"].get(group)):
            container.setdefault("resources", {})
    return result
