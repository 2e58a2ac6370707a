"""Pods created through a real API server, without a webhook, with ours and with one in Go in turn, at growing rates.

Everything shares this machine: API server, etcd, the replicas, the balancers in place of kube-proxy, and who asks. The
scheduler and the controllers are paused, for what they do with new pods would be measured too.
"""

from __future__ import annotations

import json
import operator
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from tests.bench import peer
from tests.bench.golang import binary
from tests.bench.histogram import Histogram
from tests.cluster import binaries
from tests.cluster.client import Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.keeper import Keeper
from tests.cluster.namespace import Namespace
from tests.cluster.nodes import KATA, RUNTIME_CLASSES, add_confidential_node
from tests.cluster.process import Process
from tests.cluster.stream import Kind, make_pod

_RATES = (50, 100, 200)
_ROUNDS, _SECONDS = 3, 5
# Then doubled until a round is not carried: one fails, that many are under way, or one in a hundred takes that long.
_MOST_RATE, _MOST_SECONDS = 1600, 3
_MOST_UNDER_WAY, _TOO_LATE_MS = 1000, 1000
_PROGRAMS = ("kube-apiserver", "etcd", "webhook", "balancer", "peer", "peer's balancer")
# The namespaces of each kind of round: their mode and further labels.
_Variant = tuple[str | None, dict[str, str]]
_WITHOUT: _Variant = (None, {})
_OURS: _Variant = ("enforce", {})
_PEER: _Variant = (None, peer.LABEL)
# The budget holds up to the highest rate at which the bare API server uses less of the machine's processors than this.
_BUSY, _BUDGET = 0.7, 1.25
_CALLS = {
    "mutating": ("mutate-pod.enforce.morphisms.dev", "/mutate/pod/enforce"),
    "validating": ("validate-pod.enforce.morphisms.dev", "/validate/pod/enforce"),
}


def main() -> None:
    """Added latency, processor time, and how much this machine carries."""
    binaries.build(lambda line: print(line, file=sys.stderr, flush=True), binaries.KUBERNETES)
    with _installed() as installation:
        pod = _pod()
        with peer.running(installation, pod) as beside:
            bench = _Bench(installation, beside, pod)
            for variant in (_OURS, _PEER):
                bench.round(variant, _RATES[0])  # warms up
            for rate in _RATES:
                without, ours, its = _Figures(), _Figures(), _Figures()
                for _ in range(_ROUNDS):
                    without.rounds.append(bench.round(_WITHOUT, rate))
                    ours.rounds.append(bench.round(_OURS, rate))
                    its.rounds.append(bench.round(_PEER, rate))
                _print(rate, without, ours, its)
                if not ours.carried:
                    break
            for name, variant in (("without a webhook", _WITHOUT), ("with ours", _OURS), ("with the peer", _PEER)):
                _print_most(bench, name, variant)


def _pod() -> Object:
    pod = make_pod(Kind.CONFIDENTIAL, "unused")
    pod["metadata"] = {"generateName": "bench-", "annotations": pod["metadata"]["annotations"]}
    return pod


_Call = tuple[Histogram, Histogram]


@dataclass
class _Round:
    """What came of one: latencies in ms, processor seconds by program, each call as API server and webhook saw it."""

    latencies: list[float]
    failed: int
    unsent: int
    seconds: float
    processor: dict[str, float]
    called: dict[str, _Call]

    @property
    def carried(self) -> bool:
        """Whether the machine kept up."""
        return not self.failed and not self.unsent and _at(self.latencies, 0.99) < _TOO_LATE_MS


@dataclass
class _Figures:
    """Rounds of one rate."""

    rounds: list[_Round] = field(default_factory=list)

    @property
    def carried(self) -> bool:
        return all(each.carried for each in self.rounds)

    def at(self, share: float) -> float:
        """The latency, in ms, that this share of all stays within."""
        return _at([latency for each in self.rounds for latency in each.latencies], share)

    def processor(self, name: str) -> float:
        """Processor time, in ms a pod."""
        pods = sum(len(each.latencies) for each in self.rounds)
        return 1000 * sum(each.processor[name] for each in self.rounds) / max(1, pods)

    def busy(self, name: str) -> float:
        """Processors busy with it."""
        return sum(each.processor[name] for each in self.rounds) / sum(each.seconds for each in self.rounds)

    def called(self, call: str) -> _Call:
        """A call as the API server, and as the webhook saw it."""
        ours, its_own = zip(*(each.called[call] for each in self.rounds), strict=True)
        return reduce(operator.add, ours), reduce(operator.add, its_own)


def _print(rate: int, without: _Figures, added: _Figures, its: _Figures) -> None:
    note = "" if added.carried and without.carried and its.carried else "; NOT CARRIED by this machine"
    failed = sum(each.failed for figures in (without, added, its) for each in figures.rounds)
    print(f"{rate} pods a second, {_ROUNDS} rounds of {_SECONDS} s each; failed {failed}{note}")
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        less, more, beside = without.at(share), added.at(share), its.at(share)
        ratio = (more - less) / (beside - less) if beside > less else float("nan")
        print(f"  {name}: without {less:.1f} ms; added by ours {more - less:.1f} ms, by the Go webhook", end=" ")
        print(f"{beside - less:.1f} ms: {ratio:.2f}x; budget {_BUDGET}x where the first is below {_BUSY:.0%} processor")
    for program in _PROGRAMS:
        spent = [figures.processor(program) for figures in (without, added, its)]
        print(f"  {program}: {spent[0]:.1f} -> {spent[1]:.1f} (Go {spent[2]:.1f}) ms of processor a pod")
    three = (without, added, its)
    ours = [sum(figures.busy(name) for name in (*_PROGRAMS, "asking")) for figures in three]
    others = [figures.busy("all") - own for figures, own in zip(three, ours, strict=True)]
    print(f"  processors busy: {ours[0]:.2f} -> {ours[1]:.2f} (Go {ours[2]:.2f}) of {os.cpu_count()},", end=" ")
    print(f"with who asks; with what else this machine does {others[0]:.2f}, {others[1]:.2f}, {others[2]:.2f}")
    for call in _CALLS:
        api_server, webhook = added.called(call)
        print(f"  {call} call, to the API server: {api_server}; of it in the webhook: {webhook}")


def _print_most(bench: _Bench, name: str, variant: _Variant) -> None:
    """The greatest of the doubled rates that is carried."""
    carried, rate = 0, _RATES[0]
    while rate <= _MOST_RATE and bench.round(variant, rate, _MOST_SECONDS).carried:
        carried, rate = rate, rate * 2
    beyond = f", not {rate}" if rate <= _MOST_RATE else ""
    print(f"{name} this machine carries {carried} pods a second{beyond}")


class _Bench:
    """Rounds on one installation, each in a namespace of its own."""

    def __init__(self, installation: Installation, beside: peer.Peer, pod: Object) -> None:
        self._installation = installation
        self._peer = beside
        self._cluster = installation.cluster
        user = self._cluster.user("bench", "system:masters")
        self._credentials = json.loads(user.kubeconfig.read_text())["users"][0]["user"]
        self._body = self._cluster.folder / "pod.json"
        self._body.write_text(json.dumps(pod))
        self._monitor = self._cluster.user("monitor", "system:masters")

    def round(self, variant: _Variant, rate: int, seconds: float = _SECONDS) -> _Round:
        """One, with everything else at rest."""
        mode, labels = variant
        namespace = Namespace.make(self._cluster.admin, mode, labels)
        with _paused(self._cluster.processes["kube-scheduler"], self._cluster.processes["kube-controller-manager"]):
            called, before = self._called(), self._settled()
            result = self._send(namespace, rate, seconds)
            after, called_after = self._processor(), self._called()
        self._check(namespace.admin, namespace.pods(), injected=variant is not _WITHOUT)
        return _Round(
            result["latencies_ms"],
            result["failed"],
            result["unsent"],
            result["seconds"],
            {name: after[name] - before[name] for name in before},
            {call: (later[0] - called[call][0], later[1] - called[call][1]) for call, later in called_after.items()},
        )

    def _send(self, namespace: Namespace, rate: int, seconds: float) -> dict[str, Any]:
        command: list[object] = [binary("arrivals"), "-url", f"{self._cluster.url}{namespace.pods()}"]
        command += ["-ca", self._cluster.ca, "-cert", self._credentials["client-certificate"]]
        command += ["-key", self._credentials["client-key"], "-body", self._body]
        command += ["-rate", rate, "-seconds", seconds, "-most", _MOST_UNDER_WAY]
        done = subprocess.run(list(map(str, command)), capture_output=True, check=True, timeout=seconds + 60)
        result: dict[str, Any] = json.loads(done.stdout)
        if result["failed"]:
            print(f"  {result['failed']} of {rate} a second failed, the last: {result['problem'][:300]}")
        return result

    def _check(self, admin: Client, path: str, *, injected: bool) -> None:
        """What was measured is what it says."""
        for pod in admin.get(path, limit="5")["items"]:
            assert ("initContainers" in pod["spec"]) is injected

    def _settled(self) -> dict[str, float]:
        """The processor time so far, once nothing of a former round holds up the API server any more."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            asked = time.monotonic()
            self._monitor.get("/api/v1/namespaces/default")
            if time.monotonic() - asked < 0.02:
                break
            time.sleep(0.2)
        return self._processor()

    def _processor(self) -> dict[str, float]:
        processes = self._cluster.processes
        asking = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "kube-apiserver": processes["kube-apiserver"].cpu_seconds(),
            "etcd": processes["etcd"].cpu_seconds(),
            "webhook": sum(replica.process.cpu_seconds() for replica in self._installation.replicas),
            "balancer": self._installation.balancer.cpu_seconds(),
            "peer": self._peer.cpu_seconds(),
            "peer's balancer": self._peer.balancer.cpu_seconds(),
            "asking": asking.ru_utime + asking.ru_stime,
            "all": _all_seconds(),
        }

    def _called(self) -> dict[str, _Call]:
        api_server = [self._monitor.kubectl("get", "--raw", "/metrics").out]
        replicas = [replica.metrics() for replica in self._installation.replicas]
        return {
            call: (
                Histogram.read(api_server, "apiserver_admission_webhook_admission_duration_seconds", name=hook),
                Histogram.read(replicas, "morphisms_request_seconds", route=route),
            )
            for call, (hook, route) in _CALLS.items()
        }


def _all_seconds() -> float:
    """Processor time that everything on this machine has used (proc_stat(5): idle and iowait are the 4th and 5th)."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def _at(latencies: list[float], share: float) -> float:
    return sorted(latencies)[int(share * (len(latencies) - 1))] if latencies else float("inf")


@contextmanager
def _paused(*processes: Process) -> Iterator[None]:
    for process in processes:
        process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.signal(signal.SIGCONT)


@contextmanager
def _installed() -> Iterator[Installation]:
    """A control plane that logs no bodies, and two replicas."""
    folder = Path(tempfile.mkdtemp(prefix="morphisms-bench-"))
    keeper = Keeper(folder)
    cluster = ControlPlane(folder, keeper)
    policy: Object = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
    (folder / "audit.yaml").write_text(yaml.safe_dump(policy))
    installation: Installation | None = None
    try:
        cluster.start()
        add_confidential_node(cluster.admin, "snp-0")
        cluster.admin.create(RUNTIME_CLASSES, KATA)
        installation = Installation(cluster)
        installation.install()
        installation.start(replicas=2)
        yield installation
    finally:
        if installation is not None:
            installation.stop()
        cluster.stop()
        keeper.close()
