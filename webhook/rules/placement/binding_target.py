"""The node that a pod is bound to fits its profile, whichever user binds it.

Where the pod is not known, the node has to fit some profile that the namespace may use.
"""

from __future__ import annotations

from collections.abc import Iterator

from webhook.pod.container import display_name
from webhook.rules.rule import BindingSubject, FieldMessage, Rule, Severity


def check(subject: BindingSubject) -> Iterator[FieldMessage]:
    snapshot, configuration = subject.snapshot, subject.configuration
    if snapshot is None:
        return
    node = snapshot.nodes.get(subject.node)
    if node is None:
        yield (
            "target.name",
            f"node {display_name(subject.node)} does not exist in the cluster; bind the pod to a confidential node",
        )
        return
    reserved = configuration.reserved
    if subject.namespace not in reserved.namespaces:
        keys = {taint.key for taint in node.taints} | {key for key, _ in node.labels}
        if not keys.isdisjoint(reserved.keys):
            yield "target.name", f"node {node.name} is reserved for a single purpose; bind the pod to another node"
            return
    if subject.pod is not None:
        profile = subject.pod.profile
        if profile is None or not profile.suits(node):
            yield "target.name", _unsuitable(node.name, profile.name if profile else "unknown")
        return
    allowed = (configuration.profile_by_name[name] for name in configuration.profiles_allowed_in(subject.namespace))
    # A profile without requirements fits every node, so it counts only where the pod itself uses it.
    profiles = [profile for profile in allowed if profile.requirements]
    if not any(profile.suits(node) for profile in profiles):
        yield "target.name", _unsuitable(node.name, " or ".join(sorted(profile.name for profile in profiles)))


def _unsuitable(node: str, profile: str) -> str:
    return f"node {node} is not a node of profile {profile}; let the scheduler choose the node by the pod's affinity"


RULE = Rule(
    id="placement/binding-target",
    severity=Severity.CRITICAL,
    summary="a pod is bound to a node that fits its profile",
    check=check,
    needed_for_injection=True,
    needs_cluster=True,
)
