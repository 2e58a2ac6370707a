"""Look-ups in the live cluster: a binding's Pod, a namespace's workloads. Bounded calls; no watch has these objects.

Whatever goes wrong, the answer is None, and the decision says that it could not look.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from server import logs
from server.kubernetes.errors import reason_of, status_of
from webhook.snapshot import LISTED_KINDS, Fetched, Listing, Lookup, PodLookup

if TYPE_CHECKING:  # the commands read files only, and need not load aiohttp for it
    from server.kubernetes.client import Client

LOOKUP_SECONDS = 1.5
"""Bound of one look-up, of all the kinds of a namespace together: below the server's own deadline, which is below every
timeout of the registration."""

MAX_OBJECTS: Final = 500
"""Of each kind."""

_MAX_POD_BYTES: Final = 4 << 20
_MAX_LIST_BYTES: Final = 16 << 20
# Every client that reaches the webhook's port can trigger look-ups; this bounds their cost to it and the API server.
_AT_ONCE: Final = 8
# Lists are large; this bounds the memory that they take until they are decoded.
_LISTS_AT_ONCE: Final = 3
# reserve: no route leads there. Old Revisions lack the label and are routable.
_ROUTABLE: Final = ("labelSelector", "serving.knative.dev/routingState!=reserve")
# Names become path segments, and `..` would be another path (RFC 1123 subdomain).
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


T = TypeVar("T")


class _Metadata(msgspec.Struct):
    """What decisions read of metadata; `managedFields`, often the larger half of an object, is left out."""

    name: str = ""
    namespace: str = ""
    labels: Any = None
    annotations: Any = None
    owners: Any = msgspec.field(default=None, name="ownerReferences")


class _Status(msgspec.Struct):
    phase: Any = None
    conditions: Any = None


class _Item(msgspec.Struct):
    metadata: _Metadata
    spec: Any = None
    status: _Status | None = None


class _ListMetadata(msgspec.Struct):
    next_page: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMetadata
    items: list[_Item]


class Lookups:
    """Look-ups by one API client, each of them at most `seconds` long (LOOKUP_SECONDS by default)."""

    def __init__(self, client: Client, seconds: float | None = None) -> None:
        self._client = client
        self._seconds = LOOKUP_SECONDS if seconds is None else seconds
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._list_slots = asyncio.Semaphore(_LISTS_AT_ONCE)

    async def look_up(self, lookup: Lookup) -> Fetched:
        """As `Cluster.look_up`."""
        if isinstance(lookup, PodLookup):
            return Fetched(pod=await self.pod(lookup.namespace, lookup.name))
        return Fetched(workloads=await self.workloads(lookup.namespace))

    async def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The Pod; None on any failure, also when there is none."""
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        body = await self._read("pod", path, (), _MAX_POD_BYTES, self._slots, namespace, name)
        found = _decoded("pod", body, dict[str, Any])
        if found is None:
            return None
        metadata = found.get("metadata")
        if not isinstance(metadata, dict) or (metadata.get("namespace"), metadata.get("name")) != (namespace, name):
            logs.warning("lookup_failed", lookup="pod", reason="another object")
            return None
        return found

    async def workloads(self, namespace: str) -> tuple[Listing, ...]:
        """A list per kind, of at most MAX_OBJECTS; its objects are None on any failure, each kind for itself."""
        return tuple(await asyncio.gather(*(self._list(kind, namespace) for kind in LISTED_KINDS)))

    async def _list(self, kind: str, namespace: str) -> Listing:
        version, resource = LISTED_KINDS[kind]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        path = f"{root}/namespaces/{namespace}/{resource}"
        limit = ("limit", str(MAX_OBJECTS))
        query = (_ROUTABLE, limit) if kind == "Revision" else (limit,)
        body = await self._read(resource, path, query, _MAX_LIST_BYTES, self._list_slots, namespace)
        found = _decoded(resource, body, _List)
        if found is None:
            return Listing(kind, None)
        items = tuple(_object(item, kind, version) for item in found.items)
        return Listing(kind, items, is_whole=not found.metadata.next_page)

    async def _read(
        self,
        lookup: str,
        path: str,
        query: Iterable[tuple[str, str]],
        max_bytes: int,
        slots: asyncio.Semaphore,
        *names: str,
    ) -> bytes | None:
        if not all(_NAME.fullmatch(name) for name in names):
            logs.warning("lookup_failed", lookup=lookup, reason="not a name")
            return None
        try:
            async with asyncio.timeout(self._seconds), slots:
                return await self._client.read(path, query, seconds=self._seconds, max_bytes=max_bytes)
        except Exception as error:  # whatever it is, the decision is made without the look-up
            logs.warning("lookup_failed", lookup=lookup, reason=reason_of(error), status=status_of(error))
        return None


def _decoded(lookup: str, body: bytes | None, form: type[T]) -> T | None:
    if body is None:
        return None
    try:
        return msgspec.json.decode(body, type=form)
    except (ValueError, RecursionError) as error:
        logs.warning("lookup_failed", lookup=lookup, reason=reason_of(error))
        return None


def _object(item: _Item, kind: str, version: str) -> dict[str, Any]:
    """The object as decisions read it; the API server leaves the kind of a list's items out."""
    metadata = {name: value for name, value in msgspec.to_builtins(item.metadata).items() if value}
    status = {} if item.status is None else msgspec.structs.asdict(item.status)
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": item.spec, "status": status}
