"""Step 3: the consumers: references leave the environment, the exec helper wraps the command, volumes are mounted."""

from __future__ import annotations

from typing import Any

from plan.layout import EXEC_HELPER, RUN_PATH, RUN_VOLUME, SECRETS_PATH, SECRETS_VOLUME
from webhook.pod.container import Container
from webhook.pod.pod import Pod
from webhook.rewrite.patch import Patch


def wrap_consumers(patch: Patch, pod: Pod) -> None:
    """Rewrite each container that gets secrets; one with a problem keeps its references, for a rule to refuse."""
    references = {each.container.field: each for each in pod.references}
    for consumer in pod.consumers:
        found = references.get(consumer.field)
        if found is not None and found.problems:
            continue
        wraps = pod.receives_env(consumer)
        if wraps and not consumer.object.get("command"):
            continue
        path = ("spec", consumer.group, consumer.position)
        for index in reversed(found.indices if found else ()):
            patch.remove((*path, "env", index))
        if wraps and not consumer.is_wrapped:
            _wrap(patch, path, consumer)
        _mount(patch, path, consumer, wraps)


def _wrap(patch: Patch, path: tuple[str | int, ...], consumer: Container) -> None:
    command, arguments = consumer.object["command"], consumer.object.get("args") or []
    patch.replace((*path, "command"), [EXEC_HELPER, consumer.name, "--", *command, *arguments])
    if "args" in consumer.object:
        patch.remove((*path, "args"))


def _mount(patch: Patch, path: tuple[str | int, ...], consumer: Container, wraps: bool) -> None:
    wanted = [own_mount(SECRETS_VOLUME, SECRETS_PATH)]
    if wraps:
        wanted.append(own_mount(RUN_VOLUME, RUN_PATH))
    present = consumer.object.get("volumeMounts") or []
    names = {mount.get("name") for mount in present}
    missing = [mount for mount in wanted if mount["name"] not in names]
    patch.extend((*path, "volumeMounts"), present, missing)


def own_mount(volume: str, path: str) -> dict[str, Any]:
    """A consumer's read-only mount of one of our volumes."""
    return {"name": volume, "mountPath": path, "readOnly": True}
