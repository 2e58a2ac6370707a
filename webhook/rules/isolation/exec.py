"""Only exempt groups may exec into, attach to, or forward ports of pods that hold attested secrets."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.rules.rule import ConnectSubject, FieldMessage, Rule, Severity
from webhook.wellknown import KMS_NAMESPACE


def check(subject: ConnectSubject) -> Iterator[FieldMessage]:
    if subject.namespace == KMS_NAMESPACE:
        # Its memory holds what every workload's secrets depend on, so execGroups exempts no group here.
        yield (
            "",
            f"{subject.subresource} into the key server is refused for every group; read its logs and metrics instead",
        )
        return
    if set(subject.user.groups).isdisjoint(subject.configuration.execGroups):
        yield (
            "",
            f"{subject.subresource} into confidential pods is refused;"
            " the operator can exempt one of your groups in execGroups",
        )


RULE = Rule(
    id="isolation/exec",
    severity=Severity.HIGH,
    summary="no exec, attach or port-forward",
    check=check,
)
