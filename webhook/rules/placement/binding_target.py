"""The node that a pod is bound to suits its profile, or any profile of the namespace; whoever binds it."""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.consumers import shown
from webhook.rules.rule import BindingSubject, Finding, Rule, Severity


def check(subject: BindingSubject) -> Iterator[Finding]:
    snapshot, configuration = subject.snapshot, subject.configuration
    if snapshot is None:
        return
    node = snapshot.nodes.get(subject.node)
    if node is None:
        yield (
            "target.name",
            f"node {shown(subject.node)} is not known to the cluster; bind the pod to a confidential node",
        )
        return
    reserved = configuration.reserved
    if subject.namespace not in reserved.namespaces:
        marks = {taint.key for taint in node.taints} | {key for key, _ in node.labels}
        if not marks.isdisjoint(reserved.keys):
            yield "target.name", f"node {node.name} has a single purpose; bind the pod to another"
            return
    if subject.pod is not None:
        profile = subject.pod.profile
        if profile is None or not profile.suits(node):
            yield "target.name", _unsuitable(node.name, profile.name if profile else "unknown")
        return
    allowed = (configuration.profile_by_name[name] for name in configuration.profiles_allowed_in(subject.namespace))
    # A profile without requirements says nothing of its nodes, so only the pod can tell that it is meant.
    profiles = [profile for profile in allowed if profile.requirements]
    if not any(profile.suits(node) for profile in profiles):
        yield "target.name", _unsuitable(node.name, " or ".join(sorted(profile.name for profile in profiles)))


def _unsuitable(node: str, profile: str) -> str:
    return f"node {node} is not a node of profile {profile}; let the scheduler choose by the pod's affinity"


RULE = Rule(
    id="placement/binding-target",
    severity=Severity.CRITICAL,
    summary="a pod is bound to a node that suits it",
    check=check,
    needed_for_injection=True,
    needs_cluster=True,
)
