"""One round of probes without an API server: a question in a variable, the answer on one line.

`morphisms preflight --probe` has it run in a Job. The question holds public values alone: the cluster's name, the
addresses and CAs that every plan holds too, and the issuer and key ids that the API server tells.

    {"version": 1, "cluster": NAME, "verifier": {…}, "vault": {…}, "issuer": URL or null, "keys": [ID, …]}
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from kbs.known_cluster import MAX_KEYS
from server.kubernetes.untyped import mapping
from webhook.configuration.model import Configuration
from webhook.scanner.probes.probe import OwnTokens, probe
from webhook.scanner.probes.published import Published, about, write_published

VARIABLE: Final = "MORPHISMS_PROBE"
"""In the environment of the Job's container."""

MAX_BYTES: Final = 128 << 10
"""Of a question: the longest variable that Linux passes on."""

_VERSION: Final = 1
# There is no next round, and the network of a pod that has just started may take seconds to let it out.
_SECONDS: Final = 30.0


def write_question(configuration: Configuration, own: OwnTokens | None) -> str:
    """The variable's value. Kubernetes would expand `$(NAME)` in it, so `$` is written as `\\u0024`."""
    document = {
        "version": _VERSION,
        "cluster": configuration.cluster,
        "verifier": configuration.verifier.model_dump(mode="json", exclude_unset=True),
        "vault": {"url": configuration.vault.url, "ca": configuration.vault.ca},
        "issuer": None if own is None else own.issuer,
        "keys": [] if own is None else list(own.keys),
    }
    return json.dumps(document).replace("$", "\\u0024")


def read_question(text: str) -> tuple[Configuration, OwnTokens | None]:
    """What is to be probed. Raises ValueError."""
    try:
        document = mapping(json.loads(text) if len(text) <= MAX_BYTES else None)
        issuer, keys = document["issuer"], document["keys"]
        if document["version"] != _VERSION or not isinstance(keys, list) or len(keys) > MAX_KEYS:
            raise ValueError
        if not all(isinstance(each, str) for each in keys) or not isinstance(issuer, str | None):
            raise ValueError
        parts = {name: document[name] for name in ("cluster", "verifier", "vault")}
        configuration = Configuration.model_validate(parts)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{VARIABLE} holds no question of version {_VERSION}") from None
    return configuration, None if issuer is None else OwnTokens(issuer, tuple(keys))


async def probe_once(text: str, write: Callable[[str], object]) -> None:
    """Probe what the question names, and write the results as the scanner publishes them. Raises ValueError."""
    configuration, own = read_question(text)
    probes = await probe(configuration, own, seconds=_SECONDS)
    write(write_published(Published(datetime.now(UTC), about(configuration), probes)) + "\n")
