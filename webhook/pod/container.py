"""One container of a pod: where it stands, what it is called, whether its command runs through the exec helper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, Final, NamedTuple

from plan.layout import CONTAINER, EXEC_HELPER
from server.text import printable
from webhook.wellknown import INIT_CONTAINER, USER_CONTAINER

_GROUPS: Final = ("initContainers", "containers", "ephemeralContainers")
_LONGEST_NAME: Final = 63


class Container(NamedTuple):
    """One container and where it stands: `group` is containers, initContainers or ephemeralContainers."""

    group: str
    position: int
    name: str
    object: dict[str, Any]

    @property
    def label(self) -> str:
        """The name, made safe for a message."""
        return display_name(self.name)

    @property
    def field(self) -> str:
        """The field's path as Kubernetes' own messages write it, such as `spec.containers[0]`."""
        return f"spec.{self.group}[{self.position}]"

    @property
    def is_wrapped(self) -> bool:
        """Whether the command runs through the exec helper already."""
        return (self.object.get("command") or [])[:3] == [EXEC_HELPER, self.name, "--"]


def containers_of(spec: dict[str, Any]) -> tuple[Container, ...]:
    """Every container of a pod spec of checked shape: init containers first, then the others, ephemeral ones last."""
    found: list[Container] = []
    for group in _GROUPS:
        containers = spec.get(group)
        if not containers:
            continue
        names = [container.get("name") for container in containers]
        named = names if all(names) else _with_knative_defaults(names, group, spec)
        found += [Container(group, index, named[index], each) for index, each in enumerate(containers)]
    return tuple(found)


def _with_knative_defaults(names: Sequence[str | None], group: str, spec: dict[str, Any]) -> list[str]:
    """The names that Knative completes: it counts the unnamed containers where there are several, past taken names.

    As applyDefaultContainerNames does it (knative.dev/serving pkg/apis/serving/v1, revision_defaults.go).
    """
    default = INIT_CONTAINER if group == "initContainers" else USER_CONTAINER
    taken = {each.get("name") for other in ("containers", "initContainers") for each in spec.get(other) or ()}
    numbered = (name for number in count() if (name := f"{default}-{number}") not in taken)
    # Knative has given the names before morphisms-init comes to the pod.
    alone = sum(name != CONTAINER for name in names) == 1 and default not in taken
    return [name or (default if alone else next(numbered)) for name in names]


def display_name(name: str) -> str:
    """An untrusted name, made safe for a message: printable, and at most as long as Kubernetes' names are."""
    return printable(name[:_LONGEST_NAME])
