"""Steps 3 and 6: the injected container `morphisms-init`, its place, and the status annotation."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from plan import layout
from plan.document import PlanError
from webhook.configuration.container_template import security_context
from webhook.configuration.profiles import Profile
from webhook.pod.plan_cache import plan_text
from webhook.pod.pod import Pod
from webhook.quantity import same_amount
from webhook.rewrite.patch import Patch
from webhook.rewrite.plan import make_plan
from webhook.wellknown import (
    ISTIO_EXCLUDED_PORTS,
    ISTIO_INIT,
    ISTIO_VALIDATION,
    MESH_PROXIES,
    SERVICE_ACCOUNT_MOUNT,
    STATUS,
    SUPPORTED_INJECTOR_VERSIONS,
)

# What the ServiceAccount admission plugin calls its projected volumes (BoundServiceAccountTokenVolume).
_ACCOUNT_VOLUME = "kube-api-access-"


def inject_sidecar(patch: Patch, pod: Pod, profile: Profile) -> None:
    """Put `morphisms-init` where it belongs, and as it should be."""
    try:
        wanted = sidecar_container(pod, profile)
    except PlanError:
        # Too large a plan: without the container in it, the rule secrets/init-container refuses the pod.
        return
    present = pod.spec.get("initContainers") or []
    names = [each.get("name") for each in present]
    if names.count(layout.CONTAINER) > 1:
        return
    place = _place(pod, [each for each in present if each.get("name") != layout.CONTAINER])
    if layout.CONTAINER in names:
        here = names.index(layout.CONTAINER)
        if here == place and is_intact(present[here], wanted):
            return
        patch.remove(("spec", "initContainers", here))
        present = [each for each in present if each.get("name") != layout.CONTAINER]
        patch.add(("spec", "initContainers", place), wanted)
    elif present:
        patch.add(("spec", "initContainers", place), wanted)
    else:
        patch.add(("spec", "initContainers"), [wanted])
    _pass_by_the_mesh(patch, pod)
    _pull_secrets(patch, pod)


def _place(pod: Pod, others: list[dict[str, Any]]) -> int:
    """After a native mesh proxy, which carries the network of whoever comes later; before every consumer.

    A classic mesh redirects the pod's traffic in an init container and starts its proxy only after all of them, so
    with one of those we come first, while the network is still the pod's own.
    """
    place = 0
    for index, container in enumerate(others):
        if container.get("name") in MESH_PROXIES and container.get("restartPolicy") == "Always":
            place = index + 1
    consumers = {each.name for each in pod.consumers if each.group == "initContainers"}
    for index, container in enumerate(others[:place]):
        if container.get("name") in consumers:
            return index
    return place


def sidecar_container(pod: Pod, profile: Profile) -> dict[str, Any]:
    """The container as it should be. Raises PlanError."""
    container_template = pod.configuration.container_template
    user = pod.file_owner or pod.configuration.sidecar.runAsUser
    container: dict[str, Any] = {
        **container_template.container,
        "env": [{"name": layout.PLAN_VARIABLE, "value": plan_text(make_plan(pod, profile))}],
        "resources": container_template.guaranteed_resources if _is_guaranteed(pod) else container_template.resources,
        "securityContext": security_context(user),
    }
    if pod.options.agent == "sidecar":
        container["restartPolicy"] = "Always"
        container.update(container_template.probes)
    return container


def is_intact(container: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether the container is the wanted one, but for what the API server's own plugins make of every container.

    They mount the service account, always pull (AlwaysPullImages), add resources that we do not name (LimitRanger), and
    store quantities in their canonical form. None of that changes what runs or what it is given.
    """
    if container == wanted:
        return True
    plain = {
        **container,
        "volumeMounts": [each for each in container.get("volumeMounts") or () if not _is_account(each)],
    }
    if container.get("imagePullPolicy") == "Always":
        plain["imagePullPolicy"] = wanted["imagePullPolicy"]
    if _grants(container.get("resources") or {}, wanted["resources"]):
        plain["resources"] = wanted["resources"]
    return plain == wanted


def _is_account(mount: dict[str, Any]) -> bool:
    """Whether it is the mount that the ServiceAccount plugin adds, of its own volume."""
    return mount == {
        "name": mount.get("name"),
        "mountPath": SERVICE_ACCOUNT_MOUNT,
        "readOnly": True,
    } and str(mount.get("name")).startswith(_ACCOUNT_VOLUME)


def _grants(resources: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether every amount that we name is granted as named."""
    return all(
        same_amount((resources.get(kind) or {}).get(name), amount)
        for kind, amounts in wanted.items()
        for name, amount in amounts.items()
    )


def _is_guaranteed(pod: Pod) -> bool:
    """Whether the pod is of the Guaranteed class; our container has to have requests equal to limits then."""
    return all(_has_equal_resources(container.object) for container in pod.containers if container is not pod.injected)


def _has_equal_resources(container: dict[str, Any]) -> bool:
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    return all(limits.get(name) and requests.get(name, limits[name]) == limits[name] for name in ("cpu", "memory"))


def _pass_by_the_mesh(patch: Patch, pod: Pod) -> None:
    """Where a CNI plugin redirects the traffic of init containers too, keep ours out of a proxy not yet running."""
    if not any(each.name == ISTIO_VALIDATION for each in pod.containers):
        return
    if any(each.name == ISTIO_INIT for each in pod.containers):
        return
    if any(each.name in MESH_PROXIES and each.group == "initContainers" for each in pod.containers):
        return
    configuration = pod.configuration
    ports = {_port(configuration.verifier.url), _port(configuration.vault.url)}
    excluded = [part for part in pod.annotations.get(ISTIO_EXCLUDED_PORTS, "").split(",") if part.strip()]
    missing = sorted(str(port) for port in ports if str(port) not in {part.strip() for part in excluded})
    if missing:
        _annotate(patch, ISTIO_EXCLUDED_PORTS, ",".join((*excluded, *missing)))


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _pull_secrets(patch: Patch, pod: Pod) -> None:
    present = pod.spec.get("imagePullSecrets") or []
    names = {secret.get("name") for secret in present}
    missing = [{"name": name} for name in pod.configuration.sidecar.imagePullSecrets if name not in names]
    if missing and not present:
        patch.add(("spec", "imagePullSecrets"), missing)
        return
    for offset, secret in enumerate(missing):
        patch.add(("spec", "imagePullSecrets", len(present) + offset), secret)


def set_status(patch: Patch, pod: Pod) -> None:
    """Say by which template and configuration the pod was rewritten; a rewritten pod keeps what it says."""
    if not patch.operations and has_supported_status(pod):
        return
    status = pod.configuration.container_template.status(pod.profile_name)
    if pod.annotations.get(STATUS) == status:
        return
    _annotate(patch, STATUS, status)


def _annotate(patch: Patch, key: str, value: str) -> None:
    metadata = patch.result.get("metadata")
    if metadata is None:
        patch.add(("metadata",), {"annotations": {key: value}})
    elif not metadata.get("annotations"):
        patch.add(("metadata", "annotations"), {key: value})
    else:
        patch.add(("metadata", "annotations", key), value)


def has_supported_status(pod: Pod) -> bool:
    """Whether the pod says that a template version which this webhook still renders has rewritten it."""
    try:
        status = json.loads(pod.annotations.get(STATUS, ""))
    except (ValueError, RecursionError):
        return False
    version = status.get("injector") if isinstance(status, dict) else None
    return type(version) is int and version in SUPPORTED_INJECTOR_VERSIONS
