"""Only the injected container and volumes have their names, and only that container has its port."""

from __future__ import annotations

from collections.abc import Iterator

from plan.layout import CONTAINER, HEALTH_PORT, RUN_VOLUME, SECRETS_VOLUME, TOKEN_VOLUME
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject

_RESERVED_VOLUMES = frozenset((SECRETS_VOLUME, RUN_VOLUME, TOKEN_VOLUME))


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    for container in pod.containers:
        if container.name != CONTAINER:
            continue
        if container is not pod.injected or (pod.profile is not None and not pod.profile.injects):
            yield (
                f"{container.field}.name",
                f"rename the container: the name {CONTAINER} is reserved for the injected one",
            )
    reserved = [volume["name"] for volume in pod.spec.get("volumes") or () if volume.get("name") in _RESERVED_VOLUMES]
    if len(reserved) != len(set(reserved)):
        for name in sorted({name for name in reserved if reserved.count(name) > 1}):
            yield "spec.volumes", f"two volumes have the reserved name {name}; rename yours"
    for container in pod.application:
        for index, port in enumerate(container.object.get("ports") or ()):
            if port.get("containerPort") == HEALTH_PORT:
                yield f"{container.field}.ports[{index}]", f"use a port other than {HEALTH_PORT}, which is reserved"


RULE = Rule(
    id="isolation/reserved-names",
    severity=Severity.HIGH,
    summary="reserved names and ports are not used by other containers and volumes",
    check=check,
    needed_for_injection=True,
)
