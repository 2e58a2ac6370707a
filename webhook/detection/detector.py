"""Runs the detectors, the most specific first, and applies the operator's allow-lists."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from webhook.detection.allow import Allow, Allowed
from webhook.detection.entropy import looks_random
from webhook.detection.formats import FORMATS, cannot_hold_format, format_search, long_words
from webhook.detection.harmless import is_harmless, is_object_name, is_reference, without_expansions, without_scheme
from webhook.detection.names import MAX_NAME_LENGTH, NameClass, classify_name

# A longer value is a document; only its head is searched, so that the time per pod is bounded.
MAX_SEARCHED: Final = 64 * 1024
_CACHED_NAMES: Final = 4096

BY_NAME: Final = "name"
BY_ENTROPY: Final = "entropy"
DETECTORS: Final = frozenset([BY_NAME, BY_ENTROPY, *(each.id for each in FORMATS)])


@dataclass(frozen=True, slots=True)
class Detection:
    """Why a value looks like a secret: the kind of evidence, and the detector's id, which an allow-list can name."""

    kind: Literal["name", "value", "entropy"]
    detector: str


_NAMED: Final = Detection("name", BY_NAME)
_RANDOM: Final = Detection("entropy", BY_ENTROPY)
_FORMATS: Final = {each.id: Detection("value", each.id) for each in FORMATS}


class Detector:
    """Finds plaintext secrets. It keeps no value; the classes of names are cached, within bounds."""

    def __init__(self, allow: Allow = Allow()) -> None:  # noqa: B008 - frozen
        self._allowed = Allowed(allow)
        self._by_name = BY_NAME not in self._allowed.disabled
        self._by_entropy = BY_ENTROPY not in self._allowed.disabled
        self._format_of = format_search(self._allowed.disabled)
        self._cached_name_class = lru_cache(maxsize=_CACHED_NAMES)(self._name_class)

    def find(self, name: str, value: str) -> Detection | None:
        """Why the variable looks like a secret in plain text; None if it does not."""
        if not value:
            return None
        # Authors choose the names: a hostile one could fill a cache of long names with megabytes.
        name_class = self._cached_name_class(name) if len(name) <= MAX_NAME_LENGTH else self._name_class(name)
        if name_class is None or (name_class <= NameClass.NEUTRAL and cannot_hold_format(value)):
            return None
        detection = self._detect(name_class, value)
        if detection is not None and self._allowed.digests and self._allowed.value(value):
            return None
        return detection

    def find_format(self, text: str, name: str = "") -> Detection | None:
        """Why a text outside the environment holds a secret, by its format alone. `name` is for the allow-list.

        The whole text is searched, so the caller bounds its length.
        """
        if cannot_hold_format(text) or (name and self._allowed.name(name)):
            return None
        searched = without_expansions(text) if "$" in text else text
        identifier = self._format_of(searched, long_words(searched))
        if identifier is None or (self._allowed.digests and self._allowed.value(text)):
            return None
        return _FORMATS[identifier]

    def _name_class(self, name: str) -> NameClass | None:
        """The class of the name; None for a name that the allow-list lets hold anything."""
        return None if self._allowed.name(name) else classify_name(name)

    def _detect(self, name_class: NameClass, value: str) -> Detection | None:
        text = value[:MAX_SEARCHED] if len(value) > MAX_SEARCHED else value
        if is_reference(text):
            return None
        text = without_scheme(text)
        if "$" in text:
            text = without_expansions(text)
        words = long_words(text)
        identifier = self._format_of(text, words)
        if identifier is not None:
            return _FORMATS[identifier]
        if name_class >= NameClass.OBJECT and self._by_name and not is_harmless(text):
            if name_class is NameClass.OBJECT and is_object_name(text):
                return None
            return _NAMED
        if not self._by_entropy or name_class is NameClass.PUBLIC:
            return None
        hinted = name_class is not NameClass.NEUTRAL
        if (words or hinted or "/" in text or "+" in text) and looks_random(text, hinted):
            return _RANDOM
        return None
