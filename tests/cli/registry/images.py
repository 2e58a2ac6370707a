"""Documents of images, as a builder pushes them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

OCI: Final = "application/vnd.oci.image."
DOCKER: Final = "application/vnd.docker."
LAYER: Final = b"not a layer that anything reads"
CONFIG: Final[dict[str, Any]] = {
    "Env": ["PATH=/usr/bin", "LANG=C"],
    "Entrypoint": ["/app", "--home=$(HOME)"],
    "Cmd": ["serve"],
    "User": "1000:1000",
    "WorkingDir": "/srv",
}


@dataclass(frozen=True)
class Document:
    """Bytes with what a registry calls them."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"

    def descriptor(self, **more: Any) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content), **more}


def document(value: Any, media_type: str) -> Document:
    """A value as JSON."""
    return Document(json.dumps(value).encode(), media_type)


def configuration(config: Any = CONFIG, *, architecture: str = "amd64", docker: bool = False) -> Document:
    """An image configuration."""
    kind = f"{DOCKER}container.image.v1+json" if docker else f"{OCI}config.v1+json"
    return document({"os": "linux", "architecture": architecture, "config": config, "rootfs": {}}, kind)


def manifest(of: Document, *, docker: bool = False) -> Document:
    """One image's manifest."""
    kind = f"{DOCKER}distribution.manifest.v2+json" if docker else f"{OCI}manifest.v1+json"
    layer_kind = f"{DOCKER}image.rootfs.diff.tar.gzip" if docker else f"{OCI}layer.v1.tar+gzip"
    layers = [Document(LAYER, layer_kind).descriptor()]
    return document({"schemaVersion": 2, "mediaType": kind, "config": of.descriptor(), "layers": layers}, kind)


def index(*entries: dict[str, Any], docker: bool = False, **more: Any) -> Document:
    """An index of manifests; `entries` are descriptors."""
    kind = f"{DOCKER}distribution.manifest.list.v2+json" if docker else f"{OCI}index.v1+json"
    return document({"schemaVersion": 2, "mediaType": kind, "manifests": list(entries), **more}, kind)


def platform(architecture: str, system: str = "linux", **more: str) -> dict[str, Any]:
    """The member of a descriptor."""
    return {"platform": {"architecture": architecture, "os": system, **more}}
