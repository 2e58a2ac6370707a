"""What registries hold of an image: an index of platforms, a manifest, a configuration. Docker's forms and OCI's.

A document is what its members say. One that could be read as an index and as a manifest is refused, whatever the
registry calls it (CVE-2021-41190); so is a name given twice, of which readers take different ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jiter

from cli.registry.errors import RegistryError
from measured.image import DIGEST, Image, ImageError, read_image
from measured.refusal import is_object, objects
from server.text import printable

MAX_MANIFEST: Final = 4 * 1024 * 1024
MAX_CONFIGURATION: Final = 4 * 1024 * 1024
_INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CONFIGURATIONS: Final = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
ACCEPT: Final = ", ".join((*_INDEXES, *_MANIFESTS))
PLATFORM: Final = "linux/amd64"
"""Of guests under SEV-SNP."""
_ATTESTATION: Final = "unknown/unknown"
_SHOWN: Final = 64


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One document by its digest, and its size in bytes."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class PlatformManifest:
    """An entry of an index. `platform` is OS/ARCHITECTURE, `variant` the processor's; both can be empty."""

    descriptor: Descriptor
    platform: str
    variant: str

    def __str__(self) -> str:
        shown = f"{self.platform}/{self.variant}" if self.variant else self.platform
        return printable(shown[:_SHOWN]) or "no platform"


@dataclass(frozen=True, slots=True)
class Index:
    """The manifests of one image by platform, without attestations, which run nowhere."""

    entries: tuple[PlatformManifest, ...]

    def choose(self) -> Descriptor:
        """The one manifest of PLATFORM. Raises RegistryError, which names the platforms that there are."""
        fitting = {each.descriptor.digest: each for each in self.entries if each.platform == PLATFORM}
        if not fitting:
            there = ", ".join(sorted({str(each) for each in self.entries})) or "none"
            raise RegistryError(f"the image is not there for {PLATFORM}, which guests are; it is for: {there}")
        if len(fitting) > 1:
            there = ", ".join(f"{digest} ({each})" for digest, each in sorted(fitting.items()))
            raise RegistryError(f"the image is there for {PLATFORM} more than once; write the digest of one: {there}")
        return next(iter(fitting.values())).descriptor


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image on one platform."""

    configuration: Descriptor


def read_manifest(content: bytes, media_type: str = "") -> Index | Manifest:
    """Read either. `media_type`: the registry's word, which must not contradict. Raises RegistryError."""
    document = _object(content, "manifest")
    is_index = "manifests" in document
    if is_index == ("config" in document or "layers" in document):
        raise RegistryError("the manifest is neither one image nor an index of images, or both")
    expected = _INDEXES if is_index else _MANIFESTS
    claims = [media_type.partition(";")[0].strip().lower(), document.get("mediaType", "")]
    if any(claim in (*_INDEXES, *_MANIFESTS) and claim not in expected for claim in claims):
        raise RegistryError("the manifest's media type and its members contradict each other")
    if document.get("schemaVersion") != 2:
        raise RegistryError("the manifest's schemaVersion is not 2")
    if is_index:
        return Index(tuple(_entries(document)))
    config = document.get("config")
    if not is_object(config) or config.get("mediaType") not in _CONFIGURATIONS:
        raise RegistryError("the manifest names no image configuration: it is not of a container image")
    return Manifest(_descriptor(config, MAX_CONFIGURATION))


def read_configuration(content: bytes) -> Image:
    """The process that the image's configuration describes. Raises RegistryError, also for another platform."""
    document = _object(content, "image configuration")
    platform = _platform(document)
    if platform != PLATFORM:
        raise RegistryError(f"the image is for {printable(platform[:_SHOWN])}; guests are {PLATFORM}")
    try:
        return read_image(document.get("config") or {})
    except ImageError as error:
        raise RegistryError(f"the image configuration's config: {error}") from None


def _entries(document: Mapping[str, Any]) -> list[PlatformManifest]:
    manifests = document["manifests"]
    if not isinstance(manifests, list) or len(objects(manifests)) != len(manifests):
        raise RegistryError("the index's manifests is not a list of objects")
    found = []
    for entry in manifests:
        given = entry.get("platform")
        platform = _platform(given) if is_object(given) else ""
        if platform != _ATTESTATION and entry.get("mediaType") in (*_MANIFESTS, *_INDEXES):
            variant = given.get("variant") if is_object(given) else ""
            found.append(
                PlatformManifest(
                    _descriptor(entry, MAX_MANIFEST), platform, variant if isinstance(variant, str) else ""
                )
            )
    return found


def _platform(document: Mapping[str, Any]) -> str:
    system, architecture = document.get("os"), document.get("architecture")
    return f"{system if isinstance(system, str) else ''}/{architecture if isinstance(architecture, str) else ''}"


def _descriptor(document: Mapping[str, Any], limit: int) -> Descriptor:
    digest, size = document.get("digest"), document.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise RegistryError("the manifest names a document without a digest of sha256")
    if type(size) is not int or not 0 < size <= limit:
        raise RegistryError(f"the manifest names a document that is empty or larger than {limit} bytes")
    return Descriptor(digest, size)


def _object(content: bytes, what: str) -> dict[str, Any]:
    try:
        document = jiter.from_json(content, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError:
        document = None
    if not is_object(document):
        raise RegistryError(f"the {what} is not a JSON object, or gives a name twice")
    return document
