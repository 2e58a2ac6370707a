"""The names of our container and volumes, and its port, are not taken by something else."""

from __future__ import annotations

from collections.abc import Iterator

from plan.layout import CONTAINER, HEALTH_PORT, RUN_VOLUME, SECRETS_VOLUME, TOKEN_VOLUME
from webhook.rules.rule import Finding, Rule, Severity, Subject

_VOLUMES = frozenset((SECRETS_VOLUME, RUN_VOLUME, TOKEN_VOLUME))


def check(subject: Subject) -> Iterator[Finding]:
    pod = subject.pod
    named = [container for container in pod.containers if container.name == CONTAINER]
    for container in named:
        if container is not pod.injected or (pod.profile is not None and not pod.profile.injects):
            yield f"{container.field}.name", f"rename the container; {CONTAINER} is the name of the injected one"
    ours = [volume["name"] for volume in pod.spec.get("volumes") or () if volume.get("name") in _VOLUMES]
    for name in sorted({name for name in ours if ours.count(name) > 1}):
        yield "spec.volumes", f"volume {name} appears twice; rename yours"
    for container in pod.application:
        for index, port in enumerate(container.object.get("ports") or ()):
            if port.get("containerPort") == HEALTH_PORT:
                yield f"{container.field}.ports[{index}]", f"use a port other than {HEALTH_PORT}, which is reserved"


RULE = Rule(
    id="isolation/reserved-names",
    severity=Severity.HIGH,
    summary="reserved names and ports are not used by others",
    check=check,
    needed_for_injection=True,
)
