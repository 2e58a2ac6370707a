"""The annotations of Morphisms, and the initdata, do not change on a running pod."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.container import display_name
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
from webhook.wellknown import INITDATA, PREFIX


def check(subject: Subject) -> Iterator[FieldMessage]:
    if subject.old is None:
        return
    before, after = subject.old.own_annotations, subject.pod.own_annotations
    if subject.old.annotations.get(INITDATA) != subject.pod.annotations.get(INITDATA):
        yield (
            f"metadata.annotations[{INITDATA}]",
            "initdata cannot change on a running pod; deploy a new Revision instead",
        )
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield (
                f"metadata.annotations[{PREFIX}{display_name(key)}]",
                "annotations of Morphisms cannot change on a running pod; change the Service's template instead",
            )


RULE = Rule(
    id="isolation/annotation-change",
    severity=Severity.MEDIUM,
    summary="a running pod keeps its annotations",
    check=check,
)
