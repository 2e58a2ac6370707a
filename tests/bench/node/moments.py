"""When each pod reached which moment, from what the node's own programs wrote down.

All of them run on one machine, so all times are of one clock. The API server's audit log has microseconds: when it
received and answered the pod's creation, answered its binding, and had stored that the pod is ready. containerd's log
has nanoseconds: when a sandbox and a container had started. A container's log has them too: when containerd read the
line. Nothing here is a pod's condition, which has whole seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from tests.cluster.audit import Event
from tests.cluster.conditions import holds

APPLICATION: Final = "user-container"
_LOGGED: Final = re.compile(r'^time="([^"]+)" level=info msg="(.*)"$')
_SANDBOX: Final = re.compile(r"RunPodSandbox for &PodSandboxMetadata\{Name:([^,]+),.* returns sandbox id \"(\w+)\"")
_CREATED: Final = re.compile(
    r"CreateContainer within sandbox \"(\w+)\" for &ContainerMetadata\{Name:([^,]+),Attempt:\d+,\} "
    r"returns container id \"(\w+)\""
)
_STARTED: Final = re.compile(r"StartContainer for \"(\w+)\" returns successfully")

Moments = dict[str, float]
"""Seconds since 1970 by the moment's name."""


def seconds(stamp: str) -> float:
    """Of an RFC 3339 time in UTC, with any number of digits after the second."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


def audited(events: Iterable[Event], namespace: str) -> dict[str, Moments]:
    """By pod that was created: `requested`, `created`, `bound`, `ready`, each when it first was so.

    The log is in the order of the answers' ends, so a pod may be bound in it before it is created.
    """
    found: dict[str, Moments] = {}
    for event in events:
        about = event.get("objectRef", {})
        if about.get("resource") != "pods" or about.get("namespace") != namespace:
            continue
        if event["responseStatus"]["code"] >= 300:
            continue
        answered = seconds(event["stageTimestamp"])
        call = (event["verb"], about.get("subresource", ""))
        if call == ("create", ""):
            pod = event["responseObject"]["metadata"]["name"]
            received = seconds(event["requestReceivedTimestamp"])
            found.setdefault(pod, {}).update({"requested": received, "created": answered})
        elif call == ("create", "binding"):
            found.setdefault(about["name"], {}).setdefault("bound", answered)
        elif call == ("patch", "status") and holds(event.get("responseObject", {})):
            found.setdefault(about["name"], {}).setdefault("ready", answered)
    return {pod: moments for pod, moments in found.items() if "requested" in moments}


def contained(lines: Iterable[str]) -> dict[str, Moments]:
    """By pod, of containerd's log: `sandbox`, and `started NAME` for each container."""
    found: dict[str, Moments] = {}
    pods: dict[str, str] = {}
    containers: dict[str, tuple[str, str]] = {}
    for line in lines:
        if (entry := _LOGGED.match(line.rstrip("\n"))) is None:
            continue
        message = entry[2].replace('\\"', '"')
        if made := _SANDBOX.match(message):
            pods[made[2]] = made[1]
            found.setdefault(made[1], {})["sandbox"] = seconds(entry[1])
        elif (made := _CREATED.match(message)) and made[1] in pods:
            containers[made[3]] = (pods[made[1]], made[2])
        elif (made := _STARTED.match(message)) and made[1] in containers:
            pod, container = containers[made[1]]
            found[pod].setdefault(f"started {container}", seconds(entry[1]))
    return found


def logged(lines: Iterable[str], parts: Sequence[str], names: Sequence[str]) -> Moments:
    """Of a container's log as the kubelet keeps it: when its first line with each of `parts` was read."""
    found: Moments = {}
    for line in lines:
        stamp, _, rest = line.partition(" ")
        for part, name in zip(parts, names, strict=True):
            if part in rest:
                found.setdefault(name, seconds(stamp))
    return found
