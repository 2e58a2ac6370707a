"""Where the configurations of images come from: a file of the author's, else registries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from cli.registry.errors import RegistryError
from cli.registry.lookup import ImageLookup
from cli.registry.reference import Reference, parse_reference
from measured.image import Image


class TagError(RegistryError):
    """The reference has no digest; the message holds the line to write."""


class ImageSource:
    """`sources` says, by digest, where each configuration came from. `lookup` is None where no registry is asked."""

    def __init__(self, given: Mapping[str, Image], given_name: str, lookup: ImageLookup | None) -> None:
        self._found = dict(given)
        self.sources = dict.fromkeys(given, given_name)
        self._lookup = lookup

    @property
    def images(self) -> Mapping[str, Image]:
        """The configurations that are known by now, by digest."""
        return self._found

    def find(self, text: str) -> Image | None:
        """The configuration of one image; None where no registry may be asked. Raises RegistryError."""
        reference = parse_reference(text)
        known = self._found.get(reference.digest or "")
        if known is not None or self._lookup is None:
            return known
        return asyncio.run(self._ask(self._lookup, reference))

    async def _ask(self, lookup: ImageLookup, reference: Reference) -> Image:
        if reference.digest is None:
            try:
                digest = await lookup.digest_of_tag(reference)
            except RegistryError as error:
                raise TagError(
                    f"has no digest; write {reference.pinned('sha256:…')} (not looked up: {error})"
                ) from None
            tag = f"the tag {reference.tag}" if reference.tag else "latest"
            raise TagError(f"has no digest; write {reference.pinned(digest)}, for which {tag} stands now")
        found = await lookup.find(reference)
        self._found[reference.digest] = found.image
        self.sources[reference.digest] = str(found)
        return found.image


def tried(source: ImageSource, references: Iterable[tuple[str, str]]) -> list[tuple[str, RegistryError]]:
    """Look up (field, reference) each; the fields for which that failed, and why."""
    failed = []
    for field, reference in references:
        try:
            source.find(reference)
        except RegistryError as error:
            failed.append((field, error))
    return failed
