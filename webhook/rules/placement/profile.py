"""The isolation profile exists and may be used in the namespace."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import FieldMessage, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    if pod.profile is None:
        allowed = ", ".join(sorted(pod.configuration.profiles_allowed_in(pod.namespace)))
        yield (
            "metadata.annotations[morphisms.dev/profile]",
            f"the isolation profile does not exist or is not allowed in this namespace; use one of: {allowed}",
        )


RULE = Rule(
    id="placement/profile",
    severity=Severity.CRITICAL,
    summary="the pod's isolation profile exists and its namespace may use it",
    check=check,
    needed_for_injection=True,
)
