"""Which container template a pod is injected with, or was.

A pod that carries `morphisms-init` belongs to the accepted template that makes exactly this container and these
volumes. Its status annotation only says where to look first, because every author can write one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from plan.document import Plan, PlanError
from webhook.configuration.accepted_templates import AcceptedTemplates
from webhook.configuration.container_template import ContainerTemplate
from webhook.configuration.model import Configuration
from webhook.pod.pod import Pod
from webhook.rewrite.inject import is_intact, sidecar_container
from webhook.rewrite.status import template_in_status
from webhook.rewrite.volumes import has_injected_volumes
from webhook.snapshot import Snapshot


class Chosen(NamedTuple):
    """A pod with its template; `is_injected`: it was compared, and is just what the template makes of it."""

    pod: Pod
    is_injected: bool


def choose_template(
    item: dict[str, Any], namespace: str, configuration: Configuration, snapshot: Snapshot | None
) -> Chosen:
    """The pod with the template that it was injected with, else with the one that new pods get."""
    templates = None if snapshot is None else snapshot.templates
    pod = with_rendered_template(item, namespace, configuration, snapshot)
    if templates is None or pod.injected is None:
        return Chosen(pod, False)
    plan = pod.plan
    for template in _in_order(pod, templates):
        if plan is not None and _may_have_made(template, pod.injected.object, plan):
            candidate = pod if template is pod.template else Pod(item, namespace, configuration, template=template)
            if _was_injected(candidate):
                return Chosen(candidate, True)
    return Chosen(pod, False)


def with_rendered_template(
    item: dict[str, Any], namespace: str, configuration: Configuration, snapshot: Snapshot | None, service: str = ""
) -> Pod:
    """The pod with the template that new pods get, or that it was measured with."""
    if snapshot is None or snapshot.templates is None:
        return Pod(item, namespace, configuration, service)
    rendered = snapshot.templates.rendered(configuration)
    pod = Pod(item, namespace, configuration, service, rendered)
    pod.template_is_usable = rendered is not None
    if pod.named_template is None:
        return pod
    named = snapshot.templates.by_digest.get(pod.named_template)
    measured = Pod(item, namespace, configuration, service, named)
    measured.template_is_usable = named is not None
    return measured


def why_not_accepted(pod: Pod, templates: AcceptedTemplates | None) -> str | None:
    """Why the template that the pod's status names is not accepted; None where it is, or the pod names none."""
    digest = pod.named_template or template_in_status(pod)
    if templates is None or digest is None or digest in templates.by_digest or digest == pod.template.digest:
        return None
    if pod.named_template is not None:
        why = "was revoked" if digest in templates.revoked else "this replica does not know, or that was removed"
        return f"cannot be injected by container template sha256:{digest[:12]}…, which {why}; render the pod again"
    why = "was revoked" if digest in templates.revoked else "this replica does not know, or that was removed"
    return f"was injected by container template sha256:{digest[:12]}…, which {why}; create the pod again"


def _in_order(pod: Pod, templates: AcceptedTemplates) -> Iterator[ContainerTemplate]:
    """Every accepted template, the likeliest first."""
    named = templates.by_digest.get(template_in_status(pod) or "")
    if named is not None:
        yield named
    for template in templates.accepted(pod.configuration):
        if template is not named:
            yield template


def _may_have_made(template: ContainerTemplate, container: dict[str, Any], plan: Plan) -> bool:
    """Whether what is cheap to compare is equal: a pod must not cost a whole comparison for each template."""
    verifier, vault = template.verifier, template.vault
    return (
        container.get("image") == template.sidecar.image
        and plan.workload.cluster == template.cluster
        and plan.deadline_seconds == template.sidecar.deadlineSeconds
        and (plan.verifier.url, plan.verifier.ca, plan.verifier.audience)
        == (verifier.url, verifier.ca, verifier.audience)
        and (plan.vault.url, plan.vault.ca) == (vault.url, vault.ca)
        and dict(plan.vault.mounts) == vault.mounts
    )


def _was_injected(pod: Pod) -> bool:
    """Whether the pod's `morphisms-init` and volumes are just those that its template makes."""
    profile, injected = pod.profile, pod.injected
    if injected is None or profile is None or not profile.injects or pod.options.problems:
        return False
    try:
        wanted = sidecar_container(pod, profile)
    except PlanError:
        return False
    return is_intact(injected.object, wanted) and has_injected_volumes(pod)
