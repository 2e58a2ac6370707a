"""An API server's list and watch protocol on loopback, and the ways in which it goes wrong."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

NAMESPACES, NODES = "/api/v1/namespaces", "/api/v1/nodes"
CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
_KINDS = {NAMESPACES: "NamespaceList", NODES: "NodeList", CLASSES: "RuntimeClassList"}

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Stream = asyncio.Queue[Callable[[web.StreamResponse], Awaitable[bool]]]


def status(code: int, retry_after: str | None = None) -> Fault:
    """Answer with this status, as the API server words it."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        headers = {"Retry-After": retry_after} if retry_after else {}
        return web.json_response({"kind": "Status", "code": code}, status=code, headers=headers)

    return answer


async def hang(_request: web.Request) -> web.StreamResponse:
    """Take the request and say nothing, until the client goes away."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def refuse(request: web.Request) -> web.StreamResponse:
    """Cut the connection instead of answering."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def body(content: bytes) -> Fault:
    """Answer 200 with this."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=content, content_type="application/json")

    return answer


class ApiServer:
    """Objects with resourceVersions, a history of their changes, and open watches.

    `faults[path]` are answers to the next requests of that path, before the true ones; `requests` is what was asked.
    `served`: the paths of the collections that there are.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.served: set[str] = set(_KINDS)
        self.requests: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self._written: dict[str, dict[str, Any]] = {}
        self.gone_as_event = False
        self.page_limit = 10_000
        self.url = ""
        self._version = 100
        self._compacted = 0
        self._history: list[tuple[str, int, bytes]] = []
        self._lists: dict[tuple[str, int], list[dict[str, Any]]] = {}
        self._streams: dict[str, set[_Stream]] = defaultdict(set)
        self._runner: web.AppRunner | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._handle)
        app.router.add_put("/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    # What happens in the cluster.

    def put(self, path: str, item: dict[str, Any]) -> None:
        name = item["metadata"]["name"]
        what = "MODIFIED" if name in self.objects[path] else "ADDED"
        self._version += 1
        stored = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self._version)}}
        self.objects[path][name] = stored
        self._publish(path, what, stored)

    def delete(self, path: str, name: str) -> None:
        self._version += 1
        item = self.objects[path].pop(name)
        self._publish(
            path, "DELETED", {**item, "metadata": {**item["metadata"], "resourceVersion": str(self._version)}}
        )

    def bookmark(self, path: str) -> str:
        """Tell the open watches how far they are; that version."""
        self._version += 1
        item = {"kind": "Any", "metadata": {"resourceVersion": str(self._version)}}
        self.send(path, _line("BOOKMARK", item))
        return str(self._version)

    def compact(self) -> None:
        """Forget the history: every older version and continue token is gone."""
        self._version += 1
        self._compacted = self._version
        self._history.clear()
        self._lists.clear()

    # What happens to its connections.

    def streams(self, path: str) -> int:
        return len(self._streams[path])

    def send(self, path: str, content: bytes) -> None:
        """Bytes to the open watches."""

        async def act(response: web.StreamResponse) -> bool:
            await response.write(content)
            return True

        self._each(path, act)

    def end(self, path: str) -> None:
        """End the open watches, as a server does whose timeoutSeconds are over."""

        async def act(_response: web.StreamResponse) -> bool:
            return False

        self._each(path, act)

    def cut(self, path: str, partial: bytes) -> None:
        """Cut the open watches in the middle of a line."""

        async def act(response: web.StreamResponse) -> bool:
            await response.write(partial)
            request = response._req
            assert request is not None
            assert request.transport is not None
            request.transport.close()
            return False

        self._each(path, act)

    def asked(self, path: str, *, watch: bool) -> list[dict[str, str]]:
        """The queries of the lists, or of the watches, so far."""
        return [query for at, query, _ in self.requests if at == path and ("watch" in query) == watch]

    def _each(self, path: str, act: Callable[[web.StreamResponse], Awaitable[bool]]) -> None:
        for stream in self._streams[path]:
            stream.put_nowait(act)

    def _publish(self, path: str, what: str, item: dict[str, Any]) -> None:
        line = _line(what, item)
        self._history.append((path, self._version, line))
        self.send(path, line)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.query), dict(request.headers)))
        faults = self.faults[request.path]
        if faults:
            return await faults.popleft()(request)
        if request.method == "PUT":  # such as a Lease, which is read back by its path
            self._written[request.path] = await request.json()
        if (written := self._written.get(request.path)) is not None:
            return web.json_response(written)
        if request.path not in self.served:
            return await status(404)(request)
        if request.query.get("watch") == "true":
            return await self._watch(request)
        return await self._list(request)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        version, start = self._version, 0
        if token := request.query.get("continue"):
            version, start = (int(part) for part in token.split("-"))
            if (request.path, version) not in self._lists:
                return await status(410)(request)
        else:
            self._lists[request.path, version] = [
                self.objects[request.path][name] for name in sorted(self.objects[request.path])
            ]
        items = self._lists[request.path, version]
        end = start + min(int(request.query.get("limit", len(items) or 1)), self.page_limit)
        metadata = {"resourceVersion": str(version)}
        if end < len(items):
            metadata |= {"continue": f"{version}-{end}", "remainingItemCount": str(len(items) - end)}
        return web.json_response(
            {"kind": _KINDS.get(request.path, "List"), "metadata": metadata, "items": items[start:end]}
        )

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        path, since = request.path, int(request.query["resourceVersion"])
        if since < self._compacted and not self.gone_as_event:
            return await status(410)(request)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        stream: _Stream = asyncio.Queue()
        missed = b"".join(line for at, version, line in self._history if at == path and version > since)
        if since < self._compacted:
            missed = _line("ERROR", {"kind": "Status", "reason": "Expired", "code": 410})
        self._streams[path].add(stream)
        try:
            await response.prepare(request)
            await response.write(missed)
            while await (await stream.get())(response):
                pass
        finally:
            self._streams[path].discard(stream)
        return response


def _line(what: str, item: dict[str, Any]) -> bytes:
    return json.dumps({"type": what, "object": item}).encode() + b"\n"


def namespace(name: str, mode: str | None = None) -> dict[str, Any]:
    labels = {"kubernetes.io/metadata.name": name} | ({"morphisms.dev/mode": mode} if mode else {})
    return {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}}


def node(name: str, **labels: str) -> dict[str, Any]:
    """A node; label names in `labels` are given with `_` for what Python does not allow."""
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "spec": {"taints": [{"key": "dedicated", "value": "snp", "effect": "NoSchedule"}]},
        "status": {"conditions": [{"type": "Ready", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]},
    }


def runtime_class(name: str) -> dict[str, Any]:
    return {
        "kind": "RuntimeClass",
        "apiVersion": "node.k8s.io/v1",
        "metadata": {"name": name},
        "handler": name,
        "scheduling": {"nodeSelector": {"snp": "true"}},
    }
