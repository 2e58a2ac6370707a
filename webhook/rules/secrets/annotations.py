"""The pod's annotations of Morphisms are well formed."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.container import display_name
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
from webhook.wellknown import PREFIX


def check(subject: Subject) -> Iterator[FieldMessage]:
    for problem in subject.pod.options.problems:
        key = f"{PREFIX}{display_name(problem.key)}"
        yield f"metadata.annotations[{key}]", f"annotation {key} {problem.message}"


RULE = Rule(
    id="secrets/annotations",
    severity=Severity.HIGH,
    summary="annotations of Morphisms are well formed",
    check=check,
    needed_for_injection=True,
)
