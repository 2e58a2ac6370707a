"""The translation of one foreign annotation, or of several that belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from webhook.configuration.model import Configuration
from webhook.pod.container import containers_of


@dataclass(frozen=True, slots=True)
class Note:
    """A message about `key`, a foreign annotation without its prefix. Never holds a value."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """Foreign annotations (keys without their prefix) and their translation.

    With `left` they stay, and it says every reason; `harmless` when the other injector does nothing with them.
    Otherwise they go, `own` takes their place (keys without our prefix), and `notes` say what is not quite the same.
    Neither `own` nor `notes` means: nothing was lost.
    """

    keys: tuple[str, ...]
    own: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    left: tuple[Note, ...] = ()
    harmless: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """The input of a translation: the foreign annotations without prefix, ours without prefix, the pod's spec.

    `knative`: the pod is a Knative Service's, which names the containers that its author left unnamed.
    """

    foreign: Mapping[str, str]
    native: Mapping[str, str]
    spec: Mapping[str, Any]
    configuration: Configuration
    knative: bool = False

    def names(self, *groups: str) -> list[str]:
        """The names of the containers in these groups, in the order of the groups; without those that have none."""
        spec = {group: mappings(self.spec.get(group)) for group in ("initContainers", "containers")}
        named = list(containers_of(spec))
        return [
            each.name
            for group in groups
            for each in named
            if each.group == group and (self.knative or each.object.get("name")) and isinstance(each.name, str)
        ]

    def unnamed(self) -> list[str]:
        """The fields of the containers that nothing names: Kubernetes demands a name, Knative alone completes it."""
        if self.knative:
            return []
        return [
            f"{group}[{index}]"
            for group in ("initContainers", "containers")
            for index, each in enumerate(mappings(self.spec.get(group)))
            if not each.get("name")
        ]


def mappings(value: Any) -> list[dict[str, Any]]:
    """The mappings in a list, without the items that the API server would refuse."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def left(key: str, text: str, keys: Iterable[str] = ()) -> Step:
    """`key` stays, and so do the `keys` that belong to it."""
    return left_for([Note(key, text)], keys)


def left_for(notes: Sequence[Note], keys: Iterable[str] = ()) -> Step:
    """The keys of the notes stay, and so do the `keys` that belong to them."""
    return Step(tuple(dict.fromkeys((*(note.key for note in notes), *keys))), left=tuple(notes))


def dropped(key: str, text: str = "") -> Step:
    """`key` is removed without a replacement. No text means that the pod loses nothing."""
    return Step((key,), notes=(Note(key, text),) if text else ())
