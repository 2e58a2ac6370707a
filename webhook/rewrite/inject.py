"""Step 4: the injected container `morphisms-init`, and its place among the init containers."""

from __future__ import annotations

from typing import Any

from measured.users import users_of_data
from plan import layout
from plan.document import PlanError
from webhook.configuration.container_template import security_context
from webhook.configuration.profiles import Profile
from webhook.pod.plan_cache import plan_text
from webhook.pod.pod import Pod
from webhook.quantity import same_amount
from webhook.rewrite.hook import starts_by_hook
from webhook.rewrite.patch import Patch
from webhook.rewrite.plan import make_plan
from webhook.rewrite.pod_resources import has_pod_resources, raise_pod_resources
from webhook.wellknown import (
    MESH_INIT_CONTAINERS,
    MESH_PROXIES,
    SERVICE_ACCOUNT_MOUNT,
)

# What the ServiceAccount admission plugin calls its projected volumes (BoundServiceAccountTokenVolume).
_ACCOUNT_VOLUME = "kube-api-access-"
_AMOUNTS = frozenset({"limits", "requests"})
_PLAIN_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage"})


def inject_sidecar(patch: Patch, pod: Pod, profile: Profile) -> None:
    """Add `morphisms-init` in its place, or replace one that differs from the template."""
    try:
        wanted = sidecar_container(pod, profile)
    except PlanError:
        # The plan is too large. The pod stays without the container, and the rule secrets/init-container refuses it.
        return
    present = pod.spec.get("initContainers") or []
    names = [each.get("name") for each in present]
    if names.count(layout.CONTAINER) > 1:
        return
    place = _place(pod, [each for each in present if each.get("name") != layout.CONTAINER])
    if layout.CONTAINER in names:
        here = names.index(layout.CONTAINER)
        if here == place and is_intact(present[here], wanted):
            raise_pod_resources(patch, pod, wanted)
            return
        patch.remove(("spec", "initContainers", here))
        present = [each for each in present if each.get("name") != layout.CONTAINER]
        patch.add(("spec", "initContainers", place), wanted)
    elif present:
        patch.add(("spec", "initContainers", place), wanted)
    else:
        patch.add(("spec", "initContainers"), [wanted])
    raise_pod_resources(patch, pod, wanted)
    _add_pull_secrets(patch, pod)


def _place(pod: Pod, others: list[dict[str, Any]]) -> int:
    """After a native mesh proxy, which carries the network of the containers that start later; before all others.

    Attestation comes before the application, so only a mesh's own containers may precede such a proxy. A classic mesh
    redirects the pod's traffic in an init container and starts its proxy only after all of them. With such a mesh
    `morphisms-init` comes first, while the network is still the pod's own.
    """
    place = 0
    if not others:
        return place
    for index, container in enumerate(others):
        if is_native_proxy(container):
            place = index + 1
        elif container.get("name") not in MESH_INIT_CONTAINERS:
            break
    consumers = {each.name for each in pod.consumers if each.group == "initContainers"}
    for index, container in enumerate(others[:place]):
        if container.get("name") in consumers:
            return index
    return place


def is_native_proxy(container: dict[str, Any]) -> bool:
    """Whether an init container is a mesh's proxy that keeps running."""
    return container.get("name") in MESH_PROXIES and container.get("restartPolicy") == "Always"


def sidecar_container(pod: Pod, profile: Profile) -> dict[str, Any]:
    """The container that the template and the pod's plan make. Raises PlanError."""
    template = pod.template
    user = pod.file_owner or template.sidecar.runAsUser
    container: dict[str, Any] = {
        **template.container,
        "env": [{"name": layout.PLAN_VARIABLE, "value": plan_text(make_plan(pod, profile))}],
        "resources": template.guaranteed_resources if _is_guaranteed(pod) else template.resources,
        "securityContext": _security_context(pod, user),
    }
    if pod.options.agent == "sidecar":
        container["restartPolicy"] = "Always"
        container.update(template.hooked if starts_by_hook(pod) else template.probed)
    return container


def _security_context(pod: Pod, user: int) -> dict[str, Any]:
    """A measured pod names the group too, because the guest's runtime cannot look it up in the image."""
    if pod.measured is None:
        return security_context(user)
    group = users_of_data(pod.measured.data).get(layout.CONTAINER, {}).get("runAsGroup", user)
    return {**security_context(user), "runAsGroup": group}


def is_intact(container: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether the container is the wanted one, except for changes that the API server's own plugins make.

    They mount the service account, always pull (AlwaysPullImages), add resources that the template does not name
    (LimitRanger), and store quantities in their canonical form. None of these changes what runs, or its input.
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
    """Whether the ServiceAccount plugin added the mount, of its own volume."""
    return mount == {
        "name": mount.get("name"),
        "mountPath": SERVICE_ACCOUNT_MOUNT,
        "readOnly": True,
    } and str(mount.get("name")).startswith(_ACCOUNT_VOLUME)


def _grants(resources: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether every amount that the template names is granted as named, and nothing that brings a device.

    `claims` (DRA) and extended resources attach devices, through CDI, to the container that attests.
    """
    if not resources.keys() <= _AMOUNTS or any(not _is_plain(resources.get(kind)) for kind in _AMOUNTS):
        return False
    return all(
        same_amount((resources.get(kind) or {}).get(name), amount)
        for kind, amounts in wanted.items()
        for name, amount in amounts.items()
    )


def _is_plain(amounts: Any) -> bool:
    return (amounts or {}).keys() <= _PLAIN_RESOURCES


def _is_guaranteed(pod: Pod) -> bool:
    """Whether the pod's QoS class is Guaranteed by its containers; then ours needs requests equal to its limits."""
    if has_pod_resources(pod.spec):
        return False
    for container in pod.containers:
        if container is not pod.injected and not _has_equal_resources(container.object):
            return False
    return True


def _has_equal_resources(container: dict[str, Any]) -> bool:
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name in ("cpu", "memory"):
        limit = limits.get(name)
        if not limit or not same_amount(requests.get(name, limit), limit):
            return False
    return True


def _add_pull_secrets(patch: Patch, pod: Pod) -> None:
    wanted = pod.template.sidecar.imagePullSecrets
    if not wanted:
        return
    present = pod.spec.get("imagePullSecrets") or []
    names = {secret.get("name") for secret in present}
    missing = [{"name": name} for name in wanted if name not in names]
    patch.extend(("spec", "imagePullSecrets"), present, missing)
