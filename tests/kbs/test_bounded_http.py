"""One deadline over a whole exchange, and bounds, on real sockets."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.bounded_http import (
    HttpConnection,
    HttpError,
    IncompleteError,
    NoAnswerError,
    TooLargeError,
    host_field,
    open_connection,
)
from kbs.deadline import Deadline, DeadlineExceededError, call_within
from tests.support.paths import ROOT

HEAD = b"HTTP/1.1 200 OK\r\n"
ANSWER = HEAD + b"Content-Length: 5\r\n%s\r\nhello"
LIMIT = 100
# For answers that are nearly right.
_PIECES = (
    HEAD,
    b"HTTP/1.1 100 Continue\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"\r\n",
    b"3\r\n",
    b"abc",
    b"0\r\n",
    b"\n",
    b" ",
)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Our end and the peer's."""
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def connected(ours: socket.socket, seconds: float = 60) -> HttpConnection:
    return HttpConnection(ours, "localhost", Deadline(seconds))


def ask(connection: HttpConnection, limit: int = LIMIT) -> tuple[int, bytes]:
    """Status and body of the answer to a request."""
    connection.send("GET", "/")
    head = connection.receive_head()
    return head.status, connection.receive_body(head, limit)


def answered(pair: Pair, answer: bytes, limit: int = LIMIT) -> tuple[int, bytes]:
    """What is read of this answer, after which the peer ends the connection."""
    ours, theirs = pair
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    return ask(connected(ours), limit)


def test_a_request_is_written_as_servers_read_it(pair: Pair) -> None:
    ours, theirs = pair
    connected(ours).send("POST", "/kbs/v0/auth", [("Content-Type", "application/json")], b"{}")
    assert theirs.recv(4096) == (
        b"POST /kbs/v0/auth HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("/", "a\r\nX: y"),
        ("/", "a\nX: y"),
        ("/", "\u20ac"),
        ("/\r\nX: y", "a"),
        ("/", "a\0"),
    ],
)
def test_a_value_cannot_add_a_line_to_a_request(pair: Pair, target: str, value: str) -> None:
    ours, theirs = pair
    with pytest.raises(ValueError, match="printable ASCII"):
        connected(ours).send("GET", target, [("X-Vault-Namespace", value)])
    ours.close()
    assert theirs.recv(4096) == b""


def test_an_answer_that_closes_the_connection_is_read_whole(pair: Pair) -> None:
    ours, theirs = pair
    body = b"x" * 200_000  # more than one read
    sender = threading.Thread(
        target=theirs.sendall,
        args=(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),),
    )
    sender.start()
    connection = connected(ours)
    assert ask(connection, len(body)) == (200, body)
    sender.join()
    assert not connection.is_ready
    assert ours.fileno() == -1, "closed when the answer was read"


def test_a_connection_that_is_kept_takes_a_deadline_for_each_request(pair: Pair) -> None:
    ours, theirs = pair
    connection = connected(ours)
    for _ in range(2):
        connection.deadline = Deadline(60)
        theirs.sendall(ANSWER % b"")
        assert ask(connection) == (200, b"hello")
    connection.deadline = Deadline(0)
    with pytest.raises(TimeoutError):
        ask(connection)


def test_an_answer_that_no_request_asked_for_is_not_taken_for_the_next_one(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(ANSWER % b"" + HEAD + b"Content-Length: 4\r\n\r\nevil")
    connection = connected(ours)
    assert ask(connection) == (200, b"hello")
    assert not connection.is_ready
    with pytest.raises(NoAnswerError):
        connection.send("GET", "/")


def test_an_answer_that_was_not_read_is_not_taken_for_the_next_one(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(ANSWER % b"")
    connection = connected(ours)
    connection.send("GET", "/")
    connection.receive_head()
    with pytest.raises(NoAnswerError):
        connection.send("GET", "/")


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (HEAD + b"transfer-encoding:\tChunked \r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n00\r\nX: y\r\n\r\n", b"hello"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 8 + ANSWER % b"", b"hello"),
        (b"HTTP/1.1 200\r\nContent-Length: 005\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"),
        (ANSWER % b"Date: a\r\nDate: b\r\nEmpty:\r\n", b"hello"),
    ],
)
def test_every_framing_of_a_body_is_read(pair: Pair, answer: bytes, body: bytes) -> None:
    status, found = answered(pair, answer)
    assert (status in (200, 204), found) == (True, body)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_an_answer_may_arrive_in_pieces_of_any_size(pair: Pair, size: int) -> None:
    ours, theirs = pair
    answer = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

    def send() -> None:
        for at in range(0, len(answer), size):
            theirs.sendall(answer[at : at + size])

    sender = threading.Thread(target=send)
    sender.start()
    connection = connected(ours)
    assert ask(connection) == (200, b"hello")
    sender.join()
    assert connection.is_ready


def chunked(body: bytes) -> bytes:
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"hello\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 +20 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + ANSWER % b"",
        HEAD[:-2],
        HEAD + b"Content-Length: 5\r\n",
        # Two framings, or one that two readers understand differently.
        ANSWER % b"Content-Length: 6\r\n",
        ANSWER % b"Content-Length: 5\r\n",
        ANSWER % b"Transfer-Encoding: chunked\r\n",
        HEAD + b"Content-Length: +5\r\n\r\nhello",
        HEAD + b"Content-Length: -5\r\n\r\nhello",
        HEAD + b"Content-Length: 1_0\r\n\r\nhellohello",
        HEAD + b"Content-Length: 0x5\r\n\r\nhello",
        HEAD + b"Content-Length: \xb2\r\n\r\nhello",
        HEAD + b"Content-Length:\r\n\r\nhello",
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: identity\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        # Lines that are not fields.
        ANSWER % b" folded: x\r\n",
        ANSWER % b"X: y\r\n\tmore\r\n",
        ANSWER % b"X : y\r\n",
        ANSWER % b"X\r\n",
        ANSWER % b": y\r\n",
        ANSWER % b"X: y\nContent-Length: 6\r\n",
        ANSWER % b"X: y\rContent-Length: 6\r\n",
        ANSWER % b"X: \0\r\n",
        ANSWER % b"\xc3\xa4: y\r\n",
        ANSWER % (b"X: y\r\n" * 200),
        ANSWER % (b"X: " + b"y" * 70_000 + b"\r\n"),
        chunked(b"5\r\nhello!\r\n0\r\n\r\n"),
        chunked(b"-5\r\nhello\r\n0\r\n\r\n"),
        chunked(b"0x5\r\nhello\r\n0\r\n\r\n"),
        chunked(b"\r\nhello\r\n0\r\n\r\n"),
        chunked(b"5 5\r\nhello\r\n0\r\n\r\n"),
        chunked(b"5\nhello\n0\n\n"),
        chunked(b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n"),
        chunked(b"0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n"),
    ],
)
def test_what_is_not_an_answer_or_could_be_read_in_two_ways_is_refused(pair: Pair, answer: bytes) -> None:
    ours, theirs = pair
    sender = threading.Thread(target=send_while_read, args=(theirs, answer))
    sender.start()
    connection = connected(ours)
    with pytest.raises(HttpError) as caught:
        ask(connection)
    assert "hello" not in str(caught.value)
    assert not connection.is_ready
    connection.close()
    sender.join()


def send_while_read(theirs: socket.socket, answer: bytes) -> None:
    """Send it all and end; the other side may have seen enough before."""
    with contextlib.suppress(OSError):
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)


def test_no_answer_at_all_is_told_from_half_of_one(pair: Pair) -> None:
    with pytest.raises(NoAnswerError):
        answered(pair, b"")


@pytest.mark.parametrize(
    "body",
    [
        (ANSWER % b"")[:-1],
        chunked(b"3e8\r\nabc"),
        chunked(b"5\r\nhello\r\n"),
        chunked(b"5\r\nhello\r\n0\r\n"),
    ],
)
def test_a_body_that_ends_too_early_is_refused(pair: Pair, body: bytes) -> None:
    with pytest.raises(IncompleteError):
        answered(pair, body, 1000)


def test_a_trickle_of_bytes_does_not_extend_the_deadline(pair: Pair) -> None:
    ours, theirs = pair
    ended = threading.Event()

    def trickle() -> None:
        theirs.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        while not ended.wait(0.02):
            try:
                theirs.sendall(b"x")
            except OSError:
                return

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            ask(connected(ours, 0.4))
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 101\r\n\r\n", b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n65\r\n"],
)
def test_a_body_beyond_the_limit_is_refused(pair: Pair, head: bytes) -> None:
    with pytest.raises(TooLargeError):
        answered(pair, HEAD + head + b"x" * (LIMIT + 1))


def test_a_body_of_the_limit_is_taken(pair: Pair) -> None:
    assert answered(pair, HEAD + b"\r\n" + b"x" * LIMIT) == (200, b"x" * LIMIT)


@given(data=st.binary(max_size=400) | st.lists(st.sampled_from(_PIECES), max_size=30).map(b"".join))
def test_whatever_arrives_is_an_answer_or_one_of_four_errors(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.suppress(HttpError, TooLargeError):
        status, body = answered((ours, theirs), data)
        assert 200 <= status <= 999
        assert len(body) <= LIMIT


def test_an_address_that_refuses_leaves_the_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", each.getsockname()) for each in (bound, listener)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: found)
        with open_connection("two.example", 1, Deadline(60)) as connection:
            assert connection.getpeername() == listener.getsockname()


def test_an_address_that_swallows_packets_does_not_take_the_whole_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is full drops what would open another connection, as a firewall does."""
    monkeypatch.setattr("kbs.bounded_http._ADDRESS_SECONDS", 0.1)
    deadline = Deadline(600)
    with socket.socket() as listener, contextlib.ExitStack() as opened:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)

        def connect_until_full() -> None:
            while True:
                opened.enter_context(open_connection("127.0.0.1", listener.getsockname()[1], deadline))

        with pytest.raises(TimeoutError):
            connect_until_full()
    assert deadline.remaining() > 300


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
        call_within(Deadline(60), "failing", fail)
    assert call_within(Deadline(60), "working", lambda: 3) == 3


def test_a_deadline_that_has_passed_has_no_time_left() -> None:
    deadline = Deadline(0)
    assert deadline.remaining() == 0
    with pytest.raises(DeadlineExceededError):
        deadline.timeout()


def test_a_pod_imports_no_package_for_it() -> None:
    """Its cold start pays for each module."""
    code = "import sys, kbs.bounded_http; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    heavy = {
        "aiohttp",
        "asyncio",
        "attestation",
        "cryptography",
        "email",
        "http",
        "joserfc",
        "pydantic",
        "server",
        "ssl",
    }
    assert not set(done.stdout.split()) & heavy


@pytest.mark.parametrize(
    ("host", "port", "default", "field"),
    [
        ("vault.example", 8200, 443, "vault.example:8200"),
        ("vault.example", 443, 443, "vault.example"),
        ("127.0.0.1", 443, None, "127.0.0.1:443"),
        ("::1", 8006, None, "[::1]:8006"),
        ("::1", 443, 443, "[::1]"),
    ],
)
def test_the_host_field_names_a_port_that_is_not_the_usual_one(
    host: str, port: int, default: int | None, field: str
) -> None:
    assert host_field(host, port, default) == field
