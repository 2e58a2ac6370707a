"""The operator's allow-lists: names, digests of values, detectors."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from fnmatch import translate


@dataclass(frozen=True, slots=True)
class Allow:
    """Allow-lists, as the configuration gives them.

    `names` are globs (`*`, `?`, `[…]`), case-insensitive. `values_sha256` are hex digests of whole values in UTF-8
    (`printf %s "$VALUE" | sha256sum`), so that the configuration holds no secret. `detectors` are ids to switch off.
    """

    names: tuple[str, ...] = ()
    values_sha256: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ()


class Allowed:
    """The allow-lists, compiled for look-ups."""

    def __init__(self, allow: Allow) -> None:
        self.disabled = frozenset(allow.detectors)
        self.digests = frozenset(digest.strip().lower() for digest in allow.values_sha256)
        globs = "|".join(translate(glob.lower()) for glob in allow.names)
        self._names = re.compile(globs) if globs else None

    def name(self, name: str) -> bool:
        """Whether variables of this name may hold anything."""
        return self._names is not None and self._names.match(name.lower()) is not None

    def value(self, value: str) -> bool:
        """Whether exactly this value is allowed. A lone surrogate, which JSON can carry, is hashed as it is."""
        return hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest() in self.digests
