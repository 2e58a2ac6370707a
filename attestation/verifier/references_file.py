"""The signed reference values of the KMS, as the verifier hands them to guests: exactly the file's text.

The verifier does not know the signer's key, so nothing rests on what it reads here: each guest checks the signature. It
looks into the text to tell its operator when guests will refuse it, because its own configuration is not listed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from attestation.verifier.metrics import watch_references
from kbs.attested import MAX_REFERENCES_SIZE
from kbs.base64url import encode
from kbs.references import References, ReferencesError, read_unverified_references
from server import logs
from server.files import UnusableInputError, read_bounded
from server.watched import FileMetrics, Watched
from server.yaml.strict import ConfigurationError, Loaded

_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}")


@dataclass(frozen=True, slots=True)
class ReferencesText:
    """A compact JWS and what it says; `content` None for a form that this release does not read."""

    text: str
    content: References | None


def load_references_file(path: Path) -> Loaded[ReferencesText]:
    """The file, without the line's end. Raises ConfigurationError."""
    try:
        text = read_bounded(path, MAX_REFERENCES_SIZE + 2).decode("ascii").strip()
    except UnusableInputError as error:
        raise ConfigurationError([str(error)]) from None
    except UnicodeDecodeError:
        text = ""
    if not _COMPACT.fullmatch(text) or len(text) > MAX_REFERENCES_SIZE:
        raise ConfigurationError([f"{path}: is not a compact JWS by ES256, as `morphisms kms references` writes it"])
    try:
        content = read_unverified_references(text)
    except ReferencesError:
        content = None
    return Loaded(ReferencesText(text, content), hashlib.sha256(text.encode()).hexdigest())


class ServedReferences:
    """The newest valid text of the file. `configuration`: the digest of this verifier's configuration now.

    Raises ConfigurationError for a file that cannot be used at the start.
    """

    def __init__(
        self, path: Path, configuration: Callable[[], bytes], files: FileMetrics, registry: CollectorRegistry
    ) -> None:
        self._configuration = configuration
        self._watched: Watched[ReferencesText] = Watched(
            "references",
            read=lambda: load_references_file(path),
            paths=lambda: [path],
            metrics=files,
            changed=lambda _: self._announce(),
        )
        watch_references(registry, self._lists_configuration)
        self._announce()

    @property
    def text(self) -> str:
        """The compact JWS."""
        return self._watched.value.text

    async def watch(self) -> None:
        """Follow the file until cancelled."""
        await self._watched.watch()

    def _lists_configuration(self) -> bool:
        content = self._watched.value.content
        return content is not None and self._configuration() in content.configurations

    def _announce(self) -> None:
        content, digest = self._watched.value.content, encode(self._configuration())
        if content is None:
            logs.warning("references_not_read", advice="sign them with this release's `morphisms kms references`")
        elif not self._lists_configuration():
            advice = "guests refuse this verifier; sign references that list this configuration, with a greater serial"
            logs.warning("references_lack_configuration", configuration=digest, serial=content.serial, advice=advice)
        else:
            logs.info("references", configuration=digest, serial=content.serial)
