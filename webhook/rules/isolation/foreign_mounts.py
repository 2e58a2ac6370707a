"""The volumes of Morphisms are mounted only where injection mounts them, and read-only."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from plan.layout import RUN_PATH, RUN_VOLUME, SECRETS_PATH, SECRETS_VOLUME, TOKEN_VOLUME
from webhook.rewrite.wrap import own_mount
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject

_RESERVED_VOLUMES = (SECRETS_VOLUME, RUN_VOLUME, TOKEN_VOLUME)
_ALLOWED = (own_mount(SECRETS_VOLUME, SECRETS_PATH), own_mount(RUN_VOLUME, RUN_PATH))
_RESERVED_PATH = "/morphisms"


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    consumers = {container.field for container in pod.consumers}
    for container in pod.containers:
        if container is pod.injected:
            continue
        for index, mount in enumerate(container.object.get("volumeMounts") or ()):
            if mount.get("name") in _RESERVED_VOLUMES:
                if mount in _ALLOWED and container.field in consumers:
                    continue
                problem = (
                    f"cannot mount volume {mount['name']} here; remove the mount, injection adds those that are needed"
                )
            elif _is_inside(mount.get("mountPath") or ""):
                problem = f"mounts a volume in {_RESERVED_PATH}, which is reserved; choose another mountPath"
            else:
                continue
            yield f"{container.field}.volumeMounts[{index}]", f"container {container.label} {problem}"


def _is_inside(path: str) -> bool:
    """Whether the path leads into the reserved tree, also through `..`."""
    if _RESERVED_PATH[1:] not in path:
        return False
    normal = posixpath.normpath("/" + path.lstrip("/"))
    return normal == _RESERVED_PATH or normal.startswith(_RESERVED_PATH + "/")


RULE = Rule(
    id="isolation/foreign-mounts",
    severity=Severity.CRITICAL,
    summary="only the containers that get secrets mount them",
    check=check,
    needed_for_injection=True,
)
