"""The probes' port: what the kubelet is told, and what anybody else in the cluster can do to it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from kbs.messages import TOKEN_PATH
from sidecar.errors import SidecarError
from sidecar.health import (
    HOLD_SECONDS,
    MAX_CONNECTIONS,
    MAX_REQUEST,
    REQUEST_SECONDS,
    STUCK_SECONDS,
    HealthServer,
    Status,
    listen,
)
from sidecar.reasons import Exit
from tests.attestation.verifier.process import Verifier
from tests.sidecar.front import Request, Spoilt, front
from tests.sidecar.pod import Pod
from tests.sidecar.resident import resident
from tests.support.paths import ROOT
from tests.support.until import until


@pytest.fixture
def status() -> Status:
    return Status()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection ends because this process, which has both of its ends, was held up."""
    monkeypatch.setattr("sidecar.health.HOLD_SECONDS", 600.0)
    monkeypatch.setattr("sidecar.health.REQUEST_SECONDS", 600.0)


@pytest.fixture
def hasty(status: Status) -> HealthServer:
    """With the bounds that a pod has."""
    return _serving(status)


@pytest.fixture
def health(status: Status, patient: None) -> HealthServer:
    return _serving(status)


def _serving(status: Status) -> HealthServer:
    server = HealthServer(listen(("127.0.0.1", 0)), status)
    server.start()
    return server


def connect(health: HealthServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", health.port), 60)


def ask(health: HealthServer, request: bytes) -> bytes:
    """Everything that is answered until the connection ends."""
    with connect(health) as connection:
        connection.sendall(request)
        return read(connection)


def read(connection: socket.socket) -> bytes:
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(4096):
            content += more
    return content


def get(health: HealthServer, path: str) -> tuple[int, object]:
    head, _, body = ask(health, f"GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n".encode()).partition(
        b"\r\n\r\n"
    )
    assert f"Content-Length: {len(body)}".encode() in head
    return int(head.split()[1]), json.loads(body)


def test_it_is_started_when_something_is_published_and_alive_all_the_time(
    health: HealthServer, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = {"state": "starting", "published": 0, "troubles": []}
    monkeypatch.setattr("sidecar.health.HOLD_SECONDS", 0.0)
    assert get(health, "/startupz") == (503, waiting)
    assert get(health, "/livez") == (200, waiting)
    status.published = 1
    well = {"state": "well", "published": 1, "troubles": []}
    assert get(health, "/startupz") == get(health, "/livez") == (200, well)
    status.troubles = ["vault-unreachable"]
    troubled = {"state": "troubled", "published": 1, "troubles": ["vault-unreachable"]}
    assert get(health, "/livez") == (200, troubled), "a restart would not help"


def test_a_loop_that_does_not_come_round_is_stuck(status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    status.published = 1
    later = time.monotonic() + STUCK_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert status.answer("/livez")[0] == 503
    status.heartbeat()
    assert status.answer("/livez")[0] == 200


def test_a_startup_probe_hears_of_the_publication_on_the_connection_that_it_opened(
    health: HealthServer, status: Status
) -> None:
    """A kubelet that heard "not yet" would ask again a second later, and the application would wait for that."""
    with connect(health) as connection:
        connection.sendall(b"GET /startupz HTTP/1.1\r\n\r\n")
        assert get(health, "/livez")[0] == 200, "others are answered meanwhile"
        status.published = 1
        assert read(connection).startswith(b"HTTP/1.1 200 ")


def test_a_startup_probe_is_told_not_yet_before_its_timeout(
    health: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.health.HOLD_SECONDS", HOLD_SECONDS)
    started = time.monotonic()
    assert get(health, "/startupz")[0] == 503
    assert time.monotonic() - started >= HOLD_SECONDS


def test_a_probe_that_connects_before_the_server_runs_is_answered(status: Status, patient: None) -> None:
    """The port is open before TLS and cryptography are loaded."""
    listener = listen(("127.0.0.1", 0))
    with socket.create_connection(listener.getsockname(), 60) as connection:
        connection.sendall(b"GET /startupz HTTP/1.1\r\n\r\n")
        HealthServer(listener, status).start()
        status.published = 1
        assert read(connection).startswith(b"HTTP/1.1 200 ")


def test_held_probes_keep_no_one_out(health: HealthServer, status: Status) -> None:
    held = [connect(health) for _ in range(2 * MAX_CONNECTIONS)]
    for each in held:
        each.sendall(b"GET /startupz HTTP/1.1\r\n\r\n")
    assert get(health, "/livez")[0] == 200
    status.published = 1
    assert get(health, "/startupz")[0] == 200
    for each in held:
        each.close()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"POST /livez HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 404),
        (b"GET /livez?x=1 HTTP/1.1\r\n\r\n", 404),
        (b"GET /livez\r\n\r\n", 400),
        (b"GET  /livez HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /" + b"\xff" * 100 + b" HTTP/1.1\r\n\r\n", 404),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * MAX_REQUEST + b"\r\n", 431),
    ],
)
def test_what_is_no_probe_is_refused_in_one_answer(health: HealthServer, request_: bytes, code: int) -> None:
    assert int(ask(health, request_).split()[1]) == code
    assert get(health, "/livez")[0] == 200


@pytest.mark.parametrize("path", ["/livez", "/startupz", "/other"])
def test_head_is_answered_as_get_without_a_body(
    health: HealthServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.health.HOLD_SECONDS", 0.0)
    got, head = (ask(health, f"{method} {path} HTTP/1.1\r\n\r\n".encode()) for method in ("GET", "HEAD"))
    assert head == got[: got.index(b"\r\n\r\n") + 4]


def test_a_request_that_does_not_end_is_dropped(hasty: HealthServer) -> None:
    started = time.monotonic()
    with connect(hasty) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        stop = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.1):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        assert read(connection) == b""
        assert time.monotonic() - started > REQUEST_SECONDS - 0.1, "it ends although the drip goes on"
        stop.set()
        thread.join()


def test_many_idle_connections_do_not_keep_the_kubelet_out(
    health: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    idle = [connect(health) for _ in range(3 * MAX_CONNECTIONS)]
    assert get(health, "/livez")[0] == 200
    # Both ends are in this process.
    assert len(os.listdir("/proc/self/fd")) - before - len(idle) <= MAX_CONNECTIONS + 1
    for each in idle:
        each.close()
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_an_idle_connection_is_dropped(hasty: HealthServer) -> None:
    with connect(hasty) as connection:
        assert read(connection) == b""


def test_a_connection_reset_harms_no_other(health: HealthServer) -> None:
    for _ in range(50):
        with connect(health) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            connection.send(b"GET")
    assert get(health, "/livez")[0] == 200


def test_a_port_that_is_taken_is_a_reason(health: HealthServer) -> None:
    with pytest.raises(SidecarError, match="cannot listen on port") as caught:
        listen(("127.0.0.1", health.port))
    assert caught.value.reason == "health-port"


_EVERYWHERE = """
import socket, sys
from sidecar.health import HealthServer, Status, listen
status = Status()
status.published = 1
health = HealthServer(listen(("::", 0)), status)
health.start()
for address in sys.argv[1:]:
    with socket.create_connection((address, health.port), 60) as connection:
        connection.sendall(b"GET /startupz HTTP/1.1\\r\\n\\r\\n")
        print(connection.recv(100).split()[1].decode())
"""


@pytest.mark.parametrize(
    ("setting", "addresses"),
    [("", ("127.0.0.1", "::1")), ("sysctl -qw net.ipv6.conf.all.disable_ipv6=1;", ("127.0.0.1",))],
    ids=["both families", "no IPv6"],
)
def test_it_listens_on_all_addresses_of_the_pod(setting: str, addresses: Sequence[str]) -> None:
    """In a network namespace of its own: nothing outside can connect meanwhile."""
    script = f'{setting} ip link set lo up && exec "$0" "$@"'
    words = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, sys.executable, "-c", _EVERYWHERE]
    done = subprocess.run([*words, *addresses], cwd=ROOT, capture_output=True, text=True, timeout=120)
    if "unshare" in done.stderr or "sysctl" in done.stderr or "ip:" in done.stderr:
        pytest.skip(f"no network namespace of its own here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["200"] * len(addresses)


@pytest.fixture
def slow_verifier(
    pod: Pod, verifier_process: Verifier, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[threading.Event]:
    """The verifier hands the token out when the event is set."""
    allowed = threading.Event()

    def wait(request: Request, _seen: Sequence[Request]) -> Spoilt | None:
        if request.path.startswith(TOKEN_PATH):
            allowed.wait(120)
        return None

    folder = tmp_path_factory.mktemp("front") / "front"
    with front(folder, (verifier_process.port, pod.plan.verifier.ca), wait) as fronted:
        pod.change(verifier=pod.plan.verifier._replace(url=fronted.url, ca=fronted.ca))
        yield allowed
        allowed.set()


def test_a_real_sidecar_answers_while_it_waits(pod: Pod, slow_verifier: threading.Event) -> None:
    with resident(pod) as sidecar:
        assert sidecar.probe("/startupz") == (503, {"state": "starting", "published": 0, "troubles": []})
        assert sidecar.probe("/livez")[0] == 200
        assert pod.published() == []
        slow_verifier.set()
        sidecar.wait("published")
        until(lambda: sidecar.probe("/startupz")[0] == 200)
        assert sidecar.stop().code == Exit.PUBLISHED


def test_a_port_that_is_taken_ends_the_sidecar_before_anything_is_asked(pod: Pod, health: HealthServer) -> None:
    with resident(pod, port=health.port) as sidecar:
        ended = sidecar.end()
    assert ended.code == Exit.CONFIGURATION
    assert [each["reason"] for each in ended.events] == ["health-port"]
