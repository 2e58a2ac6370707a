"""etcd read past the API server, as whoever has its disk or its port can."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from tests.cluster.binaries import KUBERNETES, binary


class Etcd:
    """`url` is where it serves, `folder` its data; `prefix` stands before a command that reaches it."""

    def __init__(self, url: str, folder: Path, prefix: Sequence[str] = ()) -> None:
        self.url = url
        self.folder = folder
        self._prefix = tuple(prefix)

    def keys(self, prefix: str = "/") -> list[str]:
        """All keys below a prefix."""
        return [line for line in self._etcdctl("get", prefix, "--prefix", "--keys-only").decode().splitlines() if line]

    def value(self, key: str) -> bytes:
        """What one key holds."""
        return self._etcdctl("get", key, "--print-value-only").removesuffix(b"\n")

    def everything(self, prefix: str = "/") -> Iterator[tuple[str, bytes]]:
        """(key, value) of all keys."""
        for entry in json.loads(self._etcdctl("get", prefix, "--prefix", "-w", "json")).get("kvs", ()):
            yield base64.b64decode(entry["key"]).decode(), base64.b64decode(entry.get("value", ""))

    def compact(self) -> None:
        """Forget every former version: a watch that goes on from one is answered 410 Gone."""
        header = json.loads(self._etcdctl("get", "/", "-w", "json"))["header"]
        self._etcdctl("compaction", str(header["revision"]))

    def files(self) -> Iterator[tuple[Path, bytes]]:
        """Its database and its log of writes, as they lie on disk: what a backup takes along."""
        for path in sorted(self.folder.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # etcd has renamed or removed it since
                if path.is_file():
                    yield path, path.read_bytes()

    def _etcdctl(self, *arguments: str) -> bytes:
        command = [*self._prefix, binary(KUBERNETES, "etcdctl"), f"--endpoints={self.url}", *arguments]
        return subprocess.run(command, capture_output=True, timeout=180, check=True).stdout


def forms(secret: str) -> list[bytes]:
    """The ways in which a value may lie in other bytes: itself, in URLs, in hex, in base64 at each of three offsets."""
    raw = secret.encode()
    encoded = [base64.b64encode(b"\0" * shift + raw) for shift in range(3)]
    # What the neighbours on either side would change is left off.
    inner = [text[(0, 2, 3)[shift] : len(text.rstrip(b"=")) - 1] for shift, text in enumerate(encoded)]
    return [raw, quote(secret).encode(), raw.hex().encode(), *inner]


def holds(content: bytes, secret: str) -> bool:
    """Whether the bytes hold the secret in any of these forms."""
    return any(form in content for form in forms(secret))
