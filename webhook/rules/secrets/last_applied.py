"""`last-applied-configuration`, where client-side apply keeps the whole manifest, holds no secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from webhook.pod.container import display_name
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
from webhook.rules.secrets.plaintext_env import detector_of
from webhook.wellknown import LAST_APPLIED

# The API server keeps 256 KiB of annotations.
_MOST_SEARCHED: Final = 512 * 1024


def check(subject: Subject) -> Iterator[FieldMessage]:
    source = subject.source if subject.source is not None else subject.pod.object
    text = ((source.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    if not text:
        return
    detector = detector_of(subject.pod.configuration.plaintext)
    left = _MOST_SEARCHED
    for name, value in _texts(_parsed(text)):
        left -= len(value)
        if left < 0:
            return
        if name is None:
            found, what = detector.find_format(value), "a text outside env"
        else:
            found, what = detector.find(name, value), f"env {display_name(name)}"
        if found is not None:
            yield (
                f"metadata.annotations[{LAST_APPLIED}]",
                f"last-applied-configuration keeps {what}, which looks like a secret;"
                " rotate the secret, then apply the manifest without it or use server-side apply",
            )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _texts(node: Any) -> Iterator[tuple[str | None, str]]:
    """(name, value) of every entry of a list called `env`, at any depth, in JSON of any shape; other texts unnamed."""
    todo = [node]
    while todo:
        here = todo.pop()
        if isinstance(here, str):
            yield None, here
        elif isinstance(here, list):
            todo.extend(here)
        elif isinstance(here, dict):
            for key, value in here.items():
                if key == "env" and isinstance(value, list):
                    for entry in value:
                        if isinstance(entry, dict):
                            name, plain = entry.get("name"), entry.get("value")
                            if isinstance(name, str) and isinstance(plain, str) and plain:
                                yield name, plain
                else:
                    todo.append(value)


RULE = Rule(
    id="secrets/last-applied",
    severity=Severity.HIGH,
    summary="last-applied-configuration holds no secret",
    check=check,
)
