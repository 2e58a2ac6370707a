"""Reads the configuration file, and checks the ids of rules and detectors in it, which the types cannot know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from server.text import did_you_mean
from server.yaml.strict import ConfigurationError, Loaded, load
from webhook.configuration.model import Configuration
from webhook.detection import DETECTORS
from webhook.rules import BY_ID, why_not_excepted

if TYPE_CHECKING:
    from server.watched import FileMetrics, Watched


def load_configuration(path: Path) -> Loaded[Configuration]:
    """The configuration in the file, with the digest of the effective configuration. Raises ConfigurationError."""
    configuration = load(path, Configuration).value
    problems = [
        *_unknown(f"{path}: rules: unknown rule", configuration.rules, BY_ID),
        *_exceptions(path, configuration),
        *_unknown(f"{path}: plaintext.detectors: unknown detector", configuration.plaintext.detectors, DETECTORS),
    ]
    if problems:
        raise ConfigurationError(problems)
    return Loaded(configuration, configuration.digest)


def watched_configuration(
    path: Path | None, files: FileMetrics, changed: Callable[[Configuration], None]
) -> Watched[Configuration] | None:
    """The configuration in the file, loaded again when it changes; None without a file. Raises ConfigurationError."""
    if path is None:
        return None
    from server.watched import Watched  # the commands read a file once, and need no metrics for it

    return Watched(
        "configuration", read=lambda: load_configuration(path), paths=lambda: [path], metrics=files, changed=changed
    )


def _unknown(what: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """A problem per unknown name, with the nearest known one."""
    known = tuple(known)
    for name in names:
        if name not in known:
            yield f"{what} {name}{did_you_mean(name, known)}"


def _exceptions(path: Path, configuration: Configuration) -> Iterator[str]:
    """A problem per rule that an exception names and cannot cover."""
    for place, entry in enumerate(configuration.exceptions):
        where = f"{path}: exceptions[{place}].rules:"
        yield from _unknown(f"{where} unknown rule", entry.rules, BY_ID)
        for rule in entry.rules:
            if rule in BY_ID and (why := why_not_excepted(rule)):
                yield f"{where} no exception covers {rule}: {why}"


def without_effect(configuration: Configuration, now: datetime) -> Iterator[str]:
    """A line per exception that has expired. It is no error: a server that starts on that day has to start."""
    for place, entry in enumerate(configuration.exceptions):
        if not entry.is_in_force(now):
            yield (
                f"exceptions[{place}]: the exception of {entry.workload} in namespace {entry.namespace} expired at"
                f" {entry.expires:%Y-%m-%dT%H:%M:%SZ} and has no effect; remove it, or write a later date"
            )
