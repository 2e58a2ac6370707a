"""Reads the few objects of the cluster that findings about it need, by name or as one list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from server.kubernetes.errors import KubernetesError
from server.kubernetes.untyped import mappings
from webhook.wellknown import KMS_NAMESPACE

if TYPE_CHECKING:
    from server.kubernetes.client import Client

Object = Mapping[str, Any]

GUARDS: Final = ("mode-ratchet", "configuration-guard", "configmap-guard", "injection-present")
CLUSTER_GUARDS: Final = ("runtime-class-guard", "knative-labels", "verifier-token")
KNATIVE_NAMESPACE: Final = "knative-serving"
_REGISTRATION: Final = "/apis/admissionregistration.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What was read; None, or no entry, for what is not there. `unread`: what could not be read.

    `registrations` by kind in lower case, `policies` and `bindings` by the guard's name, `network` the data of
    Knative's config-network, `system_pods` those of Knative's namespace, `api_servers` the pods of API servers, where
    they are pods, `key_server` what makes pods in the key server's namespace.
    """

    registrations: Mapping[str, Object] = field(default_factory=dict)
    policies: Mapping[str, Object] = field(default_factory=dict)
    bindings: Mapping[str, Object] = field(default_factory=dict)
    network: Object | None = None
    system_pods: tuple[Object, ...] = ()
    api_servers: tuple[Object, ...] = ()
    key_server: tuple[Object, ...] = ()
    unread: tuple[str, ...] = ()


async def read_facts(client: Client) -> ClusterFacts:
    """Read them; what cannot be read is named, and keeps nothing else from being read."""
    unread: list[str] = []

    async def one(what: str, path: str) -> Object | None:
        try:
            return await client.find(path)
        except KubernetesError:
            unread.append(what)
            return None

    async def several(what: str, path: str, *query: tuple[str, str]) -> tuple[Object, ...]:
        try:
            items = (await client.get(path, (*query, ("limit", "500")))).get("items")
        except KubernetesError:
            unread.append(what)
            return ()
        return tuple(mappings(items))

    async def by_name(what: str, resource: str, names: tuple[str, ...], suffix: str) -> dict[str, Object]:
        found = {name: await one(what, f"{_REGISTRATION}/{resource}/{name}{suffix}") for name in names}
        return {name: each for name, each in found.items() if each is not None}

    guards = (*GUARDS, *CLUSTER_GUARDS)
    kinds = {kind: f"{kind}webhookconfigurations" for kind in ("mutating", "validating")}
    registrations = {
        kind: await one("registration", f"{_REGISTRATION}/{path}/morphisms") for kind, path in kinds.items()
    }
    config = await one("data path", f"/api/v1/namespaces/{KNATIVE_NAMESPACE}/configmaps/config-network")
    data = (config or {}).get("data")
    return ClusterFacts(
        {kind: each for kind, each in registrations.items() if each is not None},
        await by_name("guards", "validatingadmissionpolicies", guards, ".morphisms.dev"),
        await by_name("guards", "validatingadmissionpolicybindings", guards, ".morphisms.dev"),
        data if isinstance(data, Mapping) else None if config is None else {},
        await several("system pods", f"/api/v1/namespaces/{KNATIVE_NAMESPACE}/pods"),
        await several(
            "API servers", "/api/v1/namespaces/kube-system/pods", ("labelSelector", "component=kube-apiserver")
        ),
        (
            *await several("key server", f"/apis/apps/v1/namespaces/{KMS_NAMESPACE}/deployments"),
            *await several("key server", f"/apis/apps/v1/namespaces/{KMS_NAMESPACE}/statefulsets"),
        ),
        tuple(dict.fromkeys(unread)),
    )
