"""The guest can read the initdata document: one that it cannot read would fail there, late and without a message."""

from __future__ import annotations

from collections.abc import Iterator

from measured.initdata import InitdataError, read_initdata
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
from webhook.wellknown import INITDATA


def check(subject: Subject) -> Iterator[FieldMessage]:
    encoded = subject.pod.annotations.get(INITDATA)
    if encoded is None:
        return
    try:
        read_initdata(encoded)
    except InitdataError as error:
        yield f"metadata.annotations[{INITDATA}]", f"the initdata {error}"


RULE = Rule(
    id="isolation/initdata",
    severity=Severity.HIGH,
    summary="the initdata document is well formed",
    check=check,
    needed_for_injection=True,
)
