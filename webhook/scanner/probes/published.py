"""The probes' results as the scanner publishes them and `morphisms preflight` reads them: one JSON text in a ConfigMap.

    {"version": 1, "at": "2027-01-01T00:00:00Z", "about": "<64 hex digits>",
     "probes": {"verifier": {"state": "ok", "text": "…"}, …}}

`about` is the digest of the addresses, CAs and names that were probed, so that results of a former configuration count
for nothing. No text holds anything that a probed server sent.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from server.kubernetes.untyped import TIME_FORM, mapping
from webhook.configuration.model import Configuration

KEY: Final = "probes.json"
"""In the ConfigMap's data."""

MAX_BYTES: Final = 16 << 10
FRESH: Final = timedelta(minutes=15)
"""Older results say nothing about now: three times the default pause between two rounds."""

_SKEW: Final = timedelta(minutes=2)
_VERSION: Final = 1
_MAX_TEXT: Final = 400
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Check(enum.StrEnum):
    """What is probed; `morphisms preflight` has lines of the same names."""

    VERIFIER = "verifier"
    VAULT = "vault"
    CLUSTER_NAME = "cluster-name"
    KEY_SET = "key-set"


class ProbeState(enum.StrEnum):
    """What came of a probe."""

    OK = "ok"
    FAILED = "failed"
    NOT_EVALUATED = "not-evaluated"


@dataclass(frozen=True, slots=True)
class Probe:
    """`text` says what was seen and, where it is wrong, what to change."""

    state: ProbeState
    text: str


@dataclass(frozen=True, slots=True)
class Published:
    """One round of probes. `at`: when it began, by the API server's clock."""

    at: datetime
    about: str
    probes: Mapping[Check, Probe]

    def why_not_counted(self, about: str, now: datetime) -> str:
        """Why the results say nothing about a configuration with the digest `about` at `now`; empty: they count."""
        if self.about != about:
            return "the scanner has probed another configuration than this one"
        if self.at > now + _SKEW:
            return "the scanner's last probes are from the future; compare the clocks"
        age = now - self.at
        if age > FRESH:
            return f"the scanner's last probes are {age // timedelta(minutes=1)} minutes old; look at its log"
        return ""


def about(configuration: Configuration) -> str:
    """The digest of what is probed under a configuration."""
    verifier, vault = configuration.verifier, configuration.vault
    probed = [configuration.cluster, verifier.url, verifier.ca, verifier.audience, verifier.attest is None]
    return hashlib.sha256(json.dumps([*probed, vault.url, vault.ca]).encode()).hexdigest()


def write_published(published: Published) -> str:
    """The text under `KEY`."""
    probes = {check.value: {"state": each.state.value, "text": each.text} for check, each in published.probes.items()}
    at = published.at.astimezone(UTC).strftime(TIME_FORM)
    return json.dumps({"version": _VERSION, "at": at, "about": published.about, "probes": probes})


def read_published(data: Any) -> Published:
    """What a ConfigMap's `data` holds; unknown members and checks are left out. Raises ValueError."""
    text = mapping(data).get(KEY)
    if not isinstance(text, str) or len(text) > MAX_BYTES:
        raise ValueError(f"has no {KEY} of at most {MAX_BYTES} bytes")
    try:
        document = mapping(json.loads(text))
        at = datetime.strptime(document["at"], TIME_FORM).replace(tzinfo=UTC)
        digest = document["about"]
        if document["version"] != _VERSION or not _DIGEST.fullmatch(digest):
            raise ValueError
        found = mapping(document["probes"])
        probes = {check: _probe(mapping(found[check.value])) for check in Check if check.value in found}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{KEY} is not of version {_VERSION}") from None
    return Published(at, digest, probes)


def _probe(document: Mapping[str, Any]) -> Probe:
    text = document["text"]
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise ValueError
    return Probe(ProbeState(document["state"]), text)
