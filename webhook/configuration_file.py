"""Reads the configuration file, and checks the ids of rules and detectors in it, which the types cannot know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from server.text import did_you_mean
from server.yaml.strict import ConfigurationError, Loaded, load
from webhook.configuration.model import Configuration
from webhook.detection import DETECTORS
from webhook.rules import BY_ID


def load_configuration(path: Path) -> Loaded[Configuration]:
    """The configuration in the file, with the digest of the effective configuration. Raises ConfigurationError."""
    configuration = load(path, Configuration).value
    problems = [
        *_unknown(f"{path}: rules: unknown rule", configuration.rules, BY_ID),
        *_unknown(f"{path}: plaintext.detectors: unknown detector", configuration.plaintext.detectors, DETECTORS),
    ]
    if problems:
        raise ConfigurationError(problems)
    return Loaded(configuration, configuration.digest)


def _unknown(what: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """A problem per unknown name, with the nearest known one."""
    known = tuple(known)
    for name in names:
        if name not in known:
            yield f"{what} {name}{did_you_mean(name, known)}"
