"""The RuntimeClass exists and the profile accepts its live handler: a RuntimeClass created again may have runc."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    profile, snapshot = subject.pod.profile, subject.snapshot
    name = subject.pod.spec.get("runtimeClassName")
    if profile is None or snapshot is None or name not in profile.runtimeClasses:
        return
    runtime_class = snapshot.runtime_classes.get(name)
    if runtime_class is None:
        yield (
            "spec.runtimeClassName",
            f"RuntimeClass {name} does not exist in this cluster; the operator has to install Kata with SNP",
        )
    elif runtime_class.handler not in profile.handlers:
        yield (
            "spec.runtimeClassName",
            f"RuntimeClass {name} has a handler that profile {profile.name} does not accept;"
            f" the operator has to set it to {' or '.join(profile.handlers)}",
        )


RULE = Rule(
    id="placement/runtime-handler",
    severity=Severity.CRITICAL,
    summary="the RuntimeClass exists and its handler is accepted",
    check=check,
    needed_for_injection=True,
    needs_cluster=True,
)
