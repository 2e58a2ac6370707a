"""Images without an engine: of one program in one layer, and those that `make images` wrote, under the tier's names.

All names are below `dev.local`, which Knative asks no registry about. An image is known to containerd by its tag and by
its digest, as if it had been pulled.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

REGISTRY: Final = "dev.local"
_INDEX, _LAYOUT = "index.json", "oci-layout"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_NAME = "io.containerd.image.name"


@dataclass(frozen=True)
class Image:
    """An OCI archive, by the name and digest under which pods name it."""

    name: str
    tag: str
    digest: str
    archive: Path

    @property
    def tagged(self) -> str:
        return f"{self.name}:{self.tag}"

    @property
    def pinned(self) -> str:
        return f"{self.name}@{self.digest}"


def of_programs(
    name: str, programs: Mapping[str, Path], archive: Path, *, user: str = "65532:65532", tag: str = "1"
) -> Image:
    """An image of nothing but these files (path in it: file), that starts the first one."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in sorted({parent for path in programs for parent in Path(path).parents} - {Path("/")}):
            entry = tarfile.TarInfo(str(folder).lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path, file in programs.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.mode, entry.size = 0o755, file.stat().st_size
            with file.open("rb") as content:
                tar.addfile(entry, content)
    content = layer.getvalue()
    configuration: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [next(iter(programs))], "Env": ["PATH=/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(content)]},
    }
    if user:
        configuration["config"]["User"] = user
    packed = gzip.compress(content, 1, mtime=0)
    blobs = [packed, _json(configuration)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_TYPE,
        "config": _descriptor(blobs[1], "application/vnd.oci.image.config.v1+json"),
        "layers": [_descriptor(packed, "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    blobs.append(_json(manifest))
    descriptor = _descriptor(blobs[-1], _MANIFEST_TYPE)
    image = Image(f"{REGISTRY}/{name}", tag, descriptor["digest"], archive)
    files = {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in blobs}
    _write(archive, {**files, _LAYOUT: _json({"imageLayoutVersion": "1.0.0"}), _INDEX: _index(image, descriptor)})
    return image


def renamed(source: Path, name: str, archive: Path, tag: str = "1") -> Image:
    """The image of an OCI archive that another program wrote."""
    with tarfile.open(source) as tar:
        files = {member.name.removeprefix("./"): _content(tar, member) for member in tar if member.isfile()}
    (descriptor,) = json.loads(files[_INDEX])["manifests"]
    image = Image(f"{REGISTRY}/{name}", tag, descriptor["digest"], archive)
    _write(archive, {**files, _INDEX: _index(image, descriptor)})
    return image


def _index(image: Image, descriptor: Mapping[str, Any]) -> bytes:
    plain = {key: value for key, value in descriptor.items() if key != "annotations"}
    entries = [{**plain, "annotations": {_NAME: name}} for name in (image.tagged, image.pinned)]
    return _json({"schemaVersion": 2, "manifests": entries})


def _write(archive: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(archive, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _descriptor(blob: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
