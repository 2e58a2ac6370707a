"""Our annotations of a running pod stay as they were."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.consumers import shown
from webhook.rules.rule import Finding, Rule, Severity, Subject
from webhook.wellknown import INITDATA, PREFIX


def check(subject: Subject) -> Iterator[Finding]:
    if subject.old is None:
        return
    before, after = subject.old.own_annotations, subject.pod.own_annotations
    if subject.old.annotations.get(INITDATA) != subject.pod.annotations.get(INITDATA):
        yield f"metadata.annotations[{INITDATA}]", "the initdata of a running pod does not change; deploy it anew"
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield (
                f"metadata.annotations[{PREFIX}{shown(key)}]",
                "annotations of Morphisms do not change on a running pod; change the Service's template",
            )


RULE = Rule(
    id="isolation/annotation-change",
    severity=Severity.MEDIUM,
    summary="a running pod keeps its annotations",
    check=check,
)
