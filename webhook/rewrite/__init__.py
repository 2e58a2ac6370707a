"""The pod rewrite: six steps, explicit operations, the same again for a pod that was rewritten before.

`rewrite(pod, snapshot)` does all it can and judges nothing: the rules judge what comes out. That keeps mutation a
convenience, and validation the policy.
"""

from __future__ import annotations

from webhook.pod.pod import Pod
from webhook.rewrite.inject import inject_sidecar, set_status
from webhook.rewrite.patch import Patch
from webhook.rewrite.placement import confine_to_nodes, set_runtime_class
from webhook.rewrite.volumes import add_volumes, set_fs_group
from webhook.rewrite.wrap import wrap_consumers
from webhook.snapshot import Snapshot

__all__ = ["rewrite"]


def rewrite(pod: Pod, snapshot: Snapshot | None) -> Patch:
    """The operations that make the pod confidential, none when it is. Without a known profile nothing is done."""
    patch = Patch(pod.object)
    profile = pod.profile
    if profile is None:
        return patch
    set_runtime_class(patch, pod, profile, snapshot)
    confine_to_nodes(patch, pod, profile)
    if profile.injects and not pod.options.problems:
        # Consumers first: the container put among the init containers moves their places.
        wrap_consumers(patch, pod)
        inject_sidecar(patch, pod, profile)
        add_volumes(patch, pod)
        set_fs_group(patch, pod)
    set_status(patch, pod)
    return patch
