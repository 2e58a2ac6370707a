"""Users and groups that guest pull cannot look up: numbers that have to stand in the pod.

The runtime on the host has no layers of the images, so it finds neither a named user nor a user's group. Knative
names no group, and for queue-proxy no user either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from measured.image import Image, digest_of
from measured.refusal import member, objects

GROUPS: Final = ("initContainers", "containers")


def missing_users(
    pod: Mapping[str, Any], users: Mapping[str, Mapping[str, int]]
) -> Iterator[tuple[str, int, dict[str, int]]]:
    """(list of the spec, index, fields to add) for each container that leaves its user or group open.

    `users`: name of a container → `{runAsUser, runAsGroup}`. A field of the pod's own security context counts.
    """
    spec = member(pod, "spec")
    whole = member(spec, "securityContext")
    for group in GROUPS:
        for index, container in enumerate(objects(spec.get(group))):
            own = member(container, "securityContext")
            wanted = users.get(str(container.get("name")), {})
            missing = {
                name: value for name, value in wanted.items() if own.get(name) is None and whole.get(name) is None
            }
            if missing:
                yield group, index, missing


def users_of_images(pod: Mapping[str, Any], images: Mapping[str, Image]) -> dict[str, dict[str, int]]:
    """The users and groups that the images' configurations name by number; root's group where they name none."""
    found = {}
    for group in GROUPS:
        for container in objects(member(pod, "spec").get(group)):
            image = images.get(digest_of(container.get("image")) or "")
            if image is not None and image.uid is not None:
                found[str(container.get("name"))] = {"runAsUser": image.uid, "runAsGroup": image.gid}
    return found


def users_of_data(data: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """The users and groups that a policy's data names."""
    return {
        container["name"]: {"runAsUser": container["user"]["uid"], "runAsGroup": container["user"]["gid"]}
        for container in data["containers"]
    }
