"""An image that the tier writes is one that a container runtime takes: every digest is that of its content."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

from tests.node import images


def _files(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar}


def _blob(files: dict[str, bytes], digest: str) -> bytes:
    blob = files[f"blobs/sha256/{digest.removeprefix('sha256:')}"]
    assert f"sha256:{hashlib.sha256(blob).hexdigest()}" == digest
    return blob


def test_an_image_of_one_program(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF and so on")
    image = images.of_programs("app", {"/usr/bin/app": program}, tmp_path / "app.tar")
    files = _files(image.archive)
    entries = json.loads(files["index.json"])["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"] for entry in entries] == [image.tagged, image.pinned]
    assert {entry["digest"] for entry in entries} == {image.digest}
    manifest = json.loads(_blob(files, image.digest))
    configuration = json.loads(_blob(files, manifest["config"]["digest"]))
    layer = gzip.decompress(_blob(files, manifest["layers"][0]["digest"]))
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert configuration["config"]["Entrypoint"] == ["/usr/bin/app"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert {member.name: oct(member.mode) for member in tar} == {
            "usr": "0o755",
            "usr/bin": "0o755",
            "usr/bin/app": "0o755",
        }


def test_a_renamed_image_keeps_its_digest(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"content")
    first = images.of_programs("app", {"/app": program}, tmp_path / "first.tar")
    files = _files(first.archive)
    (entry, _) = json.loads(files["index.json"])["manifests"]
    alone = json.dumps({"schemaVersion": 2, "manifests": [{**entry, "annotations": {"other": "x"}}]}).encode()
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        for name, content in {**files, "index.json": alone}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    second = images.renamed(tmp_path / "other.tar", "team/app", tmp_path / "second.tar")
    assert (second.digest, second.pinned) == (first.digest, f"dev.local/team/app@{first.digest}")
    assert set(_files(second.archive)) == set(files)
