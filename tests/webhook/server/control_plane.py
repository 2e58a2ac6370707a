"""The list and watch stand-in of tests/webhook/cluster in a thread, with a kubeconfig for another process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.webhook.cluster.apiserver import ApiServer


@contextlib.contextmanager
def control_plane(folder: Path, objects: dict[str, list[dict[str, Any]]]) -> Iterator[Path]:
    """The path of a kubeconfig whose server lists and watches `objects` (by API path)."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = ApiServer()
    for path, items in objects.items():
        for item in items:
            server.put(path, item)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
    try:
        yield write_kubeconfig(folder, server.url)
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)


def write_kubeconfig(folder: Path, url: str) -> Path:
    """A kubeconfig for that server, without credentials."""
    path = folder / "kubeconfig"
    path.write_text(
        f"""
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "{url}"}}}}]
users: [{{name: test, user: {{}}}}]
"""
    )
    return path
