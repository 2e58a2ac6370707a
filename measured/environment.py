"""A container's environment and arguments as the kubelet and the runtime make them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from measured.image import Image
from measured.refusal import Refusals, is_object, member, objects
from plan.expansion import split_expansions

_DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What the host gives a pod in any case; a policy admits these by their form.
SERVICE_VARIABLES: Final = frozenset(
    {
        "KUBERNETES_SERVICE_HOST",
        "KUBERNETES_SERVICE_PORT",
        "KUBERNETES_SERVICE_PORT_HTTPS",
        "KUBERNETES_PORT",
        "KUBERNETES_PORT_443_TCP",
        "KUBERNETES_PORT_443_TCP_PROTO",
        "KUBERNETES_PORT_443_TCP_PORT",
        "KUBERNETES_PORT_443_TCP_ADDR",
    }
)
_HOST_FIELDS: Final = frozenset(
    {
        "metadata.name",
        "metadata.uid",
        "status.podIP",
        "status.podIPs",
        "status.hostIP",
        "status.hostIPs",
        "spec.nodeName",
    }
)


@dataclass(slots=True)
class Environment:
    """`exact` are the variables with one value, `of_host` those that the host fills in: name → field of the pod."""

    exact: dict[str, str] = field(default_factory=dict)
    of_host: dict[str, str] = field(default_factory=dict)


def environment(
    container: Mapping[str, Any], pod: Mapping[str, Any], image: Image, where: str, refusals: Refusals
) -> Environment:
    """The variables of one container. `where` is its path in the pod."""
    found = Environment()
    if container.get("envFrom"):
        refusals.add(
            f"{where}.envFrom", "its content is the host's; name each variable with its value, or fetch it as a secret"
        )
    for entry in objects(container.get("env")):
        name = str(entry.get("name", ""))
        at = f"{where}.env[{name}]"
        if name in found.exact or name in found.of_host:
            refusals.add(at, "is named twice; keep one")
        elif name == "HOSTNAME" or name in SERVICE_VARIABLES:
            refusals.add(at, "is set by the runtime; take another name")
        elif is_object(entry.get("valueFrom")):
            _take_reference(entry["valueFrom"], name, at, pod, found, refusals)
        else:
            found.exact[name] = expand(str(entry.get("value") or ""), found, at, refusals)
    _add_image_variables(image, found, where, refusals)
    return found


def expand(text: str, variables: Environment, where: str, refusals: Refusals) -> str:
    """Kubernetes' expansion of `$(NAME)`, of variables with one value only."""
    parts = []
    for part, name in split_expansions(text):
        if name is None:
            parts.append(part)
        elif name in variables.exact:
            parts.append(variables.exact[name])
        else:
            what = (
                "the host fills it in"
                if name in variables.of_host or name in SERVICE_VARIABLES
                else "it is not defined before"
            )
            refusals.add(where, f"$({name}) cannot be measured, because {what}; write $$({name}) for the text itself")
    return "".join(parts)


def arguments(
    container: Mapping[str, Any], image: Image, variables: Environment, where: str, refusals: Refusals
) -> list[str]:
    """The process's argument vector."""
    command = [expand(str(word), variables, f"{where}.command", refusals) for word in container.get("command") or []]
    args = [expand(str(word), variables, f"{where}.args", refusals) for word in container.get("args") or []]
    if command:
        return command + args
    return [*image.entrypoint, *(args or image.cmd)]


def _take_reference(
    source: Mapping[str, Any], name: str, at: str, pod: Mapping[str, Any], found: Environment, refusals: Refusals
) -> None:
    path = str(member(source, "fieldRef").get("fieldPath", ""))
    metadata, spec = member(pod, "metadata"), member(pod, "spec")
    known = {
        "metadata.namespace": metadata.get("namespace"),
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
    }
    if path in _HOST_FIELDS:
        found.of_host[name] = path
    elif isinstance(known.get(path), str):
        found.exact[name] = str(known[path])
    else:
        what = path or ", ".join(sorted(source)) or "valueFrom"
        refusals.add(at, f"{what} is the host's to choose; write the value, or fetch it as a secret")


def _add_image_variables(image: Image, found: Environment, where: str, refusals: Refusals) -> None:
    from_image: dict[str, str] = {}
    for entry in image.env:
        name, _, value = entry.partition("=")
        if name in from_image or name == "HOSTNAME" or name in SERVICE_VARIABLES:
            refusals.add(
                f"{where}.image", f"its configuration sets {name} twice, or one that the runtime sets; build it anew"
            )
        from_image[name] = value
    from_image.setdefault("PATH", _DEFAULT_PATH)
    for name, value in from_image.items():
        if name not in found.exact and name not in found.of_host:
            found.exact[name] = value
        elif name != "PATH":
            # containerd passes both on, and which one a program takes is its own affair.
            refusals.add(f"{where}.env[{name}]", "the image sets it as well; remove it here or from the image")
