"""One container of a pod: where it stands, what it is called, whether its command runs through the exec helper."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from plan.layout import EXEC_HELPER
from server.text import printable
from webhook.wellknown import USER_CONTAINER

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


def containers_of(spec: dict[str, Any]) -> Iterator[Container]:
    """Every container of a pod spec of checked shape: init containers first, then the others, ephemeral ones last."""
    for group in _GROUPS:
        containers = spec.get(group) or ()
        for index, container in enumerate(containers):
            name = container.get("name") or knative_default_name(index, len(containers))
            yield Container(group, index, name, container)


def knative_default_name(index: int, count: int) -> str:
    """Knative's name for a container that its author left unnamed: numbered by place where there are several."""
    return USER_CONTAINER if count == 1 else f"{USER_CONTAINER}-{index}"


def display_name(name: str) -> str:
    """An untrusted name, made safe for a message: printable, and at most as long as Kubernetes' names are."""
    return printable(name[:_LONGEST_NAME])
