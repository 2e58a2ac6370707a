"""From an author's object to the one to apply, the guest policy, and the verifier's record.

The pod is computed as the cluster will make it: what the kind's controller makes, then our own injection, by the same
code that the webhook runs. What its guest can pin is measured; the document with that policy goes into the template,
and its digest is the HOST_DATA that the record names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from cli.rendering.choices import choices_of
from cli.rendering.commands import with_commands
from cli.rendering.evidence import with_data_hub
from cli.rendering.files import Inputs
from cli.rendering.refused import RefusedError
from cli.rendering.service import KnativeService
from cli.rendering.source import Source
from cli.rendering.vcpus import measurements_of
from cli.rendering.workload import Workload, is_workload
from cli.support.admission import Admission
from measured.guest_files import KeyBroker, attestation_agent, data_hub, repository_of
from measured.image import Image
from measured.initdata import Initdata, parse_initdata, write_initdata
from measured.measured_document import write_document
from measured.pod import INITDATA_ANNOTATION, Choices, measure
from measured.pod_name import PodName
from measured.policy import PolicyError, rules_digest, write_policy
from measured.refusal import Refusal, UnmeasurableError, objects
from measured.users import GROUPS, missing_users, users_of_images
from server.files import UnusableInputError
from webhook.configuration.model import Configuration
from webhook.configuration.profiles import PRESETS

_READ: Final = {"its logs": "readLogs", "its termination message": "readTermination"}
_MAX_ANNOTATIONS: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Rendering:
    """What came out. `source` holds the object to apply; `data` is what the policy pins of `pod`.

    `record` is the verifier's; of a pod that is not injected, `hostData` alone, for the entry of its guest.
    """

    source: Source
    pod: Mapping[str, Any]
    policy: str
    initdata: Initdata
    data: Mapping[str, Any]
    record: Mapping[str, Any]

    @property
    def host_data(self) -> str:
        """In hex."""
        return self.initdata.host_data.hex()


def render(
    item: dict[str, Any], namespace: str, inputs: Inputs, images: Mapping[str, Image], previous: Iterable[str] = ()
) -> Rendering:
    """Render one object of a kind that can be. Raises RefusedError, MalformedError and UnusableInputError."""
    source = _source(item, namespace, inputs, images)
    pod, name = source.pod()
    complete = _with_users(source.injected(), images)
    if inputs.evidence:
        complete = with_data_hub(complete)
    automounts = inputs.cluster.automounts_token(namespace, _account(pod))
    choices = choices_of(complete, automounts_token=automounts, copies_claims=not source.injects)
    data = _measured(complete, images, name, choices)
    initdata = _document(data, complete, inputs)
    encoded = write_initdata(initdata.toml)
    if len(encoded) > _MAX_ANNOTATIONS:
        raise RefusedError([Refusal("metadata.annotations", "the document is larger than Kubernetes' 256 KiB")])
    source.annotate(INITDATA_ANNOTATION, encoded)
    # The proof: the webhook injects the pod with the document, and finds in it what was measured.
    source.prove()
    host_data = _host_data(initdata, previous)
    record = _record(data, initdata, inputs, host_data) if source.injects else {"hostData": host_data}
    return Rendering(source, complete, write_policy(data), initdata, data, record)


def _source(item: dict[str, Any], namespace: str, inputs: Inputs, images: Mapping[str, Image]) -> Source:
    admission = Admission(configuration_of(inputs))
    started = with_commands(item, namespace, images, admission)
    kind = Workload if is_workload(item) else KnativeService
    return kind(started, namespace, inputs, images, admission)


def images_of(item: dict[str, Any], namespace: str, inputs: Inputs) -> list[tuple[str, str]]:
    """(field of the pod, reference) of each image whose configuration a rendering needs. Raises as `render`."""
    source = _source(item, namespace, inputs, {})
    spec = source.pod()[0]["spec"]
    named = [
        (f"spec.{group}[{index}].image ({container.get('name')})", container.get("image"))
        for group in GROUPS
        for index, container in enumerate(objects(spec.get(group)))
    ]
    if source.injects:
        named.append(("template.sidecar.image of cluster.yaml", inputs.cluster.template.sidecar.image))
    return [(field, image) for field, image in named if isinstance(image, str) and image]


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


def _with_users(pod: dict[str, Any], images: Mapping[str, Image]) -> dict[str, Any]:
    complete = deepcopy(pod)
    for group, index, missing in missing_users(complete, users_of_images(complete, images)):
        container = complete["spec"][group][index]
        container["securityContext"] = {**(container.get("securityContext") or {}), **missing}
    return complete


def _measured(
    pod: Mapping[str, Any], images: Mapping[str, Image], name: PodName | None, choices: Choices
) -> dict[str, Any]:
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


def _host_data(initdata: Initdata, previous: Iterable[str]) -> list[str]:
    """The new HOST_DATA first, then those that stay trusted during the roll-out."""
    own = initdata.host_data.hex()
    return [own, *dict.fromkeys(digest for digest in previous if digest != own)]


def _record(data: Mapping[str, Any], initdata: Initdata, inputs: Inputs, host_data: list[str]) -> dict[str, Any]:
    """The verifier's record."""
    trust = inputs.trust
    login = {"mount": "jwt", "role": "knative", "namespace": ""} if trust is None else trust.vault.model_dump()
    return {
        "workload": data["workload"],
        "assurance": "workload",
        "hostData": host_data,
        "podToken": "absent" if inputs.evidence else "required",
        "guests": [] if trust is None else list(trust.guests),
        "vault": login,
        "document": initdata.toml.decode(),
    }


def _account(pod: Mapping[str, Any]) -> str:
    return str(pod["spec"].get("serviceAccountName") or "default")


def summary(rendering: Rendering, inputs: Inputs, sources: Mapping[str, str]) -> list[str]:
    """What a reviewer wants to know, a line each. `sources`: where each image configuration came from, by digest."""
    data = rendering.data
    lines = [
        f"HOST_DATA       {rendering.host_data}",
        rendering.source.summary,
        f"rules           version {data['version']}, sha256 {rules_digest(data['version'])}",
        f"template        {data['template']}",
        *measurements_of(rendering.pod, {} if inputs.trust is None else inputs.trust.guests),
        *(f"{name:15} sha256 {digest}" for name, digest in inputs.digests.items()),
    ]
    for container in data["containers"]:
        lines.append(f"container       {container['name']}: {container['image']['digest']}")
        if read := [name for name, key in _READ.items() if container[key]]:
            lines.append(f"host reads      {container['name']}: {', '.join(read)}")
    for digest in dict.fromkeys(container["image"]["digest"] for container in data["containers"]):
        lines.append(f"image           {digest} from {sources[digest]}")
    if inputs.evidence:
        lines.append("identity        every container of the pod: without a pod token each can log in as the workload")
    if inputs.trust is None:
        lines.append("not trusted     no trust.yaml vouches for the capture: rendered without --trust, for trying out")
    lines.append(
        "on the capture  Knative's version and settings, and service accounts' automount, rest on cluster.yaml"
    )
    return lines
