"""Our volumes are mounted where we mount them, read-only, and nowhere else."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from plan.layout import RUN_PATH, RUN_VOLUME, SECRETS_PATH, SECRETS_VOLUME, TOKEN_VOLUME
from webhook.rewrite.wrap import own_mount
from webhook.rules.rule import Finding, Rule, Severity, Subject

_OURS = (SECRETS_VOLUME, RUN_VOLUME, TOKEN_VOLUME)
_ALLOWED = (own_mount(SECRETS_VOLUME, SECRETS_PATH), own_mount(RUN_VOLUME, RUN_PATH))
_TREE = "/morphisms"


def check(subject: Subject) -> Iterator[Finding]:
    pod = subject.pod
    consumers = {container.field for container in pod.consumers}
    for container in pod.containers:
        if container is pod.injected:
            continue
        for index, mount in enumerate(container.object.get("volumeMounts") or ()):
            if mount.get("name") in _OURS:
                if mount in _ALLOWED and container.field in consumers:
                    continue
                problem = "may not mount this volume of Morphisms so; remove the mount"
            elif _is_inside(mount.get("mountPath") or ""):
                problem = f"mounts a volume over {_TREE}; choose another path"
            else:
                continue
            yield f"{container.field}.volumeMounts[{index}]", f"container {container.label} {problem}"


def _is_inside(path: str) -> bool:
    """Whether the path leads into our tree, by whatever detour."""
    if _TREE[1:] not in path:
        return False
    plain = posixpath.normpath("/" + path.lstrip("/"))
    return plain == _TREE or plain.startswith(_TREE + "/")


RULE = Rule(
    id="isolation/foreign-mounts",
    severity=Severity.CRITICAL,
    summary="nobody else mounts the secrets",
    check=check,
    needed_for_injection=True,
)
