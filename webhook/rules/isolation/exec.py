"""Nobody execs into, attaches to or forwards ports of pods that hold attested secrets, but for exempt groups."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import ConnectSubject, Finding, Rule, Severity


def check(subject: ConnectSubject) -> Iterator[Finding]:
    if set(subject.user.groups).isdisjoint(subject.configuration.execGroups):
        yield (
            "",
            f"{subject.subresource} into confidential pods is refused;"
            " the operator may exempt a group of yours in execGroups",
        )


RULE = Rule(
    id="isolation/exec",
    severity=Severity.HIGH,
    summary="no exec, attach or port-forward",
    check=check,
)
