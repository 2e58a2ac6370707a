"""What differs from the rendering before is said in words, for a review, and no variable's value with it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

import pytest

from cli.rendering.changes import in_words
from measured.pod import Choices, measure
from tests.measured import pods

Pod = dict[str, Any]


def _app(change: Callable[[dict[str, Any]], Any]) -> Callable[[Pod], Any]:
    return lambda pod: change(pod["spec"]["containers"][0])


CHANGES: Final[dict[str, Callable[[Pod], Any]]] = {
    "the namespace shop becomes evil": lambda pod: pod["metadata"].update(namespace="evil"),
    "the pods have other names": lambda pod: pod["metadata"].update(name="payments-1"),
    "the pods' host name (none) becomes web": lambda pod: pod["spec"].update(hostname="web"),
    "the pods' fsGroup 2000 becomes 3": lambda pod: pod["spec"]["securityContext"].update(fsGroup=3),
    "annotation io.katacontainers.x: is new": lambda pod: pod["metadata"].update(
        annotations={"io.katacontainers.x": "y"}
    ),
    f"container app: image sha256:{'a' * 64} becomes sha256:{'c' * 64}": _app(
        lambda one: one.update(image=pods.OTHER, workingDir="/srv")
    ),
    f"container more is new, from image sha256:{'b' * 64}": lambda pod: pod["spec"]["containers"].append(
        {"name": "more", "image": pods.TOOL}
    ),
    "container second is gone": lambda pod: pod["spec"]["containers"].pop(),
    "container app: runs another command line": _app(lambda one: one.update(args=["--canary"])),
    "container app: working folder /srv becomes /tmp": _app(lambda one: one.update(workingDir="/tmp")),
    "container app: variable MORE is new": _app(lambda one: one["env"].append({"name": "MORE", "value": "canary"})),
    "container app: variable LONG is gone": _app(lambda one: one["env"].pop()),
    "container app: variable PLAIN has another value": _app(lambda one: one["env"][0].update(value="canary")),
    "container app: variable IP, which the host fills in, is gone": _app(lambda one: one["env"].pop(3)),
    "container app: user and groups 1000:0 (0, 2000, 3000) becomes 5:0 (0, 2000, 3000)": _app(
        lambda one: one["securityContext"].update(runAsUser=5)
    ),
    "container app: loses capability CAP_NET_BIND_SERVICE": _app(
        lambda one: one["securityContext"].update(capabilities={"drop": ["ALL"]})
    ),
    "container app: gains capability CAP_SYS_ADMIN": _app(
        lambda one: one["securityContext"]["capabilities"]["add"].append("SYS_ADMIN")
    ),
    "container app: may gain privileges": _app(lambda one: one["securityContext"].pop("allowPrivilegeEscalation")),
    "container app: its root file system is writable": _app(
        lambda one: one["securityContext"].update(readOnlyRootFilesystem=False)
    ),
    "container app: mount /run/shared is memory rw, was memory ro": _app(
        lambda one: one["volumeMounts"][0].pop("readOnly")
    ),
    "container app: mount /spare is gone": _app(lambda one: one["volumeMounts"].pop(3)),
    "container app: its termination message is elsewhere, or another policy counts for it": _app(
        lambda one: one.update(terminationMessagePath="/x")
    ),
    "container resident: kind sidecar becomes init": lambda pod: pod["spec"]["initContainers"][1].pop("restartPolicy"),
}


@pytest.mark.parametrize(("words", "change"), CHANGES.items(), ids=CHANGES)
def test_each_change_has_its_words(words: str, change: Callable[[Pod], Any]) -> None:
    former = measure(pods.pod(), pods.IMAGES)
    pod = copy.deepcopy(pods.pod())
    change(pod)
    lines = in_words(former, measure(pod, pods.IMAGES))
    assert words in lines
    assert "canary" not in "".join(lines)
    assert in_words(former, former) == []


def test_what_the_host_may_read_is_said() -> None:
    open_ = measure(pods.pod(), pods.IMAGES, choices=Choices(reads_logs=frozenset({"app"}), automounts_token=False))
    lines = in_words(measure(pods.pod(), pods.IMAGES), open_)
    assert "container app: the host may read its output" in lines
    assert "the service account no longer mounts its token" in lines
    assert "container app: the host may no longer read its output" in in_words(open_, measure(pods.pod(), pods.IMAGES))
