"""Who answers what a decision asks of the cluster: its view, and the two look-ups that no view holds.

Two decisions need more than small records: a binding its Pod, a tightened namespace its routable Revisions. The edge
fetches that with one bounded call before deciding; whatever goes wrong, the answer is None and the decision says so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import jiter
import msgspec
import yaml

from server import logs
from server.yaml.strict import ConfigurationError
from webhook.admission import validate_binding, validate_namespace
from webhook.configuration.model import Configuration
from webhook.pod.schema import MalformedError, check_metadata
from webhook.request import Request
from webhook.snapshot import Fetched, Snapshot, fetched_from_objects, snapshot_of_objects

if TYPE_CHECKING:  # the commands read files only, and need not load a Kubernetes client for it
    from webhook.cluster.kubernetes import ApiClient

LOOKUP_SECONDS: Final = 1.5
"""Bound of one look-up: below the server's own deadline, which is below every timeout of the registration."""

MAX_REVISIONS: Final = 500
_MAX_POD_BYTES: Final = 4 << 20
_MAX_REVISIONS_BYTES: Final = 16 << 20
# Anybody who reaches the webhook's port makes it look up: what that costs it and the API server stays bounded.
_AT_ONCE: Final = 8
# reserve: no route leads there. Absent on Revisions of old, which are routable.
_ROUTABLE: Final = "serving.knative.dev/routingState!=reserve"
# Names become path segments, and `..` would be another path (RFC 1123 subdomain).
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class Cluster(Protocol):
    """The cluster as decisions see it: live, or from a file."""

    def current(self) -> Snapshot:
        """The view now; cheap enough for every request."""

    async def fetch(self, request: Request, configuration: Configuration, snapshot: Snapshot) -> Snapshot:
        """`snapshot` with what this one decision needs besides; itself when that is nothing. Never raises."""

    def configured(self, configuration: Configuration) -> None:
        """Take a reloaded configuration."""

    def problem(self) -> str | None:
        """Why the view cannot be used yet; None once it can. A gate of readiness."""

    async def run(self) -> None:
        """Keep the view current until cancelled."""


def pod_to_fetch(request: Request, configuration: Configuration, snapshot: Snapshot) -> tuple[str, str] | None:
    """Namespace and name of the Pod that the decision on a binding will want; None for no look-up."""
    if request.path != "/validate/binding":
        return None
    try:
        check_metadata(request.object or {})
        mode = snapshot.mode_of(request.namespace)
        if not validate_binding.needs_pod(request, configuration, snapshot, mode):
            return None
    except MalformedError:  # `decide` refuses it and says why
        return None
    # The legacy `bindings` resource has the pod's name in the object only.
    return request.namespace, request.name or str(((request.object or {}).get("metadata") or {}).get("name") or "")


def revisions_to_fetch(request: Request) -> str | None:
    """The namespace whose Revisions the decision on its mode will want; None for no look-up."""
    try:
        wanted = request.path == "/validate/namespace" and validate_namespace.needs_revisions(request)
    except MalformedError:
        return None
    return request.name if wanted else None


class Lookups:
    """The look-ups against a live API server, each one call of at most `seconds`."""

    def __init__(self, api: ApiClient, seconds: float = LOOKUP_SECONDS) -> None:
        self._api = api
        self._seconds = seconds
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def fetch(self, request: Request, configuration: Configuration, snapshot: Snapshot) -> Snapshot:
        """As `Cluster.fetch`."""
        if pod := pod_to_fetch(request, configuration, snapshot):
            return snapshot.with_fetched(Fetched(pod=await self.pod(*pod)))
        if namespace := revisions_to_fetch(request):
            return snapshot.with_fetched(Fetched(revisions=await self.revisions(namespace)))
        return snapshot

    async def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The Pod; None on any failure, also when there is none."""
        found = await self._look_up(
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
        found = await self._look_up("revisions", path, query, _MAX_REVISIONS_BYTES, namespace)
        if found is None:
            return None
        items, metadata = found.get("items"), found.get("metadata")
        if not isinstance(items, list) or not isinstance(metadata, dict) or metadata.get("continue"):
            logs.warning(
                "lookup_failed", lookup="revisions", reason="too many" if isinstance(items, list) else "no list"
            )
            return None
        return tuple(item for item in items if isinstance(item, dict))

    async def _look_up(
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
        except Exception as error:  # whatever it was, the decision goes on without
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


class SnapshotFileError(ConfigurationError):
    """A snapshot file that cannot be used; the message names file and place, never a value."""

    def __init__(self, problem: str) -> None:
        super().__init__([problem])


MAX_JSON_BYTES: Final = 64 << 20
MAX_YAML_BYTES: Final = 16 << 20
_MAX_DEPTH: Final = 100

# libyaml's loader where the wheel has it: ten times faster, same result.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Kubernetes' reading of YAML: a timestamp is text."""

    yaml_implicit_resolvers: Final = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
    }


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a file: JSON or YAML, documents of `kind: List` or of one object each. Raises SnapshotFileError.

    At most MAX_JSON_BYTES as JSON, MAX_YAML_BYTES as YAML, which takes fifty times as long and as much memory.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise SnapshotFileError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_JSON_BYTES:
        raise SnapshotFileError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MiB")
    documents = _json(content)
    if documents is None:
        if len(content) > MAX_YAML_BYTES:
            raise SnapshotFileError(f"{path}: larger than {MAX_YAML_BYTES >> 20} MiB as YAML; write it with -o json")
        documents = _yaml(content, path)
    objects: list[dict[str, Any]] = []
    for number, document in enumerate(documents, 1):
        if document is not None:
            objects += _objects(document, f"{path}: document {number}")
    if not objects:
        raise SnapshotFileError(f"{path}: holds no objects")
    return objects


def _json(content: bytes) -> list[Any] | None:
    if not content.lstrip().startswith(b"{"):
        return None
    try:
        return [jiter.from_json(content, allow_inf_nan=False)]
    except ValueError:  # several documents, YAML in braces, or neither: the YAML reader says where
        return None


def _yaml(content: bytes, path: Path) -> list[Any]:
    try:
        depth = 0
        for event in yaml.parse(content, Loader=_Loader):
            # What expands without bound is refused before anything is built, and Kubernetes writes no aliases.
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH or isinstance(event, yaml.AliasEvent):
                problem = "nested too deeply" if depth > _MAX_DEPTH else "aliases are not supported"
                raise SnapshotFileError(f"{path}{_place(event.start_mark)}: {problem}")
        return list(yaml.load_all(content, Loader=_Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        raise SnapshotFileError(f"{path}{_place(mark)}: neither JSON nor YAML ({type(error).__name__})") from None
    except ValueError:  # `!!int text`; its message quotes the text
        raise SnapshotFileError(f"{path}: a value does not fit its YAML tag") from None


def _place(mark: Any) -> str:
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


def _objects(document: Any, where: str) -> Iterable[dict[str, Any]]:
    kind = document.get("kind") if isinstance(document, Mapping) else None
    if not isinstance(kind, str):
        raise SnapshotFileError(f"{where}: not an object with a kind; get one with: kubectl get -o json ...")
    if not kind.endswith("List"):
        return [dict(document)]
    items = document.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise SnapshotFileError(f"{where}: items is not a list of objects")
    # The API server's own NodeList leaves the kind of its items out.
    default = {"kind": kind.removesuffix("List")} if kind != "List" else {}
    return [{**default, **item} for item in items]


class FileCluster:
    """The cluster that a file describes: it does not age, and what it does not list has no mode."""

    def __init__(self, objects: Iterable[Mapping[str, Any]]) -> None:
        objects = list(objects)
        self._snapshot = snapshot_of_objects(objects)
        self._found = [item for item in objects if item.get("kind") in ("Pod", "Revision")]

    @classmethod
    def read(cls, path: Path) -> FileCluster:
        """Of a file as `read_objects` takes it. Raises SnapshotFileError."""
        return cls(read_objects(path))

    def current(self) -> Snapshot:
        """The file's view; its nodes have all their labels, whatever the configuration."""
        return self._snapshot

    def configured(self, configuration: Configuration) -> None:
        """Nothing: see `current`."""

    def problem(self) -> str | None:
        """None: what is read can be used."""
        return None

    async def run(self) -> None:
        """Nothing, until cancelled."""
        await asyncio.get_running_loop().create_future()

    async def fetch(self, request: Request, configuration: Configuration, snapshot: Snapshot) -> Snapshot:
        """As `Cluster.fetch`."""
        if pod := pod_to_fetch(request, configuration, snapshot):
            return snapshot.with_fetched(fetched_from_objects(self._found, *pod))
        if namespace := revisions_to_fetch(request):
            return snapshot.with_fetched(fetched_from_objects(self._found, namespace, ""))
        return snapshot
