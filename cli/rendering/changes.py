"""What a rendering pins otherwise than the one before, in words. A variable's value is never among them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from plan.layout import PLAN_VARIABLE

Data = Mapping[str, Any]

_POD: Final = {"hostname": "the pods' host name", "fsGroup": "the pods' fsGroup"}
_WHOLE: Final = {"namespace": "the namespace", "template": "the container template", "version": "the rules' version"}
_HOST_READS: Final = {"readLogs": "its output", "readTermination": "its termination message"}


def in_words(former: Data, present: Data) -> list[str]:
    """A line for each change from one policy's data to another's; both as `measured.pod.measure` makes them."""
    lines: list[str] = []
    for member, name in _WHOLE.items():
        lines += _replaced(name, former[member], present[member])
    if _names(former) != _names(present):
        lines.append("the pods have other names")
    for member, name in _POD.items():
        lines += _replaced(name, former["pod"].get(member), present["pod"].get(member))
    for key, one, other in _pairs(former["annotations"], present["annotations"]):
        lines.append(f"annotation {key}: {_came_or_went(one, other)}")
    if former["workload"] != present["workload"]:
        lines.append("the workload that the pods claim to be is another")
    if former["automountsToken"] != present["automountsToken"]:
        lines.append(f"the service account {'mounts' if present['automountsToken'] else 'no longer mounts'} its token")
    for digest, one, other in _pairs(former["images"], present["images"]):
        if one is not None and other is not None:
            lines.append(f"image {digest}: its configuration is another")
    for name, one, other in _pairs(_by_name(former), _by_name(present)):
        where = f"container {name}"
        if one is None:
            lines.append(f"{where} is new, from image {other['image']['digest']}")
        elif other is None:
            lines.append(f"{where} is gone")
        else:
            lines += [f"{where}: {line}" for line in _container(one, other)]
    return lines


def _container(one: Data, other: Data) -> Iterator[str]:
    yield from _replaced("image", one["image"]["digest"], other["image"]["digest"])
    yield from _replaced("kind", one["kind"], other["kind"])
    yield from _replaced("starts after", ", ".join(one["after"]), ", ".join(other["after"]))
    if one["args"] != other["args"]:
        yield "runs another command line"
    yield from _replaced("working folder", one["cwd"], other["cwd"])
    for name, before, after in _pairs(one["env"], other["env"]):
        if name == PLAN_VARIABLE and before is not None and after is not None:
            yield f"its plan differs in {', '.join(_differing_members(before, after))}"
        else:
            yield f"variable {name} {_came_or_went(before, after)}"
    for name, before, after in _pairs(one["envOfHost"], other["envOfHost"]):
        yield f"variable {name}, which the host fills in, {_came_or_went(before, after)}"
    yield from _replaced("user and groups", _user(one["user"]), _user(other["user"]))
    for name in sorted(set(other["capabilities"]) - set(one["capabilities"])):
        yield f"gains capability {name}"
    for name in sorted(set(one["capabilities"]) - set(other["capabilities"])):
        yield f"loses capability {name}"
    if one["noNewPrivileges"] != other["noNewPrivileges"]:
        yield f"may {'no longer ' if other['noNewPrivileges'] else ''}gain privileges"
    if one["readOnly"] != other["readOnly"]:
        yield f"its root file system is {'read-only' if other['readOnly'] else 'writable'}"
    for path, before, after in _pairs(one["mounts"], other["mounts"]):
        was, is_ = _mount(before), _mount(after)
        yield f"mount {path} is {f'new, {is_}' if before is None else 'gone' if after is None else f'{is_}, was {was}'}"
    if one["termination"] != other["termination"]:
        yield "its termination message is elsewhere, or another policy counts for it"
    for member, what in _HOST_READS.items():
        if one[member] != other[member]:
            yield f"the host may {'' if other[member] else 'no longer '}read {what}"


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The members that differ, by name; None where a side lacks one."""
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            yield key, one.get(key), other.get(key)


def _replaced(name: str, one: object, other: object) -> Iterator[str]:
    if one != other:
        yield f"{name} {_shown(one)} becomes {_shown(other)}"


def _shown(value: object) -> str:
    return "(none)" if value in (None, "") else str(value)


def _came_or_went(one: object, other: object) -> str:
    return "is new" if one is None else "is gone" if other is None else "has another value"


def _names(data: Data) -> tuple[object, object]:
    return data["pod"].get("name"), data["pod"].get("pattern")


def _by_name(data: Data) -> dict[str, Any]:
    return {container["name"]: container for container in data["containers"]}


def _user(user: Data) -> str:
    return f"{user['uid']}:{user['gid']} ({', '.join(map(str, user['groups']))})"


def _mount(mount: Data | None) -> str:
    return "" if mount is None else f"{mount['from']} {mount['access']}"


def _differing_members(one: str, other: str) -> list[str]:
    """The members of two plans that differ; their content is not shown."""
    try:
        plans = json.loads(one), json.loads(other)
    except ValueError:
        return ["its form"]
    if not all(isinstance(plan, dict) for plan in plans):
        return ["its form"]
    return [name for name, *_ in _pairs(*plans)]
