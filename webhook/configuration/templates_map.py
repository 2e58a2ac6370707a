"""The ConfigMap `morphisms-webhook-templates`, whose content may be anything: read entry by entry, refused likewise.

| key | value |
|---|---|
| `HEX.json` | a container template: its canonical text, whose SHA-256 is HEX |
| `HEX.revoked` | any text: that template is withdrawn, at once and everywhere |
| `current` | HEX of the template that new pods get |
| `immediate` | `true`: the next template is marked without waiting for the replicas |
| `known.REPLICA` | since when that replica accepts what, separated by blanks: a time, and of each template 16 digits |
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError

from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.container_template import ContainerTemplate

MAX_ENTRY_BYTES: Final = 64 << 10
"""Of one template: three certificates of a CA are about 6 KiB."""

MAX_TEMPLATES: Final = 100
"""Accepted at once. A pod may be compared with each of them."""

# What etcd stores of an object, less room for metadata; `MAX_BYTES` is what the leader fills at most.
MAX_BYTES: Final = 900 << 10
WARN_BYTES: Final = 512 << 10

CURRENT: Final = "current"
IMMEDIATE: Final = "immediate"
_TEMPLATE: Final = ".json"
_REVOKED: Final = ".revoked"
_KNOWN: Final = "known."
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SHORT: Final = 16


@dataclass(frozen=True, slots=True)
class Said:
    """What a replica said that it accepts: short digests, and since when."""

    at: datetime
    digests: frozenset[str]


@dataclass(frozen=True, slots=True)
class TemplatesMap:
    """What the ConfigMap says. `known`: by replica. `problems`: why an entry is refused, by its key."""

    templates: AcceptedTemplates = field(default_factory=AcceptedTemplates)
    known: Mapping[str, Said] = field(default_factory=dict)
    is_immediate: bool = False
    problems: Mapping[str, str] = field(default_factory=dict)
    size: int = 0

    def is_known_to(self, replica: str, digest: str) -> bool:
        """Whether the replica has said that it accepts the template."""
        said = self.known.get(replica)
        return said is not None and digest[:_SHORT] in said.digests

    def is_said_by(self, replica: str, templates: AcceptedTemplates) -> bool:
        """Whether this is just what the replica has said."""
        said = self.known.get(replica)
        return said is not None and said.digests == frozenset(map(_short, templates.by_digest))


def template_key(digest: str) -> str:
    """The key of a template."""
    return f"{digest}{_TEMPLATE}"


def known_key(replica: str) -> str:
    """The key under which a replica says what it accepts."""
    return f"{_KNOWN}{replica}"


def known_text(templates: AcceptedTemplates, now: datetime) -> str:
    """The value of that key."""
    return " ".join((now.strftime("%Y-%m-%dT%H:%M:%SZ"), *sorted(map(_short, templates.by_digest))))


def _short(digest: str) -> str:
    return digest[:_SHORT]


def _said(value: str) -> Said | None:
    time, *digests = value.split() or [""]
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        return None
    return Said(at, frozenset(digests)) if at.tzinfo is not None else None


def read_map(data: Any) -> TemplatesMap:
    """What the ConfigMap's `data` says. Raises nothing: an unusable entry is left out and named."""
    if data is not None and not isinstance(data, Mapping):
        return TemplatesMap(problems={"data": "is not a mapping"})
    entries = {str(key): value for key, value in (data or {}).items() if isinstance(value, str)}
    problems = {_shown(str(key)): "is not text" for key in (data or {}) if str(key) not in entries}
    revoked = frozenset(_digests(entries, _REVOKED))
    found: dict[str, ContainerTemplate] = {}
    withdrawn = []
    for digest in _in_order(entries):
        template = _read_template(digest, entries[template_key(digest)])
        if isinstance(template, str):
            problems[template_key(digest)] = template
        elif digest in revoked:
            withdrawn.append(template)
        elif len(found) >= MAX_TEMPLATES:
            problems[template_key(digest)] = f"is more than the {MAX_TEMPLATES} templates that are accepted"
        else:
            found[digest] = template
    current = entries.get(CURRENT)
    if current is not None and current not in found and current not in revoked:
        problems[CURRENT] = "names no template that is accepted"
        current = None
    known: dict[str, Said] = {}
    for key, value in entries.items():
        if not _is_known_key(key):
            problems[_shown(key)] = "is not a key of this ConfigMap"
        elif key.startswith(_KNOWN):
            said = _said(value)
            if said is None:
                problems[_shown(key)] = "does not start with a time, such as 2026-01-31T12:00:00Z"
            else:
                known[key.removeprefix(_KNOWN)] = said
    return TemplatesMap(
        AcceptedTemplates(found, current, revoked, tuple(withdrawn)),
        known,
        entries.get(IMMEDIATE) == "true",
        problems,
        sum(len(key.encode()) + len(value.encode(errors="replace")) for key, value in entries.items()),
    )


def _in_order(entries: Mapping[str, str]) -> list[str]:
    """The templates' digests, the marked one first: it must not be the one too many."""
    current = entries.get(CURRENT)
    return sorted(_digests(entries, _TEMPLATE), key=lambda digest: (digest != current, digest))


def _digests(entries: Mapping[str, str], suffix: str) -> Iterator[str]:
    for key in entries:
        digest = key.removesuffix(suffix)
        if digest != key and _DIGEST.fullmatch(digest):
            yield digest


def _is_known_key(key: str) -> bool:
    if key in (CURRENT, IMMEDIATE) or key.startswith(_KNOWN):
        return True
    return any(_DIGEST.fullmatch(key.removesuffix(suffix)) and key.endswith(suffix) for suffix in (_TEMPLATE, _REVOKED))


def _shown(key: str) -> str:
    """A key fit for a log line: the API server bounds keys to 253 of these characters."""
    return re.sub(r"[^-._a-zA-Z0-9]", "?", key)[:253]


@lru_cache(maxsize=2 * MAX_TEMPLATES)
def _read_template(digest: str, text: str) -> ContainerTemplate | str:
    """The template, or why it is refused; the reason repeats no value."""
    if len(text) > MAX_ENTRY_BYTES:
        return f"is larger than {MAX_ENTRY_BYTES} bytes"
    try:
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            return "is not the text that its digest names"
        content = json.loads(text)
        version = content.get("version") if isinstance(content, dict) else None
        if version != 1:
            return "is not a template of version 1, the only one that this webhook reads"
        template = ContainerTemplate.model_validate(content)
        # A template that leaves a default out would mean something else to another release.
        return template if template.text == text else "is not in canonical form"
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"is not a template: {'.'.join(map(str, first['loc']))[:100]}: {first['type']}"
    except Exception as error:  # not JSON, not Unicode, nested too deeply
        return f"is not JSON: {type(error).__name__}"
