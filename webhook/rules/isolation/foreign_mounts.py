"""Our volumes are mounted where we mount them, read-only, and nowhere else."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from sidecar.plan import RUN_PATH, RUN_VOLUME, SECRETS_PATH, SECRETS_VOLUME, TOKEN_VOLUME
from webhook.rewrite.application import own_mount
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
            field = f"{container.field}.volumeMounts[{index}]"
            if mount.get("name") in _OURS:
                if mount not in _ALLOWED or container.field not in consumers:
                    yield (
                        field,
                        f"container {container.label} may not mount this volume of Morphisms so; remove the mount",
                    )
            elif _is_inside(str(mount.get("mountPath") or "")):
                yield field, f"container {container.label} mounts a volume over {_TREE}; choose another path"


def _is_inside(path: str) -> bool:
    plain = posixpath.normpath("/" + path.lstrip("/"))
    return plain == _TREE or plain.startswith(_TREE + "/")


RULE = Rule(
    id="isolation/foreign-mounts",
    severity=Severity.CRITICAL,
    summary="nobody else mounts the secrets",
    check=check,
    needed_for_injection=True,
)
