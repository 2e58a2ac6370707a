"""Single objects by name: where one is, and one that is kept current."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from server.kubernetes.client import Client, Object
from server.kubernetes.reflector import TIMING, Collection, Reflector, ReflectorTiming
from server.kubernetes.untyped import mapping, text


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """Where an object is: the path of its collection, and its name."""

    collection: str
    name: str

    @property
    def path(self) -> str:
        """The object's own path."""
        return f"{self.collection}/{self.name}"

    @property
    def resource(self) -> str:
        """The resource's name, such as `secrets`."""
        return self.collection.rpartition("/")[2]


class WatchedObject:
    """One object, kept current by `run`. `changed` is called after each change, and once it is known."""

    def __init__(self, ref: ObjectRef, changed: Callable[[], None], timing: ReflectorTiming = TIMING) -> None:
        self.ref = ref
        collection = Collection(f"{ref.resource}/{ref.name}", ref.collection, ref.name)
        self._reflector: Reflector[Object] = Reflector(collection, lambda found: found, timing=timing, changed=changed)

    @property
    def is_known(self) -> bool:
        """Whether the server has said what it is, or that it does not exist."""
        return self._reflector.is_listed

    @property
    def value(self) -> Object | None:
        """The object; None when it does not exist, or is not known yet."""
        return self._reflector.records.get(self.ref.name)

    def accept(self, value: Object) -> None:
        """Take the answer to a write."""
        self._reflector.accept(self.ref.name, value)

    async def run(self, client: Client) -> None:
        """List and watch until cancelled."""
        await self._reflector.run(client)


def version_of(value: Mapping[str, Any] | None) -> str:
    """The object's resourceVersion; empty when there is none."""
    return text(mapping(mapping(value).get("metadata")).get("resourceVersion"))
