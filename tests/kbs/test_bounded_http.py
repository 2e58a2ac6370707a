"""One deadline over a whole exchange, and bounds, on real sockets."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time

import pytest

from kbs.bounded_http import TimedSocket, TooLargeError, open_connection, read_body
from kbs.deadline import Deadline, DeadlineExceededError, call_within
from tests.support.paths import ROOT

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n%s\r\nhello"
LIMIT = 100


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    """Our end and the peer's."""
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def ask(timed: TimedSocket) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = timed
    connection.request("GET", "/")
    return connection.getresponse()


def test_an_answer_that_closes_the_connection_is_read_whole(pair: tuple[socket.socket, socket.socket]) -> None:
    """http.client closes the socket as soon as it has read the header `Connection: close`, before the body."""
    ours, theirs = pair
    body = b"x" * 20_000  # more than one read of a buffered reader
    theirs.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    with ask(TimedSocket(ours, Deadline(5))) as response:
        assert read_body(response, len(body)) == body
    assert ours.fileno() == -1, "closed when the answer was read"


def test_a_connection_that_is_kept_takes_a_deadline_for_each_request(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    timed = TimedSocket(ours, Deadline(5))
    for _ in range(2):
        timed.deadline = Deadline(5)
        theirs.sendall(ANSWER % b"")
        with ask(timed) as response:
            assert read_body(response, LIMIT) == b"hello"
    timed.deadline = Deadline(0)
    with pytest.raises(TimeoutError):
        ask(timed)
    assert ours.fileno() != -1


def test_a_trickle_of_bytes_does_not_extend_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ended = threading.Event()

    def trickle() -> None:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        while not ended.wait(0.02):
            try:
                theirs.sendall(b"x")
            except OSError:
                return

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    try:
        with pytest.raises(TimeoutError), ask(TimedSocket(ours, Deadline(0.4))) as response:
            read_body(response, LIMIT)
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("head", [b"Content-Length: 101\r\n\r\n", b"\r\n"])
def test_a_body_beyond_the_limit_is_refused(pair: tuple[socket.socket, socket.socket], head: bytes) -> None:
    ours, theirs = pair
    theirs.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"x" * (LIMIT + 1))
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(TooLargeError), ask(TimedSocket(ours, Deadline(5))) as response:
        read_body(response, LIMIT)


def test_a_body_of_the_limit_is_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * LIMIT)
    theirs.shutdown(socket.SHUT_WR)
    with ask(TimedSocket(ours, Deadline(5))) as response:
        assert read_body(response, LIMIT) == b"x" * LIMIT


def test_a_body_that_ends_too_early_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall((ANSWER % b"")[:-1])
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(http.client.IncompleteRead), ask(TimedSocket(ours, Deadline(5))) as response:
        read_body(response, LIMIT)


def test_an_address_that_refuses_leaves_the_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", each.getsockname()) for each in (bound, listener)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: found)
        with open_connection("two.example", 1, Deadline(5)) as connection:
            assert connection.getpeername() == listener.getsockname()


def test_a_call_without_a_timeout_of_its_own_is_left_behind() -> None:
    release = threading.Event()
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        call_within(Deadline(0.1), "stuck", release.wait)
    assert time.monotonic() - started >= 0.1
    release.set()


def test_what_a_call_raises_is_raised() -> None:
    def fail() -> None:
        raise KeyError("name")

    with pytest.raises(KeyError, match="name"):
        call_within(Deadline(5), "failing", fail)
    assert call_within(Deadline(5), "working", lambda: 3) == 3


def test_a_deadline_that_has_passed_has_no_time_left() -> None:
    deadline = Deadline(0)
    assert deadline.remaining() == 0
    with pytest.raises(DeadlineExceededError):
        deadline.timeout()


def test_a_pod_imports_no_package_for_it() -> None:
    """Its cold start pays for each module."""
    code = "import sys, kbs.bounded_http; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    heavy = {"aiohttp", "asyncio", "attestation", "cryptography", "joserfc", "pydantic", "server", "sidecar", "ssl"}
    # http.client imports ssl where it is there.
    assert set(done.stdout.split()) & heavy <= {"ssl"}
