"""Lists the objects of a cluster page by page, so that a cluster of any size takes the memory of one page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from server.kubernetes.errors import GONE, AnswerError, StatusError
from webhook.scanner.kinds import ScannedKind

if TYPE_CHECKING:  # whoever only evaluates need not load aiohttp for it
    from server.kubernetes.client import Client

PAGE_ITEMS: Final = 100
_MAX_PAGE_BYTES: Final = 128 << 20
_PAGE_SECONDS: Final = 30.0
# A list whose pages expire as often as this is not going to end.
_MOST_RESTARTS: Final = 3
# Often the larger half of an object, and nothing reads it.
_LEFT_OUT: Final = "managedFields"


class AbsentKindError(Exception):
    """The cluster has no such kind."""


class Lister(Protocol):
    """Lists objects; a test or a file may stand for the cluster."""

    def pages(self, kind: ScannedKind, namespace: str | None = None) -> AsyncIterator[list[dict[str, Any]]]:
        """Every object of the kind once, with `apiVersion` and `kind`.

        Raises AbsentKindError where the cluster lacks the kind, and else KubernetesError (StatusError 403: not
        allowed). What was yielded before an error stays true.
        """


class _Metadata(msgspec.Struct, rename={"continue_": "continue"}):
    continue_: str = ""


class _Page(msgspec.Struct):
    metadata: _Metadata
    items: list[msgspec.Raw] | None = None


_read_page: Final = msgspec.json.Decoder(_Page).decode
_read_item: Final = msgspec.json.Decoder(dict[str, Any]).decode


class ClusterLister:
    """Lists by a client of the API server."""

    def __init__(self, client: Client, page_items: int = PAGE_ITEMS) -> None:
        self._client = client
        self._page_items = page_items

    async def pages(self, kind: ScannedKind, namespace: str | None = None) -> AsyncIterator[list[dict[str, Any]]]:
        """As `Lister.pages`. Where the pages expire (`410 Gone`), it begins again and leaves out what it has given."""
        given: set[tuple[str, str]] = set()
        for restarts in range(_MOST_RESTARTS + 1):
            try:
                async for items in self._once(kind, namespace):
                    new = [item for item in items if _name(item) not in given]
                    given.update(map(_name, new))
                    yield new
            except StatusError as error:
                if error.status == 404:
                    raise AbsentKindError(kind.kind) from None
                if error.status != GONE or restarts == _MOST_RESTARTS:
                    raise
            else:
                return

    async def _once(self, kind: ScannedKind, namespace: str | None) -> AsyncIterator[list[dict[str, Any]]]:
        token = ""
        while True:
            query = [("limit", str(self._page_items)), *([("continue", token)] if token else [])]
            body = await self._client.read(
                kind.path(namespace), query, seconds=_PAGE_SECONDS, max_bytes=_MAX_PAGE_BYTES
            )
            try:
                page = _read_page(body)
                items = [_object(raw, kind) for raw in page.items or ()]
            except (ValueError, RecursionError):
                raise AnswerError("the answer is not a list of objects") from None
            del body
            yield items
            token = page.metadata.continue_
            if not token:
                return


def _object(raw: msgspec.Raw, kind: ScannedKind) -> dict[str, Any]:
    """The object with its kind, which the API server leaves out of a list's items."""
    item = _read_item(raw)
    metadata = item.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop(_LEFT_OUT, None)
    return {**item, "apiVersion": kind.api_version, "kind": kind.kind}


def _name(item: dict[str, Any]) -> tuple[str, str]:
    metadata = item.get("metadata")
    found = metadata if isinstance(metadata, dict) else {}
    return str(found.get("namespace", "")), str(found.get("name", ""))
