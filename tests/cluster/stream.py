"""Pods created without pause while something is disturbed, and what became of each of them.

Four kinds at once, from several clients: pods of an enforced namespace, which must come out confidential; pods that ask
in a namespace of no mode, likewise; pods that violate a rule, which must never be there; and bystanders, which must be
there untouched. What is refused or not answered is tried again, as a controller would.
"""

from __future__ import annotations

import enum
import itertools
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType

import urllib3

from tests.cluster.client import Client, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.namespace import DEVELOPER, Namespace
from tests.cluster.nodes import SNP_LABEL

_PAUSE_SECONDS = 0.2
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.1, 1.0
_PATIENCE_SECONDS = 180.0
_IMAGE = f"registry.example/app@sha256:{'a' * 64}"
_ASKS = {"morphisms.dev/inject": "true"}
_NAMES_A_SECRET = {"morphisms.dev/secret-db": "secret/shop/db"}


class Kind(enum.StrEnum):
    """What becomes of a pod that is not disturbed."""

    CONFIDENTIAL = "confidential"
    ASKING = "asking"
    VIOLATING = "violating"
    BYSTANDER = "bystander"


_CLIENTS = {Kind.CONFIDENTIAL: 3, Kind.ASKING: 2, Kind.VIOLATING: 2, Kind.BYSTANDER: 1}
# What an enforced namespace admits from nobody.
VIOLATIONS: tuple[tuple[str, Object], ...] = (
    ("placement/node-name", {"spec": {"nodeName": "plain-0"}}),
    ("isolation/host-namespaces", {"spec": {"hostNetwork": True}}),
    ("isolation/host-path", {"spec": {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}}),
    ("placement/scheduler", {"spec": {"schedulerName": "mine"}}),
    ("images/digest", {"spec": {"containers": [{"name": "app", "image": "registry.example/app:latest"}]}}),
)


def make_pod(kind: Kind, name: str, number: int = 0) -> Object:
    """One of that kind; `number` chooses among the violations."""
    annotations = {Kind.CONFIDENTIAL: _NAMES_A_SECRET, Kind.ASKING: _ASKS}.get(kind, {})
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": _IMAGE}]},
    }
    if kind is Kind.VIOLATING:
        pod["spec"] |= VIOLATIONS[number % len(VIOLATIONS)][1]["spec"]
    return pod


@dataclass(frozen=True)
class Attempt:
    """One request. `status` is 0 when no answer came; times are monotonic seconds."""

    kind: Kind
    name: str
    started: float
    ended: float
    status: int
    message: str

    @property
    def created(self) -> bool:
        """Whether the pod is there; an earlier attempt whose answer was lost may have made it."""
        return self.status in (201, 409)

    def __str__(self) -> str:
        return f"{self.name} after {self.ended - self.started:.1f} s: {self.status} {self.message}"


@dataclass
class Stream(AbstractContextManager["Stream"]):
    """Creates within its block. Afterwards every pod that was asked for has come to be, or `given_up` names it."""

    cluster: ControlPlane
    enforced: Namespace
    free: Namespace
    attempts: list[Attempt] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __enter__(self) -> Stream:
        client = self.cluster.user(DEVELOPER)
        for kind, clients in _CLIENTS.items():
            for _ in range(clients):
                self._threads.append(threading.Thread(target=self._run, args=(client, kind), daemon=True))
        for thread in self._threads:
            thread.start()
        self.proceed()
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * _PATIENCE_SECONDS)
        if error is None:
            self._print()

    # While it runs.

    def proceed(self, times: int = 3, *kinds: Kind) -> None:
        """Wait until pods of each of these kinds (all by default) were asked for and answered so often from now on."""
        since = time.monotonic()
        wanted = kinds or tuple(Kind)

        def done() -> bool:
            later = [attempt.kind for attempt in self.attempts if attempt.started >= since and attempt.status]
            return all(later.count(kind) >= times for kind in wanted)

        self.until(done)

    def until(self, condition: Callable[[], object], seconds: float = _PATIENCE_SECONDS) -> None:
        """Wait until a condition on the attempts holds."""
        with self._changed:
            assert self._changed.wait_for(condition, seconds), "the stream does not go on as expected"

    @property
    def failures(self) -> list[Attempt]:
        """Requests for pods that should be there which did not make them."""
        return [attempt for attempt in self.attempts if attempt.kind is not Kind.VIOLATING and not attempt.created]

    # Afterwards.

    def recoveries(self, since: float = 0.0) -> list[float]:
        """Of each pod whose creation failed: seconds from then, or from `since` if that is later, until it was there.

        `since` is when what was taken away is back.
        """
        first: dict[str, float] = {}
        for attempt in self.failures:
            first.setdefault(attempt.name, attempt.ended)
        created = {attempt.name: attempt.ended for attempt in self.attempts if attempt.created}
        return [max(0.0, created[name] - max(failed, since)) for name, failed in first.items() if name in created]

    def check(self) -> None:
        """Look at every pod that there is: none of them wrongly admitted, none of them lost."""
        admin = self.cluster.admin
        pods = {
            pod["metadata"]["name"]: pod
            for namespace in (self.enforced, self.free)
            for pod in admin.items(namespace.pods())
        }
        wrong = [f"{name}: {problem}" for name, pod in pods.items() if (problem := _problem(pod))]
        lost = {attempt.name for attempt in self.attempts if attempt.created} - pods.keys()
        assert not wrong, f"wrongly admitted: {wrong}"
        assert not lost, f"created and not there: {lost}"
        assert not self.given_up, f"never created: {self.given_up}"
        made = {Kind(name.partition("-")[0]) for name in pods}
        assert made == set(Kind) - {Kind.VIOLATING}, "each kind was really tried"
        refusals = [attempt.message for attempt in self.attempts if attempt.kind is Kind.VIOLATING]
        assert any(rule in message for rule, _ in VIOLATIONS for message in refusals), "the webhook itself refused"

    def _print(self) -> None:
        counts = {kind: sum(attempt.kind is kind for attempt in self.attempts) for kind in Kind}
        made = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        print(f"\nasked for {made}; failed {len(self.failures)}")

    # In its threads.

    def _run(self, client: Client, kind: Kind) -> None:
        while not self._stop.is_set():
            number = next(self._numbers) if kind is Kind.VIOLATING else 0
            self._want(client, make_pod(kind, f"{kind}-{uuid.uuid4().hex[:10]}", number), kind)
            self._stop.wait(_PAUSE_SECONDS)

    def _want(self, client: Client, pod: Object, kind: Kind) -> None:
        delay = _FIRST_RETRY_SECONDS
        gives_up = time.monotonic() + _PATIENCE_SECONDS
        while not self._attempt(client, pod, kind).created and kind is not Kind.VIOLATING:
            if time.monotonic() > gives_up:
                self.given_up.append(pod["metadata"]["name"])
                return
            time.sleep(delay)  # a controller's back-off
            delay = min(2 * delay, _LAST_RETRY_SECONDS)

    def _attempt(self, client: Client, pod: Object, kind: Kind) -> Attempt:
        namespace = self.enforced if kind in (Kind.CONFIDENTIAL, Kind.VIOLATING) else self.free
        with self.cluster.traffic.passing():
            started = time.monotonic()
            try:
                answer = client.request("POST", namespace.pods(), pod)
                status, message = answer.status, answer.message
            except urllib3.exceptions.HTTPError as error:
                status, message = 0, type(error).__name__
            attempt = Attempt(kind, pod["metadata"]["name"], started, time.monotonic(), status, message)
        with self._changed:
            self.attempts.append(attempt)
            self._changed.notify_all()
        return attempt


def _problem(pod: Object) -> str | None:
    """What is wrong with its being there as it is."""
    kind = Kind(pod["metadata"]["name"].partition("-")[0])
    if kind is Kind.VIOLATING:
        return "was admitted"
    if kind is Kind.BYSTANDER:
        return "was changed" if "morphisms" in str(pod["spec"]) or "affinity" in pod["spec"] else None
    return None if _is_confidential(pod) else "is not confidential"


def _is_confidential(pod: Object) -> bool:
    spec = pod["spec"]
    affinity = spec.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    terms = affinity["nodeSelectorTerms"] if affinity else []
    wanted = {"key": SNP_LABEL, "operator": "In", "values": ["true"]}
    return (
        spec.get("runtimeClassName") == "kata-qemu-snp"
        and spec.get("overhead") is not None
        and bool(terms)
        and all(wanted in term.get("matchExpressions", ()) for term in terms)
        and [each["name"] for each in spec.get("initContainers", ())] == ["morphisms-init"]
        and "morphisms.dev/status" in pod["metadata"]["annotations"]
        and spec.get("nodeName") in (None, "snp-0", "snp-1")
    )
