"""What decides about every pod of a cluster: namespaces, nodes, RuntimeClasses, templates, and the configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from cli.support.manifests import load_configuration
from measured.refusal import member
from server.files import UnusableInputError
from server.kubernetes.client import Client
from server.kubernetes.errors import StatusError
from server.kubernetes.untyped import is_name
from server.yaml.strict import ConfigurationError, parse
from webhook.configuration.model import Configuration
from webhook.configuration.templates_map import TemplatesMap, read_map
from webhook.modes import Mode
from webhook.scanner.kinds import ScannedKind
from webhook.scanner.lister import AbsentKindError, ClusterLister
from webhook.snapshot import Snapshot, snapshot_of_objects
from webhook.wellknown import SYSTEM_NAMESPACE, TEMPLATES_CONFIG_MAP

CONFIGURATION: Final = "morphisms-webhook"
_KEY: Final = "configuration.yaml"

NAMESPACES: Final = ScannedKind("v1", "Namespace", "namespaces")
NODES: Final = ScannedKind("v1", "Node", "nodes")
RUNTIME_CLASSES: Final = ScannedKind("node.k8s.io/v1", "RuntimeClass", "runtimeclasses")


@dataclass(frozen=True, slots=True)
class LiveCluster:
    """What was read. `snapshot` is None where nodes or RuntimeClasses could not be: rules that need them are unknown.

    `modes` of the namespaces that were read; `objects`, by kind, in whole; `not_read` says what could not be, and why;
    `templates` is None where the ConfigMap could not be read.
    """

    configuration: Configuration
    snapshot: Snapshot | None
    modes: Mapping[str, Mode]
    objects: Mapping[str, tuple[dict[str, Any], ...]] = field(default_factory=dict)
    not_read: tuple[str, ...] = ()
    templates: TemplatesMap | None = None


async def read_cluster(
    client: Client, config: str | None, namespace: str | None, now: datetime, *, policy: str | None = None
) -> LiveCluster:
    """Read the cluster; `namespace` alone, where it is given. `policy` replaces the configuration's.

    Raises UnusableInputError and the client's errors.
    """
    configuration = await _configuration(client) if config is None else load_configuration(config)
    if policy is not None:
        configuration = configuration.model_copy(update={"policy": policy})
    lister = ClusterLister(client)
    objects: dict[str, tuple[dict[str, Any], ...]] = {}
    not_read: list[str] = []
    for kind in (NODES, RUNTIME_CLASSES):
        try:
            objects[kind.kind] = tuple([item async for item in every(lister, kind)])
        except StatusError as error:
            not_read.append(f"{kind.resource}: the API server answers {error.status} to a list")
    objects[NAMESPACES.kind] = await _namespaces(client, lister, namespace)
    templates = None
    try:
        found = await client.find(f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/configmaps/{TEMPLATES_CONFIG_MAP}")
        templates = read_map(member(found or {}, "data"))
    except StatusError as error:
        not_read.append(f"ConfigMap {SYSTEM_NAMESPACE}/{TEMPLATES_CONFIG_MAP}: the API server answers {error.status}")
    whole = snapshot_of_objects([item for items in objects.values() for item in items])
    known = {NODES.kind, RUNTIME_CLASSES.kind} <= objects.keys()
    accepted = None if templates is None or not templates.templates.by_digest else templates.templates
    snapshot = replace(whole, now=now, templates=accepted) if known else None
    return LiveCluster(configuration, snapshot, whole.namespaces, objects, tuple(not_read), templates)


async def every(
    lister: ClusterLister, kind: ScannedKind, namespace: str | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Each object of the kind; none where the cluster lacks an optional kind."""
    try:
        async for page in lister.pages(kind, namespace):
            for item in page:
                yield item
    except AbsentKindError:
        if not kind.is_optional:
            raise StatusError(404) from None


async def _namespaces(client: Client, lister: ClusterLister, namespace: str | None) -> tuple[dict[str, Any], ...]:
    if namespace is None:
        return tuple([item async for item in every(lister, NAMESPACES)])
    found = await client.find(f"/api/v1/namespaces/{namespace}") if is_name(namespace) else None
    if found is None:
        raise UnusableInputError(f"namespace {namespace} does not exist")
    return ({**found, "apiVersion": "v1", "kind": "Namespace"},)


async def _configuration(client: Client) -> Configuration:
    try:
        found = await client.find(f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/configmaps/{CONFIGURATION}")
    except StatusError as error:
        raise UnusableInputError(
            f"ConfigMap {SYSTEM_NAMESPACE}/{CONFIGURATION} cannot be read ({error.status}); give the file with --config"
        ) from None
    text = member(found or {}, "data").get(_KEY)
    if not isinstance(text, str):
        raise UnusableInputError(
            f"there is no ConfigMap {SYSTEM_NAMESPACE}/{CONFIGURATION} with {_KEY}; install Morphisms, or give --config"
            " FILE"
        )
    try:
        return parse(text.encode(), Configuration, name=f"ConfigMap {SYSTEM_NAMESPACE}/{CONFIGURATION}").value
    except ConfigurationError as error:
        raise UnusableInputError("; ".join(error.problems)) from None
