"""An API server's objects, as far as a writer needs them: create, patch, delete, get and list, on loopback."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Json = dict[str, Any]


class Store:
    """Objects by path, as an API server keeps them; `writes` counts by method, `fails` are statuses to answer with."""

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}
        self.writes: Counter[str] = Counter()
        self.fails: list[int] = []
        self.url = ""

    def put(self, path: str, **item: Any) -> None:
        self.objects[path] = item

    @property
    def events(self) -> list[Json]:
        return [item for path, item in self.objects.items() if "/events/" in path]

    async def handle(self, request: web.Request) -> web.Response:
        path = request.path
        if request.method == "GET":
            if request.query:  # a list
                return self._listed(path)
            return self._answer(self.objects.get(path))
        if request.method == "DELETE":
            self.writes["DELETE"] += 1
            return self._answer(self.objects.pop(path, None))
        if self.fails:
            return web.json_response({"kind": "Status"}, status=self.fails.pop())
        self.writes[request.method] += 1
        body = await request.json()
        if request.method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                return web.json_response({"kind": "Status"}, status=409)
            self.objects[path] = body
        elif path in self.objects:
            old = self.objects[path]
            self.objects[path] = _merged(old, body)
        return self._answer(self.objects.get(path))

    def _listed(self, path: str) -> web.Response:
        """A collection; over all namespaces, where the path names none."""
        root, _, resource = path.rpartition("/")
        items = [
            item
            for at, item in sorted(self.objects.items())
            if at.startswith(f"{path}/") or (at.startswith(f"{root}/namespaces/") and f"/{resource}/" in at)
        ]
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})

    def _answer(self, item: Json | None) -> web.Response:
        return web.json_response(item or {"kind": "Status"}, status=404 if item is None else 200)


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[None]:
    """Serve the store; its `url` says where."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", store.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    store.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        await runner.cleanup()


def _merged(old: Any, patch: Any) -> Any:
    """The object after a merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
