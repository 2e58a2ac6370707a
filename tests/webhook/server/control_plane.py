"""The list and watch stand-in of tests/webhook/cluster in a thread, with a kubeconfig for another process."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.certificates import write_pair
from tests.webhook.cluster.apiserver import ApiServer


@contextlib.contextmanager
def control_plane(folder: Path, objects: dict[str, list[dict[str, Any]]]) -> Iterator[Path]:
    """The path of a kubeconfig whose server lists and watches `objects` (by API path)."""
    with _serving(objects, None) as url:
        yield write_kubeconfig(folder, url)


@contextlib.contextmanager
def pods_control_plane(folder: Path, objects: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """The URL of such a server over TLS; `folder` becomes a pod's folder of credentials for it."""
    folder.mkdir(exist_ok=True)
    write_pair(folder)
    (folder / "token").write_text("of the webhook")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    with _serving(objects, context) as url:
        yield url


@contextlib.contextmanager
def _serving(objects: dict[str, list[dict[str, Any]]], tls: ssl.SSLContext | None) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = ApiServer()
    for path, items in objects.items():
        server.served.add(path)
        for item in items:
            server.put(path, item)
    asyncio.run_coroutine_threadsafe(server.start(tls), loop).result(30)
    try:
        yield server.url
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
