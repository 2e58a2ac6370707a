"""Look-ups in the live cluster: a binding's Pod, a namespace's Revisions. Each is one bounded call; no watch has them.

Whatever goes wrong, the answer is None, and the decision says that it could not look.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from server import logs
from server.kubernetes.errors import reason_of, status_of
from webhook.snapshot import Fetched, Lookup, PodLookup

if TYPE_CHECKING:  # the commands read files only, and need not load aiohttp for it
    from server.kubernetes.client import Client

LOOKUP_SECONDS: Final = 1.5
"""Bound of one look-up: below the server's own deadline, which is below every timeout of the registration."""

MAX_REVISIONS: Final = 500
_MAX_POD_BYTES: Final = 4 << 20
_MAX_REVISIONS_BYTES: Final = 16 << 20
# Every client that reaches the webhook's port can trigger look-ups; this bounds their cost to it and the API server.
_AT_ONCE: Final = 8
# reserve: no route leads there. Old Revisions lack the label and are routable.
_ROUTABLE: Final = "serving.knative.dev/routingState!=reserve"
# Names become path segments, and `..` would be another path (RFC 1123 subdomain).
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class Lookups:
    """Look-ups by one API client, each of them one call of at most `seconds`."""

    def __init__(self, client: Client, seconds: float = LOOKUP_SECONDS) -> None:
        self._client = client
        self._seconds = seconds
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def look_up(self, lookup: Lookup) -> Fetched:
        """As `Cluster.look_up`."""
        if isinstance(lookup, PodLookup):
            return Fetched(pod=await self.pod(lookup.namespace, lookup.name))
        return Fetched(revisions=await self.revisions(lookup.namespace))

    async def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The Pod; None on any failure, also when there is none."""
        found = await self._get(
            "pod", f"/api/v1/namespaces/{namespace}/pods/{name}", (), _MAX_POD_BYTES, namespace, name
        )
        if found is None:
            return None
        metadata = found.get("metadata")
        if not isinstance(metadata, dict) or (metadata.get("namespace"), metadata.get("name")) != (namespace, name):
            logs.warning("lookup_failed", lookup="pod", reason="another object")
            return None
        return found

    async def revisions(self, namespace: str) -> tuple[dict[str, Any], ...] | None:
        """The namespace's routable Revisions; None on any failure, also when they are more than MAX_REVISIONS.

        A part of them would read like all of them: no warning about the rest.
        """
        query = (("labelSelector", _ROUTABLE), ("limit", str(MAX_REVISIONS)))
        path = f"/apis/serving.knative.dev/v1/namespaces/{namespace}/revisions"
        found = await self._get("revisions", path, query, _MAX_REVISIONS_BYTES, namespace)
        if found is None:
            return None
        items, metadata = found.get("items"), found.get("metadata")
        if not isinstance(items, list) or not isinstance(metadata, dict) or metadata.get("continue"):
            logs.warning(
                "lookup_failed", lookup="revisions", reason="too many" if isinstance(items, list) else "no list"
            )
            return None
        return tuple(item for item in items if isinstance(item, dict))

    async def _get(
        self, lookup: str, path: str, query: Iterable[tuple[str, str]], max_bytes: int, *names: str
    ) -> dict[str, Any] | None:
        if not all(_NAME.fullmatch(name) for name in names):
            logs.warning("lookup_failed", lookup=lookup, reason="not a name")
            return None
        try:
            async with asyncio.timeout(self._seconds), self._slots:
                body = await self._client.read(path, query, seconds=self._seconds, max_bytes=max_bytes)
            found = msgspec.json.decode(body, type=dict)
        except Exception as error:  # whatever it is, the decision is made without the look-up
            logs.warning("lookup_failed", lookup=lookup, reason=reason_of(error), status=status_of(error))
        else:
            return found
        return None
