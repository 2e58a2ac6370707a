"""Look-ups in the live cluster: a binding's Pod, a namespace's Revisions. Each is one bounded call; no watch has them.

Whatever goes wrong, the answer is None, and the decision says that it could not look.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from server import logs
from webhook.snapshot import Fetched, Lookup, PodLookup

if TYPE_CHECKING:  # the commands read files only, and need not load a Kubernetes client for it
    from webhook.cluster.kubernetes import ApiClient

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

    def __init__(self, api: ApiClient, seconds: float = LOOKUP_SECONDS) -> None:
        self._api = api
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
                body = await get(self._api, path, query, seconds=self._seconds, max_bytes=max_bytes)
            found = msgspec.json.decode(body, type=dict)
        except StatusError as error:
            logs.warning("lookup_failed", lookup=lookup, reason="status", status=error.status)
        except Exception as error:  # whatever failed, the decision is made without the object
            logs.warning("lookup_failed", lookup=lookup, reason=type(error).__name__)
        else:
            return found
        return None


class StatusError(Exception):
    """The API server answered with something else than 200. `retry_after_seconds` is 0 when it did not say."""

    def __init__(self, status: int, retry_after_seconds: float = 0.0) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status
        self.retry_after_seconds = retry_after_seconds

    @classmethod
    def of(cls, response: Any) -> StatusError:
        """The error that an aiohttp response is."""
        seconds = 0.0
        with suppress(ValueError):  # a date instead of seconds: the back-off will do
            seconds = max(0.0, float(response.headers.get("Retry-After", "0")))
        return cls(response.status, seconds)


async def get(api: ApiClient, path: str, query: Iterable[tuple[str, str]], *, seconds: float, max_bytes: int) -> bytes:
    """The body of one GET, read whole within `seconds`.

    Raw bytes, because the client's model objects take many times the memory of what we keep. Raises StatusError,
    aiohttp.ClientError, OSError, TimeoutError, or ValueError for more than `max_bytes`.
    """
    response = await send(api, path, query, seconds)
    try:
        if response.status != 200:
            raise StatusError.of(response)
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > max_bytes:
                raise ValueError("larger than expected")
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        response.close()


async def send(api: ApiClient, path: str, query: Iterable[tuple[str, str]], within: Any) -> Any:
    """The aiohttp response to one GET, its body unread. `within`: seconds in all, or an aiohttp.ClientTimeout."""
    return await api.call_api(
        path,
        "GET",
        query_params=list(query),
        header_params={"Accept": "application/json"},
        auth_settings=["BearerToken"],
        _preload_content=False,
        _request_timeout=within,
    )
