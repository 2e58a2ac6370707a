"""What is taken away from admission while pods are being created, and what that costs: some waiting at most.

Nothing is wrongly admitted in any of it. Certificates that are replaced under load are test_certificates.py's; a
cluster that starts while our webhook is absent, broken or hanging is test_registration.py's.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import urllib3
import yaml

from tests.cluster.client import Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installation import CALL_SECONDS, NAME, SYSTEM, Installation, Replica
from tests.cluster.link import Link
from tests.cluster.namespace import DEVELOPER, Namespace
from tests.cluster.stream import Attempt, Kind, Stream, make_pod
from tests.support import packages
from webhook.configuration.model import Configuration

Make = Callable[..., Namespace]
# A controller tries again, and is served, within this time; a second or two on a machine that does nothing else.
_RECOVERY_SECONDS = 150
# As the manifests have it: what hangs is to cost its time.
_CALL_SECONDS = 5
_CREATES, _FEWEST_ROUNDS = 1000, 2
# Ten minutes and what the test took.
_TOO_OLD = re.compile(r"cluster is [6-9]\d\d")


@pytest.fixture
def stream(cluster: ControlPlane, morphisms: Installation, namespace: Make) -> Iterator[Stream]:
    """Pods, as soon as its block is entered; at the end each of them is looked at."""
    enforced, free = namespace("enforce"), namespace()
    stream = Stream(cluster, enforced, free)
    yield stream
    if stream.attempts:
        stream.check()
    for each in (enforced, free):
        cluster.admin.delete(each.pods(), gracePeriodSeconds="0")


@pytest.fixture
def repaired(morphisms: Installation) -> Iterator[Installation]:
    """The installation, whose replicas all run again at the end."""
    yield morphisms
    for replica in morphisms.replicas:
        if replica.process.running:
            replica.process.signal(signal.SIGCONT)
        else:
            replica.process.start(wait=False)
    for replica in morphisms.replicas:
        replica.process.wait_until_ready()
    morphisms.wait_until_answered()


@pytest.mark.slow
def test_a_thousand_creates_while_replicas_restart_one_after_another_all_succeed(
    repaired: Installation, stream: Stream
) -> None:
    rounds = 0
    with stream:
        while rounds < _FEWEST_ROUNDS or len(_created_since(stream, 0)) < _CREATES:
            for replica in repaired.replicas:
                pid = replica.process.pid
                assert repaired.end(replica) == 0, "it answered every request that it had accepted"
                stream.proceed()
                replica.process.start()
                assert replica.process.pid != pid
                stream.proceed()
            rounds += 1
    print(f"{len(_created_since(stream, 0))} created during {rounds} restarts of each replica")
    assert stream.failures == []
    # A refusal is the answer of a replica too, and must not come of a lost request.
    assert [str(attempt) for attempt in stream.attempts if "failed calling webhook" in attempt.message] == []


def test_a_killed_replica_costs_one_more_try(repaired: Installation, stream: Stream) -> None:
    with stream:
        repaired.replicas[0].process.kill()
        stream.proceed(20)
    _recovered(stream)


def test_without_any_replica_a_replica_set_waits_and_then_has_its_pods(
    cluster: ControlPlane, repaired: Installation, stream: Stream
) -> None:
    template = make_pod(Kind.CONFIDENTIAL, "unused")
    with stream:
        for replica in repaired.replicas:
            replica.process.kill()
        _apply_replica_set(cluster, stream.enforced, template, 10)
        cluster.admin.until(
            stream.enforced.path("events"),
            lambda events: any("failed calling webhook" in event["message"] for event in events),
            fieldSelector="reason=FailedCreate",
        )
        stream.proceed(10, Kind.BYSTANDER)
        away = len(stream.failures)
        for replica in repaired.replicas:
            replica.process.start(wait=False)
        for replica in repaired.replicas:
            replica.process.wait_until_ready()
        back = time.monotonic()
        cluster.admin.until(
            stream.enforced.pods(), lambda pods: len(pods) >= 10, seconds=_RECOVERY_SECONDS, labelSelector="app=set"
        )
        print(f"\nthe ReplicaSet had its pods {time.monotonic() - back:.1f} s after the webhook was back")
        stream.proceed()
    assert away, "pods did wait for it"
    assert not any(attempt.kind is Kind.BYSTANDER for attempt in stream.failures)
    _recovered(stream, back)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("kube-apiserver", "stopped"),
        pytest.param("kube-apiserver", "killed", marks=pytest.mark.slow),
        ("etcd", "killed"),
    ],
)
def test_a_control_plane_that_restarts_lets_nothing_pass(
    cluster: ControlPlane, repaired: Installation, stream: Stream, name: str, how: str
) -> None:
    """Among the rest: an API server that has just started, and does not know of the webhook yet, admits nobody."""
    process, api_server = cluster.processes[name], cluster.processes["kube-apiserver"]
    with stream:
        process.stop() if how == "stopped" else process.kill()
        away = time.monotonic()
        process.wait_until(lambda: not _is_ready(cluster)) if name == "etcd" else None
        again = time.monotonic()
        process.start()
        api_server.wait_until_ready()
        back = time.monotonic()
        stream.proceed(5)
        for replica in repaired.replicas:
            replica.process.wait_until(replica.ready)
    assert not any(attempt.created and away < attempt.started < attempt.ended < again for attempt in stream.attempts)
    _recovered(stream, back)


@pytest.fixture
def hasty(repaired: Installation) -> Iterator[Installation]:
    """The API server waits no longer for the replicas than it does with the manifests."""
    repaired.wait_for_calls(_CALL_SECONDS)
    yield repaired
    repaired.wait_for_calls(CALL_SECONDS)


@pytest.mark.usefixtures("hasty")
def test_one_hanging_replica_costs_a_timeout_and_another_try(repaired: Installation, stream: Stream) -> None:
    """The API server's own timeout answers; it does not ask again by itself."""
    with stream:
        hangs = _until_one_hangs(repaired, stream)
        stream.until(lambda: len(_created_since(stream, hangs)) > 20)
    assert not any(attempt.kind is Kind.BYSTANDER for attempt in stream.failures)
    _recovered(stream)


@pytest.mark.usefixtures("hasty")
def test_while_all_hang_nobody_gets_in_and_bystanders_notice_nothing(repaired: Installation, stream: Stream) -> None:
    with stream:
        for replica in repaired.replicas:
            replica.process.signal(signal.SIGSTOP)
        stream.proceed(2, Kind.CONFIDENTIAL, Kind.ASKING, Kind.VIOLATING)
        stopped = time.monotonic()
        stream.proceed(20, Kind.BYSTANDER)
        assert {attempt.kind for attempt in _created_since(stream, stopped)} == {Kind.BYSTANDER}
        for replica in repaired.replicas:
            replica.process.signal(signal.SIGCONT)
        back = time.monotonic()
        stream.proceed()
    assert not any(attempt.kind is Kind.BYSTANDER for attempt in stream.failures)
    assert [str(each) for each in stream.failures if "failed calling webhook" not in each.message] == []
    _recovered(stream, back)


@pytest.fixture
def wired(cluster: ControlPlane, repaired: Installation) -> Iterator[Link]:
    """Between the replicas and the API server there is a wire, for the time of the test."""
    files = [Path(replica.process.environment["KUBECONFIG"]) for replica in repaired.replicas]
    texts = [file.read_text() for file in files]
    with Link(cluster.port) as link:
        for replica, file, text in zip(repaired.replicas, files, texts, strict=True):
            file.write_text(text.replace(cluster.url, f"https://127.0.0.1:{link.port}"))
            replica.process.kill()
            replica.process.start(wait=False)
        for replica in repaired.replicas:
            replica.process.wait_until_ready()
        repaired.wait_until_answered()
        yield link
        for replica, file, text in zip(repaired.replicas, files, texts, strict=True):
            file.write_text(text)
            replica.process.kill()


def test_a_watch_that_is_cut_costs_nothing(
    cluster: ControlPlane, repaired: Installation, wired: Link, stream: Stream, namespace: Make
) -> None:
    with stream:
        for _ in range(3):
            before = wired.accepted
            wired.cut()
            stream.proceed()
            wired.mend()
            repaired.replicas[0].process.wait_until(partial(_has_called, wired, before))
        tightened = namespace("audit")
        wired.cut()
        # Unheard of by any replica; the path says that it is enforced.
        unheard = namespace("enforce")
        assert "placement/node-name" in _refusal(cluster, unheard)
        cluster.user(DEVELOPER).create(unheard.pods(), make_pod(Kind.CONFIDENTIAL, "confidential"))
        # Still in audit to a replica that had heard of it; the path says that it is enforced now.
        tightened.label("enforce")
        assert "placement/node-name" in _refusal(cluster, tightened)
        stream.proceed()
        wired.mend()
        mended = time.monotonic()
        for replica in repaired.replicas:
            replica.process.wait_until(partial(_view_is_newer_than, replica, mended))
        stream.proceed()
    assert stream.failures == []


def _refusal(cluster: ControlPlane, namespace: Namespace) -> str:
    answer = cluster.user(DEVELOPER).request("POST", namespace.pods(), make_pod(Kind.VIOLATING, "violating"))
    assert answer.status == 403
    return answer.message


@contextlib.contextmanager
def _alone_with_a_clock(installation: Installation, clock: Path) -> Iterator[Replica]:
    """One replica, whose time a file says (faketime's); the other one is gone."""
    clock.write_text("+0")
    other, replica = installation.replicas
    other.process.kill()
    preloaded = {"LD_PRELOAD": _faketime_library(), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    replica.process.environment.update(preloaded)
    try:
        replica.process.kill()
        replica.process.start()
        installation.wait_until_answered()
        yield replica
    finally:
        for name in preloaded:
            del replica.process.environment[name]


@pytest.mark.skipif(shutil.which("faketime") is None, reason=packages.without("faketime"))
def test_a_view_that_is_too_old_admits_nobody_who_needs_a_runtime_class(
    cluster: ControlPlane, repaired: Installation, wired: Link, stream: Stream, tmp_path: Path
) -> None:
    """RBAC is lost, which no replica can help: it stays ready, and ten minutes pass for it."""
    clock = tmp_path / "clock"
    path = f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{NAME}"
    binding = cluster.admin.get(path)
    with _alone_with_a_clock(repaired, clock) as replica:
        cluster.admin.delete(path)
        try:
            with stream:
                wired.cut()
                wired.mend()
                replica.process.wait_until(lambda: '"status":403' in replica.process.log.read_text())
                stream.proceed()
                clock.write_text("+600")
                replica.process.wait_until(lambda: _view_age(replica) > 300)
                late = time.monotonic()
                for kind in (Kind.CONFIDENTIAL, Kind.ASKING):
                    stream.until(
                        lambda kind=kind: any(  # type: ignore[misc]
                            _TOO_OLD.search(attempt.message) and attempt.kind is kind for attempt in stream.failures
                        )
                    )
                stream.proceed(5, Kind.BYSTANDER)
                assert {attempt.kind for attempt in _created_since(stream, late)} == {Kind.BYSTANDER}
                replica.process.wait_until(replica.ready)  # the others are no better off
                _recreate(cluster, binding)
                replica.process.wait_until(lambda: _view_age(replica) < 300)
                back = time.monotonic()
                stream.proceed()
        finally:
            _recreate(cluster, binding)
    # The jump itself ends what was under way, of those that ask too.
    assert not any(attempt.kind is Kind.BYSTANDER for attempt in stream.failures)
    _recovered(stream, back)


def _recreate(cluster: ControlPlane, item: Object) -> None:
    kept = {key: item["metadata"][key] for key in ("name", "labels") if key in item["metadata"]}
    cluster.admin.apply({**item, "metadata": kept})


def test_a_replica_that_the_api_server_does_not_answer_makes_room_for_the_other(
    cluster: ControlPlane, repaired: Installation, wired: Link, stream: Stream
) -> None:
    """It cannot reach the API server, which reaches it still: nobody notices, because calls go to the other one."""
    cut_off, other = repaired.replicas
    file = Path(other.process.environment["KUBECONFIG"])
    file.write_text(file.read_text().replace(f"https://127.0.0.1:{wired.port}", cluster.url))
    other.process.kill()
    other.process.start()
    repaired.wait_until_answered()
    with stream:
        wired.cut()
        stream.proceed()
        cut_off.process.wait_until(lambda: not cut_off.ready())
        cut_off.process.wait_until(lambda: "api_server_silent" in cut_off.process.log.read_text())
        stream.proceed()
        other.process.wait_until(other.ready)
        wired.mend()
        cut_off.process.wait_until(cut_off.ready)
        stream.proceed()
    assert stream.failures == []


def _faketime_library() -> str:
    shown = subprocess.run(
        ["faketime", "-f", "+0", "printenv", "LD_PRELOAD"], capture_output=True, text=True, check=True
    )
    return shown.stdout.strip()


def _view_age(replica: Replica) -> float:
    """In seconds; no number where the answer was cut off, as it may be while the clock jumps."""
    try:
        return _metric(replica, "morphisms_snapshot_age_seconds")
    except urllib3.exceptions.HTTPError:
        return math.nan


def _view_is_newer_than(replica: Replica, moment: float) -> bool:
    return _view_age(replica) < time.monotonic() - moment


def _has_called(link: Link, before: int) -> bool:
    return link.accepted > before


def test_a_bad_configuration_keeps_the_last_good_one(
    cluster: ControlPlane, repaired: Installation, stream: Stream
) -> None:
    good = repaired.configuration()
    in_force = f'morphisms_configuration_info{{digest="{Configuration.model_validate(good).digest}"}} 1.0'
    starting, other = repaired.replicas
    try:
        with stream:
            _deliver(repaired, "version: 1\ndefaultProfile: none-such\n")
            for replica in repaired.replicas:
                replica.process.wait_until(partial(_refuses_its_file, replica))
                assert in_force in replica.metrics()
                replica.process.wait_until(replica.ready)
            stream.proceed()
        assert stream.failures == []
        # Who starts with it says what is wrong with it, and serves nothing.
        starting.process.kill()
        starting.process.start(wait=False)
        assert _ended(starting) == 2
        last = json.loads(starting.process.log.read_text().splitlines()[-1])
        assert last["event"] == "start_failed"
        assert "none-such" in str(last["problems"])
        other.process.wait_until(other.ready)
    finally:
        _deliver(repaired, yaml.safe_dump(good))


def _deliver(installation: Installation, text: str) -> None:
    """Change the ConfigMap, and do the kubelet's part."""
    body = {"data": {"configuration.yaml": text}}
    installation.cluster.admin.patch(f"/api/v1/namespaces/{SYSTEM}/configmaps/{NAME}", body)
    for replica in installation.replicas:
        file = replica.folder / "configuration" / "configuration.yaml"
        unfinished = file.with_suffix(".new")
        unfinished.write_text(text)
        unfinished.replace(file)


def _refuses_its_file(replica: Replica) -> bool:
    return _metric(replica, 'morphisms_file_last_reload_success{file="configuration"}') == 0


def _ended(replica: Replica) -> int | None:
    with contextlib.suppress(RuntimeError):
        replica.process.wait_until(lambda: not replica.process.running)
    return replica.process.stop()


def _metric(replica: Replica, sample: str) -> float:
    return next(float(line.split()[-1]) for line in replica.metrics().splitlines() if line.startswith(f"{sample} "))


def _is_ready(cluster: ControlPlane) -> bool:
    """Whether the API server says so of itself."""
    try:
        return cluster.admin.request("GET", "/readyz", seconds=20).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def _until_one_hangs(installation: Installation, stream: Stream) -> float:
    """Have a replica hang to which a connection of the API server leads, until a call to it has timed out. Since when.

    The API server keeps its connections, and after restarts all of them may lead to one replica.
    """

    def has_timed_out() -> bool:
        return any("deadline exceeded" in attempt.message for attempt in stream.failures)

    def has_told(hangs: float) -> bool:
        # Those that began so much later have met no call that waits for it.
        return has_timed_out() or len(_created_since(stream, hangs + 2 * _CALL_SECONDS)) > 20

    for replica in installation.replicas:
        replica.process.signal(signal.SIGSTOP)
        hangs = time.monotonic()
        stream.until(partial(has_told, hangs))
        if has_timed_out():
            return hangs
        replica.process.signal(signal.SIGCONT)
        replica.process.wait_until(replica.ready)
    raise AssertionError("no connection leads to any replica")


def _created_since(stream: Stream, since: float) -> list[Attempt]:
    return [attempt for attempt in stream.attempts if attempt.created and attempt.started > since]


def _recovered(stream: Stream, since: float = 0.0) -> None:
    """Every pod that failed came to be soon after; the stream itself holds the rest."""
    took = stream.recoveries(since)
    print(f"{len(took)} pods tried again, the slowest was there after {max(took, default=0.0):.1f} s")
    assert len(took) == len({attempt.name for attempt in stream.failures})
    assert max(took, default=0.0) <= _RECOVERY_SECONDS, [str(attempt) for attempt in stream.failures]


def _apply_replica_set(cluster: ControlPlane, namespace: Namespace, pod: Object, replicas: int) -> None:
    labels = {"app": "set"}
    template = {"metadata": {"labels": labels, "annotations": pod["metadata"]["annotations"]}, "spec": pod["spec"]}
    cluster.admin.create(
        namespace.path("replicasets", group="apps/v1"),
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": "confidential"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        },
    )
