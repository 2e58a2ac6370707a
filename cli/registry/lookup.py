"""From a reference with a digest to the image's configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, TypeVar

from cli.registry.cache import Cache
from cli.registry.client import SECONDS, Answer, RegistryClient
from cli.registry.credentials import DockerConfiguration
from cli.registry.documents import (
    MAX_MANIFEST,
    PLATFORM,
    Descriptor,
    Index,
    Manifest,
    read_configuration,
    read_manifest,
)
from cli.registry.errors import RegistryError, UnreachableError
from cli.registry.reference import Reference
from cli.registry.registries import Endpoint, Registries, endpoint_of
from measured.image import Image

_TOTAL_SECONDS: Final = 120.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """An image's configuration. `source` is the registry's host, or the cache."""

    image: Image
    manifest: str
    configuration: str
    source: str

    def __str__(self) -> str:
        return f"{self.source}: {PLATFORM}, manifest {self.manifest}, configuration {self.configuration}"


class ImageLookup:
    """Looks images up, one after the other. Errors are RegistryError, or UnusableInputError of the caller's files."""

    def __init__(self, registries: Registries, cache: Cache, seconds: float = SECONDS) -> None:
        self._registries = registries
        self._cache = cache
        self._seconds = seconds
        self._docker: DockerConfiguration | None = None

    async def find(self, reference: Reference) -> Found:
        """The configuration for PLATFORM of an image by digest; every document is checked against its digest."""
        if reference.digest is None:
            raise RegistryError("has no digest")
        async with _Reader(self, reference) as reader:
            return await reader.within_time(lambda: reader.find(str(reference.digest)))

    async def digest_of_tag(self, reference: Reference) -> str:
        """The digest that the tag (without one: latest) stands for at this moment."""
        async with _Reader(self, reference) as reader:
            return await reader.within_time(lambda: reader.resolve(reference.tag or "latest"))

    def client(self, endpoint: Endpoint) -> RegistryClient:
        """A client of one registry; the caller's credentials are read once, and only where there is a request."""
        self._docker = self._docker or DockerConfiguration.load()
        return RegistryClient(endpoint, self._registries, self._docker, self._seconds)

    def endpoint(self, reference: Reference) -> Endpoint:
        """Where the image is served."""
        return endpoint_of(reference, self._registries)

    def cached(self, digest: str, limit: int) -> bytes | None:
        """A document that an earlier look-up kept."""
        return self._cache.get(digest, limit)

    def keep(self, digest: str, content: bytes) -> None:
        """Keep a document for later ones."""
        self._cache.put(digest, content)


class _Reader:
    """One look-up: documents from the cache, else from the registry, which is connected to when needed."""

    def __init__(self, lookup: ImageLookup, reference: Reference) -> None:
        self._lookup = lookup
        self._reference = reference
        self._stack = AsyncExitStack()
        self._client: RegistryClient | None = None
        self._host = ""

    async def __aenter__(self) -> _Reader:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def within_time(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, and say in errors which registry they are about."""
        try:
            async with asyncio.timeout(_TOTAL_SECONDS):
                return await work()
        except TimeoutError:
            raise UnreachableError(f"{self._host}: no answer in {_TOTAL_SECONDS:g} s") from None
        except RegistryError as error:
            if not self._host:
                raise
            raise type(error)(f"{self._host}: {error}") from None

    async def find(self, digest: str) -> Found:
        document = await self._manifest(digest)
        if isinstance(document, Index):
            digest = document.choose().digest
            document = await self._manifest(digest)
        if not isinstance(document, Manifest):
            raise RegistryError("the index names an index, which guests do not follow")
        configuration = document.configuration
        image = read_configuration(await self._configuration(configuration))
        return Found(image, digest, configuration.digest, self._host or "cache")

    async def resolve(self, tag: str) -> str:
        answer = await (await self._connected()).manifest(tag)
        read_manifest(answer.content, answer.media_type)
        return answer.digest

    async def _manifest(self, digest: str) -> Index | Manifest:
        kept = self._lookup.cached(digest, MAX_MANIFEST)
        answer = Answer(kept, "") if kept is not None else await (await self._connected()).manifest(digest)
        document = read_manifest(answer.content, answer.media_type)
        if kept is None:
            self._lookup.keep(digest, answer.content)
        return document

    async def _configuration(self, descriptor: Descriptor) -> bytes:
        kept = self._lookup.cached(descriptor.digest, descriptor.size)
        if kept is not None:
            return kept
        answer = await (await self._connected()).blob(descriptor.digest, descriptor.size)
        self._lookup.keep(descriptor.digest, answer.content)
        return answer.content

    async def _connected(self) -> RegistryClient:
        if self._client is None:
            endpoint = self._lookup.endpoint(self._reference)
            self._host = endpoint.name
            self._client = await self._stack.enter_async_context(self._lookup.client(endpoint))
        return self._client
