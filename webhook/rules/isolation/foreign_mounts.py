"""The volumes of Morphisms are mounted only where injection mounts them, and read-only.

A container is walked whole, so that a field which reads a volume without mounting it is refused too, such as
`fileKeyRef` in env (Kubernetes 1.34), and a field that a later release adds.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

import msgspec

from plan.layout import RUN_PATH, RUN_VOLUME, SECRETS_PATH, SECRETS_VOLUME, TOKEN_VOLUME
from webhook.pod.container import Container
from webhook.pod.walk import field_of, texts
from webhook.rewrite.wrap import own_mount
from webhook.rules.rule import FieldMessage, Rule, Severity, Subject

_RESERVED_VOLUMES = (SECRETS_VOLUME, RUN_VOLUME, TOKEN_VOLUME)
_ALLOWED = (own_mount(SECRETS_VOLUME, SECRETS_PATH), own_mount(RUN_VOLUME, RUN_PATH))
_RESERVED_PATH = "/morphisms"
_ENCODER = msgspec.msgpack.Encoder()
_OURS = b"morphisms"  # stands in each of our volumes' names and in the path
# What injection itself writes our names into.
_NAMES_OURS = frozenset({"volumeMounts", "command", "args"})
# Texts of the author's own, which Kubernetes never takes for a volume's name; mounts are checked one by one.
_TEXTS = frozenset({"command", "args", "value", "image", "volumeMounts"})
# Paths inside a volume of the author's.
_INNER_PATHS = frozenset({"subPath", "subPathExpr"})


def check(subject: Subject) -> Iterator[FieldMessage]:
    pod = subject.pod
    others = [container for container in pod.containers if container is not pod.injected]
    if not _may_name_ours([container.object for container in others]):
        return
    consumers = {container.field for container in pod.consumers}
    for container in others:
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
        if _may_name_ours({key: value for key, value in container.object.items() if key not in _NAMES_OURS}):
            yield from _elsewhere(container)


def _may_name_ours(part: object) -> bool:
    """A quick look at the bytes of a part of the pod: most name nothing of ours anywhere."""
    try:
        return _OURS in _ENCODER.encode(part)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return True  # such as a number that does not fit into eight bytes


def _elsewhere(container: Container) -> Iterator[FieldMessage]:
    """Fields other than a mount that name one of our volumes, or a path in our tree."""
    for parent, member, text in texts(_without_plain_variables(container), _TEXTS):
        if text in _RESERVED_VOLUMES and (parent or member != "name"):
            problem = f"names volume {text}, which only injection uses; remove the field"
        elif member.endswith("Path") and member not in _INNER_PATHS and _is_inside(text):
            problem = f"names a path in {_RESERVED_PATH}, which is reserved; choose another path"
        else:
            continue
        yield field_of(container, parent, member), f"container {container.label} {problem}"


def _without_plain_variables(container: Container) -> dict[str, object]:
    """The container without variables that are only a name and a text: most of a container, and never of interest."""
    variables = container.object.get("env")
    if not variables:
        return container.object
    return {**container.object, "env": [each for each in variables if len(each) > 2 or "value" not in each]}


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
