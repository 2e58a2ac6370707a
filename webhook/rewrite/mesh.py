"""Step 5: ports that a mesh leaves alone, so that `morphisms-init` reaches the verifier and kubelets reach it.

docs/decisions/mesh.md says where `morphisms-init` stands among a mesh's containers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final
from urllib.parse import urlsplit

from plan.layout import HEALTH_PORT
from webhook.pod.pod import Pod
from webhook.rewrite.patch import Patch


@dataclass(frozen=True)
class Mesh:
    """A mesh by its containers: which redirects by iptables, which shows that a CNI plugin does, which is the proxy.

    `outbound` and `inbound` are the annotations that exclude ports. `by_cni`: its CNI plugin reads them when it sets up
    the pod; else its webhook does, which has run before ours.
    """

    name: str
    redirects: str
    validates: str
    proxies: frozenset[str]
    outbound: str
    inbound: str
    by_cni: bool = True

    @cached_property
    def containers(self) -> frozenset[str]:
        """The names of its containers."""
        return frozenset({self.redirects, self.validates, *self.proxies}) - {""}


MESHES: Final = (
    Mesh(
        "Istio",
        "istio-init",
        "istio-validation",
        frozenset({"istio-proxy"}),
        "traffic.sidecar.istio.io/excludeOutboundPorts",
        "traffic.sidecar.istio.io/excludeInboundPorts",
    ),
    Mesh(
        "Linkerd",
        "linkerd-init",
        "linkerd-network-validator",
        frozenset({"linkerd-proxy"}),
        "config.linkerd.io/skip-outbound-ports",
        "config.linkerd.io/skip-inbound-ports",
    ),
    Mesh(
        "Kuma",
        "kuma-init",
        "kuma-validation",
        frozenset({"kuma-sidecar"}),
        "traffic.kuma.io/exclude-outbound-ports",
        "traffic.kuma.io/exclude-inbound-ports",
    ),
    Mesh(
        "Consul",
        "",
        "consul-connect-inject-init",
        frozenset({"consul-dataplane", "consul-connect-envoy-sidecar"}),
        "consul.hashicorp.com/transparent-proxy-exclude-outbound-ports",
        "consul.hashicorp.com/transparent-proxy-exclude-inbound-ports",
        by_cni=False,
    ),
)

_CONTAINERS: Final = frozenset(name for mesh in MESHES for name in mesh.containers)
# The annotations that exclude ports, of every mesh.
EXCLUDED_PORTS: Final = frozenset(key for mesh in MESHES for key in (mesh.outbound, mesh.inbound))


def exclude_ports(patch: Patch, pod: Pod) -> None:
    """Add our ports to the annotations that a CNI plugin reads after admission."""
    for mesh, key, missing in _missing(pod):
        if mesh.by_cni:
            present = [part for part in pod.annotations.get(key, "").split(",") if part.strip()]
            patch.annotate((), key, ",".join((*present, *missing)))


def warnings_of(pod: Pod) -> Iterator[str]:
    """The annotations that the pod's author has to write, because the mesh has read them before ours is asked."""
    for mesh, key, missing in _missing(pod):
        if not mesh.by_cni or _has(pod, mesh.redirects):
            yield (
                f"[mesh] {mesh.name} redirects ports of morphisms-init; add {','.join(missing)} to annotation {key}"
                " of the template"
            )


def _missing(pod: Pod) -> Iterator[tuple[Mesh, str, list[str]]]:
    """(mesh, annotation, ports that it lacks) of each mesh in the pod."""
    names = {each.name for each in pod.containers if each.name in _CONTAINERS}
    if not names:
        return
    for mesh in MESHES:
        if names.isdisjoint(mesh.containers):
            continue
        for key, ports in ((mesh.outbound, _outbound_ports(mesh, pod)), (mesh.inbound, _inbound_ports(pod))):
            present = {part.strip() for part in pod.annotations.get(key, "").split(",")}
            missing = [port for port in ports if port not in present]
            if missing:
                yield mesh, key, missing


def _outbound_ports(mesh: Mesh, pod: Pod) -> list[str]:
    """Those of the verifier and of Vault, where traffic is redirected before any container and no proxy runs yet."""
    native = any(each.name in mesh.proxies and each.group == "initContainers" for each in pod.containers)
    if native or not _has(pod, mesh.validates) or _has(pod, mesh.redirects):
        return []
    template = pod.template
    return sorted({str(_port(url)) for url in (template.verifier.url, template.vault.url)})


def _inbound_ports(pod: Pod) -> list[str]:
    """That of the probes: a kubelet has no certificate of the mesh, and the mesh rewrites probes before ours exist."""
    return [str(HEALTH_PORT)] if pod.options.agent == "sidecar" else []


def _has(pod: Pod, name: str) -> bool:
    return bool(name) and any(each.name == name and each.group == "initContainers" for each in pod.containers)


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)
