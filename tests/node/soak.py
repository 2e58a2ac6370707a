"""Services that come and go while secrets rotate and parts fail, and what is held meanwhile and left afterwards.

Each cycle writes new secrets, starts pods of two new Services during a fault, sees that each has the new secret, and
removes the Services. A third Service stays, whose sidecar has to take over each new secret.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import re
import secrets
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.cluster.client import Object
from tests.cluster.conditions import holds
from tests.node.morphisms import KMS_NAMESPACE, WEBHOOK_NAMESPACE
from tests.node.services import RESTRICTED_NAMESPACE, digest, service
from tests.node.stack import PATIENCE_SECONDS, Stack
from tests.support.shown import Report
from tests.support.until import until

NAMESPACE: Final = "soak"
RESIDENT: Final = "sidecar"
_FILE: Final = "/morphisms/secrets/db"
_SECRET: Final = {"morphisms.dev/secret-db": "~/db#password"}
_KNATIVE: Final = f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}"
_PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
_MOST_PODS: Final = 4
_FEWEST_MINUTES: Final = 10.0
"""A process that was seen for less has no slope: caches fill first."""
_COMPONENTS: Final = {
    "webhook": (WEBHOOK_NAMESPACE, "app.kubernetes.io/component=webhook"),
    "scanner": (WEBHOOK_NAMESPACE, "app.kubernetes.io/component=scanner"),
    "verifier": (KMS_NAMESPACE, "app.kubernetes.io/component=verifier"),
    "sidecar": (NAMESPACE, f"serving.knative.dev/service={RESIDENT}"),
}
# Every process of ours is started by a file of this name.
_PROGRAM: Final = re.compile(rb"/morphisms(-init)?\0")


@dataclass(frozen=True)
class Sample:
    """One process at one time: minutes since the beginning, MiB resident, open file descriptors."""

    minutes: float
    resident: float
    descriptors: int


@dataclass
class Held:
    """What one component's processes held, by process id: a fault may have ended some."""

    samples: dict[int, list[Sample]] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """The fewest descriptors that a process was first seen with."""
        return min(samples[0].descriptors for samples in self.samples.values())

    def row(self, name: str) -> str:
        """Of the process that was seen longest."""
        longest = max(self.samples.values(), key=lambda samples: samples[-1].minutes - samples[0].minutes)
        begun, ended = longest[0], longest[-1]
        slope = "-"
        if ended.minutes - begun.minutes > _FEWEST_MINUTES:
            minutes = [sample.minutes for sample in longest]
            fitted = statistics.linear_regression(minutes, [sample.resident for sample in longest])
            slope = f"{60 * fitted.slope:+.1f}"
        most = max(sample.resident for sample in longest)
        return (
            f"{name:9} {len(self.samples):9} {ended.minutes - begun.minutes:8.1f} {begun.resident:7.1f} "
            f"{ended.resident:7.1f} {most:7.1f} {slope:>8} {begun.descriptors:9} {ended.descriptors:8}"
        )


_HEAD: Final = "component processes  minutes   first    last    most   MiB/h  fds first     last"


@dataclass(frozen=True)
class _Fault:
    name: str
    begin: Callable[[], contextlib.AbstractContextManager[None]]
    replaces: bool = False
    """Whether processes that are measured end by it."""


class Soak:
    """`run` does cycles, at least one with each fault; `end` removes the Services."""

    def __init__(self, stack: Stack, report: Report) -> None:
        self.stack = stack
        self.held = {name: Held() for name in _COMPONENTS}
        self.cycles = 0
        self.started_pods = 0
        self.uids: set[str] = set()
        """Of all pods that there were."""
        self._report = report
        self._began = time.monotonic()
        self._key = stack.morphisms.unseal_key()

    def begin(self) -> None:
        """The Service that stays, ready."""
        self.stack.namespace(NAMESPACE, {"morphisms.dev/mode": "enforce", **RESTRICTED_NAMESPACE})
        self._rotate(RESIDENT)
        scale = {"autoscaling.knative.dev/min-scale": "1", "morphisms.dev/agent": "sidecar"}
        self._apply(RESIDENT, {**_SECRET, **scale}, {"FILES": _FILE})
        self._ready(RESIDENT, 1)
        self.sample()

    def run(self, minutes: float) -> None:
        """Cycles for so long. In the second half no process is replaced, so that its memory is seen over that time."""
        faults = (
            _Fault("no fault", contextlib.nullcontext),
            _Fault("the verifier's pod deleted", lambda: self._deleted("verifier"), replaces=True),
            _Fault("Vault sealed and unsealed", self._sealed),
            _Fault("the webhook's pods deleted", lambda: self._deleted("webhook"), replaces=True),
            _Fault("kubelet and containerd restarted", self._restarted),
        )
        half, ends = time.monotonic() + 30 * minutes, time.monotonic() + 60 * minutes
        for number, fault in enumerate(itertools.cycle(faults)):
            if number >= len(faults):
                if time.monotonic() > ends:
                    return
                if fault.replaces and time.monotonic() > half:
                    continue
            count = 1 + self.cycles % _MOST_PODS
            self._cycle(count, fault.begin)
            self.cycles += 1
            self.started_pods += 2 * count
            self.sample()
            self._report(f"  soak: cycle {self.cycles}, {fault.name}, after {self._minutes():.1f} min")

    def end(self) -> None:
        """Remove what is left, and wait until no pod is."""
        self.stack.admin.delete(f"{_KNATIVE}/services/{RESIDENT}")
        self._gone(RESIDENT)

    def sample(self) -> None:
        """Of all processes of ours, now."""
        for name in _COMPONENTS:
            for pid in self._processes(name):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    sample = Sample(self._minutes(), _resident(pid), _descriptors(pid))
                    self.held[name].samples.setdefault(pid, []).append(sample)

    def descriptors(self, name: str) -> int:
        """The most that a process of the component has now; none may be between two pods."""
        found = [0]
        for pid in self._processes(name):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found.append(_descriptors(pid))
        return max(found)

    def tokens(self) -> int:
        """Vault tokens of Services of this namespace that live."""
        return self.stack.tokens(NAMESPACE)

    def leases(self) -> int:
        """Leases in Vault below its logins and secrets engines, of whatever Service."""
        found, folders = 0, [""]
        while folders:
            folder = folders.pop()
            status, answer = self.stack.morphisms.vault("LIST", f"sys/leases/lookup/{folder}")
            keys = answer["data"]["keys"] if status == 200 else []
            folders += [f"{folder}{key}" for key in keys if key.endswith("/")]
            found += sum(not key.endswith("/") for key in keys)
        return found

    def traces(self) -> list[str]:
        """What is left on the node of pods that there were: mounts, processes, containers."""
        mounts = Path(f"/proc/{self.stack.sandbox.record.holder}/mountinfo")
        left = [f"mount {line.split()[4]}" for line in mounts.read_text().splitlines() if self._of_ours(line)]
        for pid in self.stack.sandbox.cgroup.members():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if self._of_ours(Path(f"/proc/{pid}/cgroup").read_text()):
                    left.append(f"process {pid}")
        return left

    def table(self) -> str:
        """Its figures."""
        rows = [held.row(name) for name, held in self.held.items() if held.samples]
        pods = f"{self.cycles} cycles, {self.started_pods} pods started, {self._minutes():.1f} minutes"
        return "\n".join([f"soak: {pods}; MiB resident and descriptors of the process seen longest", _HEAD, *rows])

    def _cycle(self, count: int, fault: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        passwords = {name: self._rotate(name) for name in ("init", "wrapped", RESIDENT)}
        with fault():
            scale = {"autoscaling.knative.dev/initial-scale": str(count)}
            self._apply("init", {**_SECRET, **scale}, {"FILES": _FILE})
            variable = {"DB": "vault:~/db#password", "VARIABLES": "DB"}
            self._apply("wrapped", {"morphisms.dev/agent": "sidecar", **scale}, variable, command=["/application"])
        for name, part in (("init", "files"), ("wrapped", "variables")):
            for pod in self._ready(name, count):
                seen = self.stack.ask(pod)[part]
                assert list(seen.values()) == [digest(passwords[name])], (name, seen)
        expected = {_FILE: digest(passwords[RESIDENT])}
        until(lambda: self._of_resident() == expected, PATIENCE_SECONDS)
        for name in ("init", "wrapped"):
            self.stack.admin.delete(f"{_KNATIVE}/services/{name}")
        for name in ("init", "wrapped"):
            self._gone(name)

    def _apply(self, name: str, annotations: Mapping[str, str], env: Mapping[str, str], **container: Any) -> None:
        """A pod of it ends within seconds of being told to."""
        image = self.stack.application.pinned
        pod = {"timeoutSeconds": 5}
        made = service(image, f"{NAMESPACE}/{name}", annotations, env=env, pod=pod, **container)
        # A webhook whose pods have just been deleted answers a moment later; Knative's own answer comes from another.
        until(lambda: self.stack.admin.kubectl("apply", "-f", "-", input=made, check=False).code == 0, PATIENCE_SECONDS)

    def _rotate(self, name: str) -> str:
        password = secrets.token_urlsafe(12)
        self.stack.morphisms.write_secret(f"knative/cluster/{NAMESPACE}/{name}/db", password=password)
        return password

    def _ready(self, name: str, count: int) -> list[Object]:
        def ready(pods: list[Object]) -> list[Object] | None:
            self.uids |= {pod["metadata"]["uid"] for pod in pods}
            return pods if len(pods) >= count and all(holds(pod) for pod in pods) else None

        label = f"serving.knative.dev/service={name}"
        return self.stack.admin.until(_PODS, ready, seconds=PATIENCE_SECONDS, labelSelector=label)

    def _gone(self, name: str) -> None:
        label = f"serving.knative.dev/service={name}"

        def gone(pods: list[Object]) -> bool:
            self.uids |= {pod["metadata"]["uid"] for pod in pods}
            return not pods

        revisions = f"{_KNATIVE}/revisions"
        self.stack.admin.until(revisions, lambda left: not left, seconds=PATIENCE_SECONDS, labelSelector=label)
        self.stack.admin.until(_PODS, gone, seconds=PATIENCE_SECONDS, labelSelector=label)

    def _of_resident(self) -> dict[str, str]:
        """What the application of the Service that stays answers now; nothing while it does not."""
        for pod in self.stack.pods(NAMESPACE, RESIDENT):
            if holds(pod):
                with contextlib.suppress(OSError, http.client.HTTPException):
                    files: dict[str, str] = self.stack.ask(pod)["files"]
                    return files
        return {}

    @contextlib.contextmanager
    def _deleted(self, component: str) -> Iterator[None]:
        """Its pods, just before what follows, which has to wait for their successors."""
        namespace, label = _COMPONENTS[component]
        path = f"/api/v1/namespaces/{namespace}/pods"
        for pod in self.stack.admin.items(path, labelSelector=label):
            self.stack.admin.request("DELETE", f"{path}/{pod['metadata']['name']}")
        yield

    @contextlib.contextmanager
    def _sealed(self) -> Iterator[None]:
        """Until a pod's agent has begun."""
        vault = self.stack.morphisms.vault
        assert vault("PUT", "sys/seal")[0] == 204
        try:
            yield

            def begun(pods: list[Object]) -> bool:
                statuses = [each for pod in pods for each in pod.get("status", {}).get("initContainerStatuses", ())]
                return any("running" in each["state"] and each["name"] == "morphisms-init" for each in statuses)

            label = "serving.knative.dev/service in (init,wrapped)"
            self.stack.admin.until(_PODS, begun, seconds=PATIENCE_SECONDS, labelSelector=label)
        finally:
            assert vault("PUT", "sys/unseal", {"key": self._key})[1]["sealed"] is False

    @contextlib.contextmanager
    def _restarted(self) -> Iterator[None]:
        """While pods start."""
        yield
        self.stack.cluster.node.restart_daemons()

    def _minutes(self) -> float:
        return (time.monotonic() - self._began) / 60

    def _processes(self, name: str) -> list[int]:
        """Of ours in the component's pods."""
        namespace, label = _COMPONENTS[name]
        pods = self.stack.admin.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=label)
        uids = {pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}
        found = []
        for pid in self.stack.sandbox.cgroup.members():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                cgroup = Path(f"/proc/{pid}/cgroup").read_text()
                if any(uid in cgroup for uid in uids) and _PROGRAM.search(Path(f"/proc/{pid}/cmdline").read_bytes()):
                    found.append(pid)
        return found

    def _of_ours(self, text: str) -> bool:
        return any(uid in text for uid in self.uids)


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    # A process that has ended has none.
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)
