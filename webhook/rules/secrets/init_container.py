"""`morphisms-init` is there, as the template has it, and before everyone who needs it."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar import plan as contract
from webhook.rewrite.sidecar import is_intact, sidecar_container
from webhook.rules.rule import Finding, Rule, Severity, Subject


def check(subject: Subject) -> Iterator[Finding]:
    pod, profile = subject.pod, subject.pod.profile
    if profile is None or not profile.injects or pod.wishes.problems:
        return
    try:
        wanted = sidecar_container(pod, profile)
    except contract.PlanError as error:
        yield "metadata.annotations", str(error)
        return
    injected = pod.injected
    if injected is None:
        yield "spec.initContainers", f"the pod lacks {contract.CONTAINER}, so nothing attests its guest"
        return
    if pod.plan is None:
        yield (
            f"{injected.field}.env",
            f"the plan in {contract.CONTAINER} cannot be read; leave the container to injection",
        )
    elif subject.old is None and not is_intact(injected.object, wanted):
        yield injected.field, f"{contract.CONTAINER} differs from the template; leave the container to injection"
    for container in pod.containers:
        if container.group == "initContainers" and container.index < injected.index and container in pod.consumers:
            yield injected.field, f"{contract.CONTAINER} comes after {container.name}, which needs its secrets"


RULE = Rule(
    id="secrets/init-container",
    severity=Severity.CRITICAL,
    summary="the attesting init container is present and intact",
    check=check,
    needed_for_injection=True,
)
