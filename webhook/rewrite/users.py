"""Step 6: the users and groups of a measured pod, as its initdata document names them."""

from __future__ import annotations

from measured.users import missing_users, users_of_data
from webhook.pod.pod import Pod
from webhook.rewrite.patch import Patch


def set_users(patch: Patch, pod: Pod) -> None:
    """Write each user and group that a container leaves open: queue-proxy's, which no author can write."""
    if pod.measured is None:
        return
    for group, index, missing in missing_users(patch.result, users_of_data(pod.measured.data)):
        path = ("spec", group, index, "securityContext")
        security = patch.result["spec"][group][index].get("securityContext")
        if security:
            for name, value in missing.items():
                patch.add((*path, name), value)
        else:
            patch.add(path, missing)
