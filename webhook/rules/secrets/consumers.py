"""It is clear which containers get the secrets, and each of them can."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.consumers import is_wrapped, missing_command, shown
from webhook.rules.rule import Finding, Rule, Severity, Subject

_FIELD = "metadata.annotations[morphisms.dev/containers]"


def check(subject: Subject) -> Iterator[Finding]:
    pod = subject.pod
    wishes = pod.wishes
    names = {container.name for container in pod.application if container.group != "ephemeralContainers"}
    for name in wishes.containers or ():
        if name not in names:
            yield _FIELD, f"names container {shown(name)}, which the pod does not have or which gets no secrets"
    if (wishes.secrets or wishes.env_from) and not pod.consumers:
        yield _FIELD, "the pod has several containers and none is known to serve; name those that get secrets"
    takers = pod.plan_takers
    for consumer in pod.consumers:
        if not consumer.object.get("command"):
            if wishes.env_from:
                yield f"{consumer.field}.command", missing_command(consumer.name)
        elif consumer.name in takers and not is_wrapped(consumer.object, consumer.name):
            yield (
                f"{consumer.field}.command",
                f"container {consumer.name} gets secrets as env, but its command bypasses the exec helper",
            )


RULE = Rule(
    id="secrets/consumers",
    severity=Severity.HIGH,
    summary="the containers that get secrets are known and able to",
    check=check,
    needed_for_injection=True,
)
