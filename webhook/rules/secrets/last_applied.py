"""`last-applied-configuration`, where client-side apply keeps the whole manifest, holds no secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from webhook.pod.container import display_name
from webhook.pod.workloads import knative_kind
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
from webhook.rules.secrets.plaintext_env import detector_of
from webhook.wellknown import LAST_APPLIED

# The API server keeps 256 KiB of annotations.
_MOST_SEARCHED: Final = 512 * 1024


def check(subject: Subject) -> Iterator[FieldMessage]:
    for field, text in _kept(subject):
        yield from _secrets(subject, f"{field}[{LAST_APPLIED}]", text)


def _kept(subject: Subject) -> Iterator[tuple[str, str]]:
    """The annotation of the object, and of a Knative Service's template, which its pods inherit."""
    source, pod = subject.source, subject.pod.object
    text = _annotation(pod if source is None else source)
    if text:
        yield "metadata.annotations", text
    if source is not None and knative_kind(source) in ("Service", "Configuration"):
        inherited = _annotation(pod)
        if inherited:
            yield "spec.template.metadata.annotations", inherited


def _annotation(item: dict[str, Any]) -> Any:
    return ((item.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)


def _secrets(subject: Subject, field: str, text: str) -> Iterator[FieldMessage]:
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
                field,
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
