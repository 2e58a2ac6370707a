"""A running pod keeps its images."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    if subject.old is None:
        return
    images_before = {(each.group, each.name): each.object.get("image") for each in subject.old.containers}
    for container in subject.pod.containers:
        image = images_before.get((container.group, container.name))
        if image is not None and image != container.object.get("image"):
            yield (
                f"{container.field}.image",
                f"the image of container {container.label} was replaced after admission; deploy a new Revision instead",
            )


RULE = Rule(
    id="images/replaced",
    severity=Severity.HIGH,
    summary="a running pod keeps its images",
    check=check,
)
