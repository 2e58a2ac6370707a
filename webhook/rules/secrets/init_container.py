"""`morphisms-init` is present, equals a container template that is accepted, and comes before the application.

The guest is attested before a container of the author's runs in it. A mesh's own init containers and native proxy may
come before: they carry the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plan import layout
from plan.document import PlanError
from webhook.configuration.profiles import Profile
from webhook.pod.pod import Pod
from webhook.rewrite.inject import is_intact, is_native_proxy, sidecar_container
from webhook.rewrite.template_choice import why_not_accepted
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject
from webhook.wellknown import MESH_INIT_CONTAINERS


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod, profile = subject.pod, subject.pod.profile
    if profile is None or not profile.injects or pod.options.problems:
        return
    templates = subject.snapshot.templates if subject.snapshot is not None else None
    injected = pod.injected
    if injected is None:
        reason = None if pod.named_template is None else why_not_accepted(pod, templates)
        if reason is not None:
            yield "spec.initContainers", f"{layout.CONTAINER} {reason}"
        elif templates is not None and not pod.template_is_usable:
            yield "spec.initContainers", templates.why_unusable
        else:
            yield "spec.initContainers", _reason_missing(pod, profile)
        return
    if pod.plan is None:
        yield (
            f"{injected.field}.env",
            f"the plan in {layout.CONTAINER} cannot be read; remove the container, injection adds it",
        )
    elif subject.old is None and not subject.just_rewritten and not _equals_template(injected.object, pod, profile):
        reason = why_not_accepted(pod, templates) or "differs from the template; remove it, injection adds it"
        yield injected.field, f"{layout.CONTAINER} {reason}"
    for container in pod.containers:
        if container.group != "initContainers" or container.position >= injected.position:
            continue
        if container in pod.consumers:
            reason = "needs its secrets"
        elif container.name in MESH_INIT_CONTAINERS or is_native_proxy(container.object):
            continue
        else:
            reason = "would run before the guest is attested"
        yield injected.field, f"{layout.CONTAINER} comes after {container.label}, which {reason}; move it to the front"


def _reason_missing(pod: Pod, profile: Profile) -> str:
    try:
        sidecar_container(pod, profile)
    except PlanError as error:
        return str(error)
    return f"the pod lacks {layout.CONTAINER}, so nothing attests its guest"


def _equals_template(container: dict[str, Any], pod: Pod, profile: Profile) -> bool:
    try:
        return is_intact(container, sidecar_container(pod, profile))
    except PlanError:
        return False


RULE = Rule(
    id="secrets/init-container",
    severity=Severity.CRITICAL,
    summary="the attesting init container is present and intact",
    check=check,
    needed_for_injection=True,
)
