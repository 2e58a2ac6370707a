"""No argument, probe, hook or annotation holds a secret in plain text, by the formats that issuers publish.

Names say little here, so they are not read: only `plaintext_env` does that. A container is walked whole, so that every
field with a text is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from webhook.detection import Detector
from webhook.pod.container import Container, display_name
from webhook.pod.walk import field_of, texts
from webhook.rules.rule import OF_SOURCE, FieldMessage, Rule, Severity, Subject
from webhook.rules.secrets.plaintext_env import detector_of
from webhook.wellknown import INITDATA, LAST_APPLIED, PREFIX

# The variables' own rules read `env`; an image's name holds no secret.
_READ_ELSEWHERE: Final = frozenset({"env", "image", "name"})
# `secrets/last-applied` reads the first; the second is packed, and measured as it is.
_ANNOTATIONS_READ_ELSEWHERE: Final = (LAST_APPLIED, INITDATA)
# So much text of a pod is searched; a megabyte of `a=a=` would take 0.2 s.
_MOST_SEARCHED: Final = 256 * 1024
# No format is shorter.
_SHORTEST: Final = 8


def check(subject: Subject) -> Iterator[FieldMessage]:
    yield from _in_source(subject)
    pod = subject.pod
    detector = detector_of(pod.configuration.plaintext)
    annotations = _searched(pod.annotations)
    everything = "\n".join(
        [
            *[value for _, value in annotations],
            *[
                text
                for container in pod.checked
                for _, _, text in texts(container.object, _READ_ELSEWHERE)
                if len(text) >= _SHORTEST
            ],
        ]
    )[:_MOST_SEARCHED]
    # One search for all: most pods hold none. An expansion could begin in one text and end in another.
    if "${" not in everything and detector.find_format(everything) is None:
        return
    yield from _in_annotations(annotations, detector)
    left = _MOST_SEARCHED
    for container in pod.checked:
        for field, text in _texts(container):
            found = detector.find_format(text[:left])
            left = max(0, left - len(text))
            if found is not None:
                yield (
                    field,
                    f"container {container.label} has what looks like a secret in plain text ({found.detector}) outside"
                    " env; store it in Vault and use a file (secret-NAME) or a reference in env",
                )


def _in_source(subject: Subject) -> Iterator[FieldMessage]:
    """In annotations of a Service or Configuration itself, which its pods do not inherit; etcd keeps them too."""
    if subject.source is None or "spec" not in subject.source or "template" not in (subject.source["spec"] or {}):
        return
    own = (subject.source.get("metadata") or {}).get("annotations") or {}
    left = _MOST_SEARCHED
    annotations = []
    for key, value in _searched(own):
        annotations.append((key, value[:left]))
        left = max(0, left - len(value))
    for field, message in _in_annotations(annotations, detector_of(subject.pod.configuration.plaintext)):
        yield OF_SOURCE + field, message


def _searched(annotations: dict[str, str]) -> list[tuple[str, str]]:
    return [
        (key, value)
        for key, value in annotations.items()
        if len(value) >= _SHORTEST and not key.startswith(PREFIX) and key not in _ANNOTATIONS_READ_ELSEWHERE
    ]


def _in_annotations(annotations: list[tuple[str, str]], detector: Detector) -> Iterator[tuple[str, str]]:
    for key, value in annotations:
        found = detector.find_format(value, name=key)
        if found is not None:
            yield (
                f"metadata.annotations[{display_name(key)}]",
                f"annotation {display_name(key)} holds what looks like a secret in plain text ({found.detector});"
                " store it in Vault",
            )


def _texts(container: Container) -> Iterator[tuple[str, str]]:
    """(field, text) of the container's texts outside env; the texts of one list are one, a line each."""
    lists: dict[str, list[str]] = {}
    for parent, member, text in texts(container.object, _READ_ELSEWHERE):
        if len(text) < _SHORTEST:
            continue
        if member:
            yield field_of(container, parent, member), text
        else:
            lists.setdefault(parent, []).append(text)
    for parent, words in lists.items():
        yield field_of(container, parent, ""), "\n".join(words)


RULE = Rule(
    id="secrets/plaintext-fields",
    severity=Severity.HIGH,
    summary="no argument, probe, hook or annotation holds a secret in plain text",
    check=check,
)
