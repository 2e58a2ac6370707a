"""Single Kubernetes objects by name: read, followed, and written with a guard. Raw JSON, exact verbs."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import ClientTimeout

from certs.clock import Clock
from certs.log import Log

if TYPE_CHECKING:  # whoever brings the client decides how much of its package is loaded
    from kubernetes_asyncio.client import ApiClient

Object = Mapping[str, Any]

_MAX_BYTES: Final = 8 << 20
_SECONDS: Final = 10.0
# A watch ends by itself after so long; the list that follows heals whatever was missed.
_WATCH_SECONDS: Final = 60
_BACKOFF: Final = (0.5, 15.0)

MERGE: Final = "application/merge-patch+json"
PATCH: Final = "application/json-patch+json"
APPLY: Final = "application/apply-patch+yaml"


class AnswerError(Exception):
    """The API server refused. `status` is its HTTP status, `conflict` whether somebody else was faster."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status

    @property
    def conflict(self) -> bool:
        return self.status == 409


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object lives: its collection's path and its name."""

    collection: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.collection}/{self.name}"

    @property
    def kind(self) -> str:
        """The resource's name, such as `secrets`."""
        return self.collection.rpartition("/")[2]


class Objects:
    """The API server, one object at a time. Every method raises AnswerError, aiohttp.ClientError or OSError."""

    def __init__(self, api: ApiClient, clock: Clock) -> None:
        self._api = api
        self._clock = clock

    async def get(self, place: Place) -> Object | None:
        """The object; None when there is none."""
        try:
            return await self._answer("GET", place.path)
        except AnswerError as error:
            if error.status == 404:
                return None
            raise

    async def put(self, place: Place, body: Object) -> Object:
        """Replace it, guarded by the resourceVersion in `body`; without one, create it where the kind allows that."""
        return await self._answer("PUT", place.path, body)

    async def patch(self, place: Place, kind: str, body: object) -> Object:
        """Patch it; `kind` is MERGE or PATCH."""
        return await self._answer("PATCH", place.path, body, content_type=kind)

    async def ensure(self, place: Place, body: Object, manager: str) -> Object:
        """Create it when it is absent, and change nothing when it is there.

        By server-side apply of nothing but its name, since a name that stands in the path is one that RBAC can limit
        the verb `create` to.
        """
        query = (("fieldManager", manager),)
        return await self._answer("PATCH", place.path, body, query=query, content_type=APPLY)

    async def list(self, place: Place) -> tuple[Object | None, str]:
        """The object, None when there is none, and the resourceVersion to watch from."""
        page = await self._answer("GET", place.collection, query=(_only(place),))
        items = page.get("items") or []
        version = (page.get("metadata") or {}).get("resourceVersion") or ""
        return (items[0] if items else None), str(version)

    async def watch(self, place: Place, version: str, seen: Callable[[Object | None], None]) -> None:
        """Call `seen` with each newer state of it, None for deleted, until the server ends the watch."""
        query = (
            _only(place),
            ("watch", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", str(_WATCH_SECONDS)),
        )
        timeout = ClientTimeout(total=_WATCH_SECONDS + _SECONDS, sock_connect=_SECONDS)
        response = await self._send("GET", place.collection, query, None, "", timeout)
        try:
            if response.status != 200:
                raise AnswerError(response.status)
            while (line := await response.content.readline()).endswith(b"\n"):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                if event["type"] != "BOOKMARK":
                    seen(None if event["type"] == "DELETED" else event["object"])
        finally:
            response.close()

    async def _answer(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: tuple[tuple[str, str], ...] = (),
        content_type: str = "application/json",
    ) -> Object:
        timeout = ClientTimeout(total=_SECONDS)
        response = await self._send(method, path, query, body, content_type, timeout)
        try:
            content = await response.content.read(_MAX_BYTES)
            while not response.content.at_eof() and len(content) < _MAX_BYTES:
                content += await response.content.read(_MAX_BYTES)
        finally:
            response.close()
        if response.status not in (200, 201):
            raise AnswerError(response.status)
        answer = json.loads(content)
        if not isinstance(answer, dict):
            raise AnswerError(response.status)
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        query: tuple[tuple[str, str], ...],
        body: object,
        content_type: str,
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's, which bounds each part
    ) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        response = await self._api.call_api(
            path,
            method,
            query_params=list(query),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=timeout,
        )
        self._clock.heard(response.headers.get("Date"))
        return response


class Followed:
    """One object, kept current by `run`. `changed` is called after each change."""

    def __init__(self, objects: Objects, place: Place, changed: Callable[[], None], log: Log) -> None:
        self.place = place
        self.known = False
        self.value: Object | None = None
        self._objects = objects
        self._changed = changed
        self._log = log

    def accept(self, value: Object | None) -> None:
        """Take a newer state of it, such as the answer to a write."""
        if self.known and value == self.value:
            return
        self.known, self.value = True, value
        self._changed()

    async def run(self) -> None:
        """List and watch until cancelled."""
        failures = 0
        while True:
            try:
                value, version = await self._objects.list(self.place)
                self.accept(value)
                failures = 0
                await self._objects.watch(self.place, version, self.accept)
            except Exception as error:  # nothing that a server sends may end it
                failures += 1
                first, most = _BACKOFF
                delay = random.uniform(0.5, 1) * min(most, first * 2 ** min(failures, 8))  # noqa: S311 - spreads load
                self._log.warning(
                    "certificates_watch_interrupted",
                    object=self.place.name,
                    reason=type(error).__name__,
                    status=error.status if isinstance(error, AnswerError) else None,
                    retry_seconds=round(delay, 3),
                )
                await asyncio.sleep(delay)


def version_of(value: Object | None) -> str:
    """Its resourceVersion; empty when there is none."""
    metadata = value.get("metadata") if value is not None else None
    version = metadata.get("resourceVersion") if isinstance(metadata, Mapping) else None
    return version if isinstance(version, str) else ""


def _only(place: Place) -> tuple[str, str]:
    return ("fieldSelector", f"metadata.name={place.name}")
