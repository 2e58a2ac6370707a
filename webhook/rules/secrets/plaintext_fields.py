"""No argument, probe, hook or annotation holds a secret in plain text, by the formats that issuers publish.

Names say little here, so they are not read: only `plaintext_env` does that. A container is walked whole, so that every
field with a text is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from webhook.pod.container import Container, display_name
from webhook.pod.walk import field_of, texts
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
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
    pod = subject.pod
    detector = detector_of(pod.configuration.plaintext)
    annotations = [
        (key, value)
        for key, value in pod.annotations.items()
        if len(value) >= _SHORTEST and not key.startswith(PREFIX) and key not in _ANNOTATIONS_READ_ELSEWHERE
    ]
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
    for key, value in annotations:
        found = detector.find_format(value, name=key)
        if found is not None:
            yield (
                f"metadata.annotations[{display_name(key)}]",
                f"annotation {display_name(key)} holds what looks like a secret in plain text ({found.detector});"
                " store it in Vault",
            )
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
