"""`measure`: what a guest policy pins of a pod, as one JSON object.

Webhook, verifier and `render` call it with the same pod and image configurations and get equal objects, so that a
difference is a field that the guest would refuse. Nothing that the kubelet or the scheduler may choose is in it:
probes, resources, affinity. Source of the forms: kata-containers 4.1, containerd 2.3, kubelet 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from measured.container import PodFacts, measure_container
from measured.image import Image, digest_of, write_image
from measured.pod_name import PodName, own_name
from measured.refusal import Refusals, UnmeasurableError, member, objects
from measured.volumes import mounts_token
from plan.codec import read_plan
from plan.document import PlanError
from plan.layout import CONTAINER, PLAN_VARIABLE

VERSION: Final = 1
"""The version of the data's form; the rules text of the same number reads it."""

INITDATA_ANNOTATION: Final = "io.katacontainers.config.hypervisor.cc_init_data"
TEMPLATE_ANNOTATION: Final = "morphisms.dev/template"
_KATA_PREFIX: Final = "io.katacontainers."


@dataclass(frozen=True, slots=True)
class Choices:
    """What the author of a workload decides beside the pod.

    `reads_*`: names of containers whose output the host may read. `copies_claims`: a persistent volume may be mounted
    writable, although a guest gets a copy of its files and nothing comes back.
    """

    reads_logs: frozenset[str] = frozenset()
    reads_termination: frozenset[str] = frozenset({CONTAINER})
    automounts_token: bool = True
    copies_claims: bool = False


def measure(
    pod: Mapping[str, Any],
    images: Mapping[str, Image],
    name: PodName | None = None,
    choices: Choices = Choices(),
) -> dict[str, Any]:
    """The data of the pod's policy. `images` by digest; `name` where a controller makes the name.

    Raises UnmeasurableError with each field that cannot be measured.
    """
    refusals = Refusals()
    metadata, spec = member(pod, "metadata"), member(pod, "spec")
    _refuse_what_guests_lack(spec, refusals)
    security = member(spec, "securityContext")
    facts = PodFacts(
        pod,
        {str(volume.get("name")): volume for volume in objects(spec.get("volumes"))},
        security,
        mounts_token(spec, choices.automounts_token),
        choices.reads_logs,
        choices.reads_termination,
        choices.copies_claims,
    )
    containers = _containers(spec, facts, images, refusals)
    found = own_name(metadata, refusals) if name is None else name
    workload = _workload(spec, refusals)
    if refusals.found:
        raise UnmeasurableError(refusals.found)
    used = {container["image"]["digest"] for container in containers}
    return {
        "version": VERSION,
        "namespace": str(metadata.get("namespace") or "default"),
        "pod": {
            **({"pattern": found.text} if found.is_pattern else {"name": found.text}),
            "hostname": _hostname(metadata, spec),
            "fsGroup": security.get("fsGroup"),
        },
        "annotations": _kata_annotations(member(metadata, "annotations")),
        "template": str(member(metadata, "annotations").get(TEMPLATE_ANNOTATION) or ""),
        "workload": workload,
        "containers": containers,
        "images": {digest: write_image(images[digest]) for digest in sorted(used)},
        "automountsToken": choices.automounts_token,
    }


def _containers(
    spec: Mapping[str, Any], facts: PodFacts, images: Mapping[str, Image], refusals: Refusals
) -> list[dict[str, Any]]:
    measured: list[dict[str, Any]] = []
    earlier: list[str] = []
    names: set[str] = set()
    for field, container in _in_order(spec):
        name = str(container.get("name", ""))
        where = f"spec.{field}[{name}]"
        if name in names:
            refusals.add(where, "has another container's name")
        names.add(name)
        digest = digest_of(container.get("image"))
        if digest is None:
            refusals.add(f"{where}.image", "has no digest; write REPOSITORY@sha256:…")
        elif digest not in images:
            refusals.add(f"{where}.image", f"its configuration ({digest}) is not known")
        image = images.get(digest or "", Image())
        kind = "app" if field == "containers" else "sidecar" if container.get("restartPolicy") == "Always" else "init"
        measured.append(measure_container(container, kind, list(earlier), facts, image, where, refusals))
        if field == "initContainers":
            earlier.append(name)
    return measured


def _workload(spec: Mapping[str, Any], refusals: Refusals) -> dict[str, str] | None:
    """Who the pod claims to be, by the plan that morphisms-init carries; None without that container."""
    for container in objects(spec.get("initContainers")):
        if container.get("name") == CONTAINER:
            values = [one.get("value") for one in objects(container.get("env")) if one.get("name") == PLAN_VARIABLE]
            try:
                workload = read_plan(str(values[0] if values else "")).workload
            except PlanError as error:
                refusals.add(f"spec.initContainers[{CONTAINER}].env[{PLAN_VARIABLE}]", str(error))
                return None
            return {
                "cluster": workload.cluster,
                "namespace": workload.namespace,
                "service": workload.service,
                "serviceAccount": workload.service_account,
            }
    return None


def _in_order(spec: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(field, one) for field in ("initContainers", "containers") for one in objects(spec.get(field))]


def _refuse_what_guests_lack(spec: Mapping[str, Any], refusals: Refusals) -> None:
    refuse = refusals.unless_empty
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        refuse(spec.get(name), f"spec.{name}", "a guest shares nothing with its host; remove it")
    refuse(spec.get("shareProcessNamespace"), "spec.shareProcessNamespace", "is not measured; remove it")
    refuse(spec.get("ephemeralContainers"), "spec.ephemeralContainers", "are added at the host's word; remove them")
    refuse(spec.get("setHostnameAsFQDN"), "spec.setHostnameAsFQDN", "is not measured; remove it")
    refuse(spec.get("hostUsers") is False, "spec.hostUsers", "is not passed on to a guest; remove it")
    refuse(
        member(spec, "securityContext").get("sysctls"), "spec.securityContext.sysctls", "are not measured; remove them"
    )
    refuse(
        member(spec, "securityContext").get("seLinuxOptions"),
        "spec.securityContext.seLinuxOptions",
        "is not passed on to a guest; remove it",
    )
    if spec.get("enableServiceLinks") is not False:
        refusals.add("spec.enableServiceLinks", "adds variables of the host's; write false")
    if member(spec, "os").get("name", "linux") != "linux":
        refusals.add("spec.os.name", "must be linux")


def _hostname(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """Empty where it is the pod's own name: without one, or as a StatefulSet's controller writes it."""
    hostname = str(spec.get("hostname") or "")
    return "" if hostname == metadata.get("name") else hostname


def _kata_annotations(annotations: Mapping[str, Any]) -> dict[str, str]:
    """Those that Kata passes on to each container. The document itself is not among them."""
    return {
        key: str(value)
        for key, value in sorted(annotations.items())
        if key.startswith(_KATA_PREFIX) and key != INITDATA_ANNOTATION
    }
