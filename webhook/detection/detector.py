"""The detectors in turn, the most telling first, behind the operator's allow-lists."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from webhook.detection.allow import Allow, Allowed
from webhook.detection.entropy import looks_random
from webhook.detection.formats import FORMATS, is_out_of_question, long_words, searcher
from webhook.detection.harmless import REFERENCES, is_harmless, without_expansions
from webhook.detection.names import LONGEST, Verdict, judge

# A longer value is a document. Its head is searched, so that the time a pod may take is bounded by its size.
LOOKED_AT: Final = 64 * 1024
_NAMES_REMEMBERED: Final = 4096

BY_NAME: Final = "name"
BY_ENTROPY: Final = "entropy"
DETECTORS: Final = frozenset([BY_NAME, BY_ENTROPY, *(each.id for each in FORMATS)])


@dataclass(frozen=True, slots=True)
class Finding:
    """What was recognised: the kind of evidence, and the detector's id, which an allow-list can name."""

    kind: Literal["name", "value", "entropy"]
    detector: str


_NAMED: Final = Finding("name", BY_NAME)
_RANDOM: Final = Finding("entropy", BY_ENTROPY)
_FORMATS: Final = {each.id: Finding("value", each.id) for each in FORMATS}


class Detector:
    """Finds plaintext secrets. It keeps no value; verdicts on names are remembered, within bounds."""

    def __init__(self, allow: Allow = Allow()) -> None:  # noqa: B008 - frozen
        self._allowed = Allowed(allow)
        self._by_name = BY_NAME not in self._allowed.off
        self._by_entropy = BY_ENTROPY not in self._allowed.off
        self._format_of = searcher(self._allowed.off)
        self._remembered = lru_cache(maxsize=_NAMES_REMEMBERED)(self._verdict)

    def find(self, name: str, value: str) -> Finding | None:
        """What makes the variable look like a secret in plain text; None when nothing does."""
        if not value:
            return None
        # Names are their author's choice: a cache of long ones would be the author's to fill.
        verdict = self._remembered(name) if len(name) <= LONGEST else self._verdict(name)
        if verdict is None or (verdict <= Verdict.NEUTRAL and is_out_of_question(value)):
            return None
        found = self._judge(verdict, value)
        if found is not None and self._allowed.digests and self._allowed.value(value):
            return None
        return found

    def _verdict(self, name: str) -> Verdict | None:
        """None for a name that may hold anything."""
        return None if self._allowed.name(name) else judge(name)

    def _judge(self, verdict: Verdict, value: str) -> Finding | None:
        text = value[:LOOKED_AT] if len(value) > LOOKED_AT else value
        if text.startswith(REFERENCES):
            return None
        if "$" in text:
            text = without_expansions(text)
        words = long_words(text)
        identifier = self._format_of(text, words)
        if identifier is not None:
            return _FORMATS[identifier]
        if verdict is Verdict.SECRET and self._by_name and not is_harmless(text):
            return _NAMED
        if not self._by_entropy or verdict is Verdict.PLACE:
            return None
        hinted = verdict is not Verdict.NEUTRAL
        if (words or hinted or "/" in text or "+" in text) and looks_random(text, hinted):
            return _RANDOM
        return None
