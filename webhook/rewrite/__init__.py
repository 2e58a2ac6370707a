"""The pod rewrite, as explicit operations in this order (the steps' modules cite their numbers):

1. `runtime_class`: the profile's RuntimeClass
2. `affinity`: the profile's nodes, ANDed into every node selector term; tolerations
3. `wrap`: the consumers' mounts, environment and command
4. `inject`: the container `morphisms-init`. After step 3, because it moves the places of init containers
5. `mesh`: the ports that a service mesh leaves alone
6. `users`: of a measured pod, the users and groups that its initdata document names
7. `volumes`: the volumes, and the group that reads the files
8. `status`: the status annotation, last, because an unchanged pod keeps its own

A rewritten pod comes out unchanged. `rewrite(pod, snapshot)` does all it can and checks nothing: the rules check the
result. That keeps mutation a convenience, and validation the policy.
"""

from __future__ import annotations

from webhook.pod.pod import Pod
from webhook.rewrite.affinity import confine_to_nodes
from webhook.rewrite.inject import inject_sidecar
from webhook.rewrite.mesh import exclude_ports
from webhook.rewrite.patch import Patch
from webhook.rewrite.runtime_class import set_runtime_class
from webhook.rewrite.status import set_status
from webhook.rewrite.users import set_users
from webhook.rewrite.volumes import add_volumes, set_fs_group
from webhook.rewrite.wrap import wrap_consumers
from webhook.snapshot import Snapshot

__all__ = ["rewrite"]


def rewrite(pod: Pod, snapshot: Snapshot | None) -> Patch:
    """The operations that make the pod confidential; none when it is already, or when its profile is unknown."""
    patch = Patch(pod.object)
    profile = pod.profile
    if profile is None:
        return patch
    set_runtime_class(patch, pod, profile, snapshot)
    confine_to_nodes(patch, pod, profile)
    if profile.injects and not pod.options.problems and pod.template_is_usable:
        wrap_consumers(patch, pod)
        inject_sidecar(patch, pod, profile)
        exclude_ports(patch, pod)
        set_users(patch, pod)
        add_volumes(patch, pod)
        set_fs_group(patch, pod)
    set_status(patch, pod)
    return patch
