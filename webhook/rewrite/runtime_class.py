"""Step 1: the profile's RuntimeClass."""

from __future__ import annotations

from webhook.configuration.profiles import Profile
from webhook.pod.pod import Pod
from webhook.rewrite.patch import Patch
from webhook.snapshot import Snapshot


def set_runtime_class(patch: Patch, pod: Pod, profile: Profile, snapshot: Snapshot | None) -> None:
    """Set the profile's RuntimeClass. A different one stays, for a rule to refuse, unless configured to be replaced.

    Replacing drops `overhead`, which the RuntimeClass admission plugin set from the old class and would refuse beside
    the new one, and the nodeSelector entries that the plugin merged from it.
    """
    if not profile.runtimeClasses:
        return
    current = pod.spec.get("runtimeClassName")
    wanted = profile.runtimeClasses[0]
    if not current:
        patch.add(("spec", "runtimeClassName"), wanted)
    elif current not in profile.runtimeClasses and pod.configuration.runtimeClassConflict == "replace":
        patch.replace(("spec", "runtimeClassName"), wanted)
        if "overhead" in pod.spec:
            patch.remove(("spec", "overhead"))
        old = snapshot.runtime_classes.get(current) if snapshot else None
        selector = pod.spec.get("nodeSelector") or {}
        for key, value in old.node_selector if old else ():
            if selector.get(key) == value:
                patch.remove(("spec", "nodeSelector", key))
