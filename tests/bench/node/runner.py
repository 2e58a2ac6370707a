"""Starts the variants in turn, and collects what became of each pod."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.node import moments
from tests.bench.node.moments import Moments
from tests.bench.node.starts import Run, Start
from tests.bench.node.variants import VARIANTS, Variant, Variants
from tests.cluster.client import STRATEGIC_PATCH, Object
from tests.cluster.conditions import holds
from tests.cluster.knative import NAMESPACE as KNATIVE_NAMESPACE
from tests.node.stack import PATIENCE_SECONDS, Stack

LEVELS: Final[Mapping[int, int]] = {1: 15, 25: 3, 50: 2, 75: 1}
"""Concurrent starts and the most rounds of each: the levels of the paper."""
_MEBIBYTES_A_POD: Final = 170
"""What a starting pod takes at most: `bao agent` some 80, queue-proxy 25, shim and runc the rest."""
_KNATIVE: Final = "/apis/serving.knative.dev/v1/namespaces"
_GOLDEN: Final = 0.618034
"""Multiples of it, without their whole part, cover a second evenly however many there are."""


class TooManyError(Exception):
    """So many pods do not fit on the node: the scheduler's words."""


@dataclass
class Runner:
    """`run` does a round of each level, then further ones, of the smallest level first, while time is left."""

    stack: Stack
    variants: Variants
    report: Callable[[str], None]
    seconds: float
    """How long it may take."""
    available: Callable[[], int]
    """MiB of memory that the machine has left."""

    def run(self, levels: Mapping[int, int], result: Run) -> None:
        """Fill in `result`."""
        ends = time.monotonic() + self.seconds
        self._round(1, 0, Run("", {}, {}))  # warms up
        took: dict[int, float] = {}
        plan = [(0, level) for level in sorted(levels)]
        plan += [(number, level) for level in sorted(levels) for number in range(1, levels[level])]
        for number, level in plan:
            if str(level) in result.left_out:
                continue
            left = ends - time.monotonic()
            needed = took.get(level) or _expected(level, took)
            if needed > left:
                if number == 0:
                    result.left_out[str(level)] = f"a round takes some {needed:.0f} s, and {left:.0f} s were left"
                continue
            if (why_not := _too_many(level, self.available())) is not None:
                result.left_out[str(level)] = why_not
                continue
            started = time.monotonic()
            try:
                self._round(level, number, result)
            except TooManyError as error:
                result.left_out[str(level)] = str(error)
                result.starts = [start for start in result.starts if start.level != level]
                continue
            took[level] = time.monotonic() - started
            self.report(f"  {level} at once, round {number + 1}: {took[level]:.0f} s")

    def _round(self, level: int, number: int, result: Run) -> None:
        """Each variant once, in an order that turns; of more pods than one, when nothing is left of the one before."""
        turn = number % len(VARIANTS)
        for variant in (*VARIANTS[turn:], *VARIANTS[:turn]):
            for before in VARIANTS if level > 1 else (variant,):
                self._wait_removed(before)
            # What was waited for came with the kubelet's look at its containers: without a pause of another length in
            # each round, every start would begin at the same moment of the kubelet's second.
            time.sleep(number * _GOLDEN % 1)
            result.starts += [
                Start.of(variant.key, level, number, each) for each in self._start(variant, level).values()
            ]

    def _start(self, variant: Variant, count: int) -> dict[str, Moments]:
        """Start so many pods of a new Service, and delete it once they are ready; each pod's moments."""
        stack, log = self.stack, self.stack.cluster.control_plane.audit
        mark, contained = log.mark(), _containerd_log(stack)
        place = contained.stat().st_size
        stack.apply(self.variants.service(variant, count))
        path, label = f"/api/v1/namespaces/{variant.namespace}/pods", f"serving.knative.dev/service={variant.name}"

        def all_ready(pods: list[Object]) -> list[Object] | None:
            if (why_not := unschedulable(pods)) is not None:
                stack.admin.delete(f"{_KNATIVE}/{variant.namespace}/services/{variant.name}")
                raise TooManyError(why_not)
            return pods if len(pods) >= count and all(holds(pod) for pod in pods) else None

        pods = stack.admin.until(path, all_ready, seconds=PATIENCE_SECONDS, labelSelector=label)
        self._check(variant, pods[0])
        log.until_now(stack.admin)
        found = moments.audited(log.events(mark), variant.namespace)
        with contained.open(errors="replace") as lines:
            lines.seek(place)
            for name, further in moments.contained(lines).items():
                if name in found:
                    found[name] |= further
        for pod in pods:
            if variant.agent is not None:
                lines_of = _log(stack, pod, variant.agent)
                found[pod["metadata"]["name"]] |= moments.logged(
                    lines_of, variant.lines, ("running", "attested", "published")
                )
        stack.admin.delete(f"{_KNATIVE}/{variant.namespace}/services/{variant.name}")
        return {pod["metadata"]["name"]: found[pod["metadata"]["name"]] for pod in pods}

    def _check(self, variant: Variant, pod: Object) -> None:
        """What was measured has its secret."""
        answer = self.stack.ask(pod)
        assert {key: answer[key] for key in ("files", "variables")} == self.variants.expected(variant), variant.key

    def _wait_removed(self, variant: Variant) -> None:
        """Until nothing of it is left."""
        admin, label = self.stack.admin, f"serving.knative.dev/service={variant.name}"
        for path in (f"{_KNATIVE}/{variant.namespace}/revisions", f"/api/v1/namespaces/{variant.namespace}/pods"):
            admin.until(path, lambda found: not found, seconds=PATIENCE_SECONDS, labelSelector=label)


def unschedulable(pods: Sequence[Object]) -> str | None:
    """What the scheduler says of the first pod that fits on no node."""
    for pod in pods:
        for condition in pod.get("status", {}).get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
                return str(condition["message"])
    return None


def make_room(stack: Stack) -> None:
    """Let Knative's activator request less: by default 75 residents do not fit on two processors beside it.

    No request of a run goes through it.
    """
    path = f"/apis/apps/v1/namespaces/{KNATIVE_NAMESPACE}/deployments/activator"
    container = {"name": "activator", "resources": {"requests": {"cpu": "100m"}}}
    stack.admin.patch(path, {"spec": {"template": {"spec": {"containers": [container]}}}}, STRATEGIC_PATCH)

    def replaced(pods: list[Object]) -> bool:
        (first, *others) = pods or [{}]
        return not others and holds(first) and first["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "100m"

    pods = f"/api/v1/namespaces/{KNATIVE_NAMESPACE}/pods"
    stack.admin.until(pods, replaced, seconds=PATIENCE_SECONDS, labelSelector="app=activator")


def _expected(level: int, took: Mapping[int, float]) -> float:
    """Seconds of a round, in proportion to the largest that was run; a level that is the first is tried."""
    return max((seconds * level / other for other, seconds in took.items() if other > 1), default=0.0)


def _too_many(level: int, available: int) -> str | None:
    """Why a machine with so many MiB cannot run so many, in words."""
    needed = level * _MEBIBYTES_A_POD
    if needed > available:
        return f"it takes some {needed:,} MiB of memory, and {available:,} MiB were available"
    return None


def available_mebibytes() -> int:
    """Of memory, on this machine."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) // 1024


def _containerd_log(stack: Stack) -> Path:
    return _below(stack, "containerd.log")[0]


def _log(stack: Stack, pod: Object, container: str) -> Iterable[str]:
    """What the kubelet keeps of the container's first run."""
    metadata = pod["metadata"]
    name = f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
    (file,) = _below(stack, f"pod-logs/{name}/{container}/0.log")
    return file.read_text(errors="replace").splitlines()


def _below(stack: Stack, path: str) -> list[Path]:
    """In the run's folder, or in the node's below it."""
    return [*stack.sandbox.folder.glob(path), *stack.sandbox.folder.glob(f"*/{path}")]


def load() -> str:
    """The machine's load over the last minute."""
    return f"{os.getloadavg()[0]:.1f}"
