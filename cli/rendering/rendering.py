"""From an author's Service to the one to apply, the guest policy, and the verifier's record.

The pod is computed as the cluster will make it: Knative's defaults and queue-proxy, then our own injection, by the
same code that the webhook runs. What its guest can pin is measured; the document with that policy goes into the
Service, and its digest is the HOST_DATA that the record names.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from cli.knative.pod import pod_of
from cli.rendering.files import Inputs
from cli.support.admission import Admission
from measured.guest_files import KeyBroker, attestation_agent, data_hub, repository_of
from measured.image import Image
from measured.initdata import Initdata, parse_initdata, write_initdata
from measured.measured_document import write_document
from measured.pod import INITDATA_ANNOTATION, TEMPLATE_ANNOTATION, Choices, measure
from measured.pod_name import PodName
from measured.policy import PolicyError, rules_digest, write_policy
from measured.refusal import Refusal, UnmeasurableError, member, objects
from measured.users import missing_users, users_of_images
from server.files import UnusableInputError
from webhook.configuration.model import Configuration
from webhook.configuration.profiles import PRESETS
from webhook.errors import MalformedError
from webhook.request import User

_LONGEST_SERVICE: Final = 52
"""The Revision's name is the Service's, a dash and ten digits; 63 characters at most."""
_MAX_ANNOTATIONS: Final = 256 * 1024
_OWN_REVISION: Final = re.compile(r"[0-9a-f]{10}")
# Knative's Deployments come to pods by way of a ReplicaSet.
_CREATOR: Final = User("system:serviceaccount:kube-system:replicaset-controller", ("system:authenticated",))


class RefusedError(Exception):
    """The Service cannot be measured: each reason with its field and what to write."""

    def __init__(self, refusals: Iterable[Refusal]) -> None:
        self.refusals = tuple(refusals)
        super().__init__("; ".join(map(str, self.refusals)))


@dataclass(frozen=True, slots=True)
class Rendering:
    """What came out. `service` is the object to apply; `data` is what the policy pins."""

    service: dict[str, Any]
    policy: str
    initdata: Initdata
    data: Mapping[str, Any]
    record: Mapping[str, Any]

    @property
    def host_data(self) -> str:
        """In hex."""
        return self.initdata.host_data.hex()


def render(
    service: dict[str, Any], namespace: str, inputs: Inputs, images: Mapping[str, Image], previous: Iterable[str] = ()
) -> Rendering:
    """Render one Knative Service. Raises RefusedError, MalformedError and UnusableInputError."""
    admission = Admission(configuration_of(inputs))
    named = _prepared(admission.copied_down(service, namespace), inputs, images)
    # The same changes on the author's object, which the API server will copy annotations down in again.
    result = _with_template_fields(service, named)
    pod, name = pod_of(named, namespace, inputs.settings)
    injected = _admitted(admission, pod, namespace)
    complete = _with_users(injected, images)
    choices = Choices(automounts_token=inputs.cluster.automounts_token(namespace, _account(pod)))
    data = _measured(complete, images, name, choices)
    initdata = _document(data, complete, inputs)
    encoded = write_initdata(initdata.toml)
    if len(encoded) > _MAX_ANNOTATIONS:
        raise RefusedError([Refusal("metadata.annotations", "the document is larger than Kubernetes' 256 KiB")])
    _annotate(result, INITDATA_ANNOTATION, encoded)
    _annotate(named, INITDATA_ANNOTATION, encoded)
    # The proof: the webhook injects the pod with the document, and finds in it what was measured.
    _admitted(admission, pod_of(named, namespace, inputs.settings)[0], namespace)
    record = _record(data, initdata, inputs, previous)
    return Rendering(result, write_policy(data), initdata, data, record)


def configuration_of(inputs: Inputs) -> Configuration:
    """The webhook's configuration, as far as injection needs it, with the captured template."""
    template = inputs.cluster.template
    profiles = [
        preset.model_copy(update={"evidence": template.evidence.get(preset.name, preset.evidence)})
        for preset in PRESETS
    ]
    configuration = Configuration(
        cluster=template.cluster,
        profiles=tuple(profiles),
        sidecar=template.sidecar,
        verifier=template.verifier,
        vault=template.vault,
    )
    if configuration.container_template != template:
        raise UnusableInputError(
            "cluster.yaml: template: this release of morphisms cannot make it; upgrade or downgrade"
        )
    return configuration


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
    _write_users(member(template, "spec"), images)
    return prepared


def _write_users(spec: dict[str, Any], images: Mapping[str, Image]) -> None:
    whole = member(spec, "securityContext")
    for container in objects(spec.get("containers")):
        alone = {"spec": {"securityContext": whole, "containers": [{**container, "name": "only"}]}}
        for _, _, missing in missing_users(alone, users_of_images(alone, images)):
            container["securityContext"] = {**(container.get("securityContext") or {}), **missing}


def _is_own(revision: str, service: str) -> bool:
    head, dash, digits = revision.rpartition("-")
    return bool(dash) and head == service and _OWN_REVISION.fullmatch(digits) is not None


def _revision(service: str, template: Mapping[str, Any], inputs: Inputs) -> str:
    """A name that changes with whatever changes the pod; never with HOST_DATA, which covers the name."""
    content = {"template": template, "inputs": dict(inputs.digests)}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"{service}-{hashlib.sha256(canonical.encode()).hexdigest()[:10]}"


def _with_template_fields(service: dict[str, Any], prepared: Mapping[str, Any]) -> dict[str, Any]:
    """The author's Service with what was written into its template, without annotations that the webhook copies."""
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
    return result


def _annotate(service: dict[str, Any], key: str, value: str) -> None:
    service["spec"]["template"]["metadata"]["annotations"][key] = value


def _admitted(admission: Admission, pod: dict[str, Any], namespace: str) -> dict[str, Any]:
    try:
        admitted = admission.pod(pod, namespace, _CREATOR)
    except MalformedError as error:
        raise UnusableInputError(str(error)) from None
    if admitted.denial is not None:
        raise RefusedError([Refusal("the pod", admitted.denial)])
    if not admitted.changed or admitted.reason in ("cannot-inject", "opted-out"):
        raise RefusedError([Refusal("the pod", f"would not be injected ({admitted.reason or 'unchanged'})")])
    return admitted.object


def _with_users(pod: dict[str, Any], images: Mapping[str, Image]) -> dict[str, Any]:
    complete = deepcopy(pod)
    for group, index, missing in missing_users(complete, users_of_images(complete, images)):
        container = complete["spec"][group][index]
        container["securityContext"] = {**(container.get("securityContext") or {}), **missing}
    return complete


def _measured(pod: Mapping[str, Any], images: Mapping[str, Image], name: PodName, choices: Choices) -> dict[str, Any]:
    try:
        return measure(pod, images, name, choices)
    except UnmeasurableError as error:
        raise RefusedError(error.refusals) from None


def _document(data: Mapping[str, Any], pod: Mapping[str, Any], inputs: Inputs) -> Initdata:
    verifier = inputs.cluster.template.verifier
    broker = KeyBroker(verifier.url, verifier.ca)
    containers = [*objects(pod["spec"].get("initContainers")), *objects(pod["spec"]["containers"])]
    repositories = [repository_of(str(container["image"])) for container in containers]
    files = {"aa.toml": attestation_agent(broker), "cdh.toml": data_hub(broker, repositories)}
    try:
        return parse_initdata(write_document(data, files))
    except PolicyError as error:
        raise RefusedError([Refusal("the policy", str(error))]) from None


def _record(data: Mapping[str, Any], initdata: Initdata, inputs: Inputs, previous: Iterable[str]) -> dict[str, Any]:
    """The verifier's record: the new HOST_DATA first, then those that stay trusted during the roll-out."""
    own = initdata.host_data.hex()
    trust = inputs.trust
    login = {"mount": "jwt", "role": "knative", "namespace": ""} if trust is None else trust.vault.model_dump()
    return {
        "workload": data["workload"],
        "assurance": "workload",
        "hostData": [own, *dict.fromkeys(digest for digest in previous if digest != own)],
        "podToken": "required",
        "guests": [] if trust is None else list(trust.guests),
        "vault": login,
        "document": initdata.toml.decode(),
    }


def _account(pod: Mapping[str, Any]) -> str:
    return str(pod["spec"].get("serviceAccountName") or "default")


def summary(rendering: Rendering, inputs: Inputs) -> list[str]:
    """What a reviewer wants to know, a line each."""
    data = rendering.data
    lines = [
        f"HOST_DATA       {rendering.host_data}",
        f"revision        {rendering.service['spec']['template']['metadata']['name']}",
        f"rules           version {data['version']}, sha256 {rules_digest(data['version'])}",
        f"template        {data['template']}",
        *(f"{name:15} sha256 {digest}" for name, digest in inputs.digests.items()),
    ]
    for container in data["containers"]:
        lines.append(f"container       {container['name']}: {container['image']['digest']}")
    if inputs.trust is None:
        lines.append("not trusted     no trust.yaml vouches for the capture: rendered without --trust, for trying out")
    lines.append(
        "on the capture  Knative's version and settings, and service accounts' automount, rest on cluster.yaml"
    )
    return lines
