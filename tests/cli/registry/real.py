"""Debian's docker-registry as a process, and the calls that push an image to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.cli.registry.images import LAYER, Document
from tests.support.packages import require
from tests.support.processes import running
from tests.support.until import until

_LISTENING = re.compile(r"listening on (127\.0\.0\.1:\d+)[^\d]")


class Registry:
    """A running registry. `authorization` is the header that its pusher sends."""

    def __init__(self, address: str, tls: Path | None, authorization: str = "") -> None:
        self.address = address
        self.tls = tls
        self._headers = {"Authorization": authorization} if authorization else {}

    def push(self, repository: str, reference: str, manifest: Document, *blobs: Document) -> str:
        """Push blobs, a layer, then the manifest under a tag or digest; the reference with the digest."""
        for blob in (Document(LAYER, ""), *blobs):
            self._push_blob(repository, blob)
        path = f"/v2/{repository}/manifests/{reference}"
        status, _, body = self._call("PUT", path, manifest.content, {"Content-Type": manifest.media_type})
        assert status == 201, body
        return f"{self.address}/{repository}@{manifest.digest}"

    def _push_blob(self, repository: str, blob: Document) -> None:
        status, location, body = self._call("POST", f"/v2/{repository}/blobs/uploads/", b"", {})
        assert status == 202, body
        parts = urlsplit(location)
        path = f"{parts.path}?{parts.query}&digest={blob.digest}"
        status, _, body = self._call("PUT", path, blob.content, {"Content-Type": "application/octet-stream"})
        assert status == 201, body

    def _call(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        connection = self._connection()
        try:
            connection.request(method, path, body, {**self._headers, **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Location", ""), answer.read()
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection(self.address, timeout=60)
        context = ssl.create_default_context(cafile=str(self.tls / "ca.crt"))
        return http.client.HTTPSConnection(self.address, timeout=60, context=context)


@contextlib.contextmanager
def registry(
    folder: Path, *, tls: Path | None = None, auth: dict[str, Any] | None = None, authorization: str = ""
) -> Iterator[Registry]:
    """Start one on a free port, with its data in the folder; skip where Debian's package is missing."""
    require(**{"docker-registry": "docker-registry"})
    certificate = {} if tls is None else {"certificate": str(tls / "tls.crt"), "key": str(tls / "tls.key")}
    configuration = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": "127.0.0.1:0", "secret": "of the test", "tls": certificate},
        **({} if auth is None else {"auth": auth}),
    }
    # JSON is YAML.
    (folder / "registry.yaml").write_text(json.dumps(configuration))
    log = folder / "registry.log"
    with running(["docker-registry", "serve", folder / "registry.yaml"], log) as process:

        def said() -> re.Match[str] | None:
            assert process.poll() is None, log.read_text()
            return _LISTENING.search(log.read_text())

        until(said)
        found = said()
        assert found is not None
        yield Registry(found[1], tls, authorization)
