"""Attacks on a server's memory, handlers and connections, from several loopback addresses: others get their answers."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import Counter

from server.connections import Connection, Connections
from server.limits import Limits
from server.messages import Intake, RequestInfo, Response
from server.turns import Turns
from tests.server.conftest import Client
from tests.support.ports import has_ipv6
from tests.support.until import SECONDS, until_async

KIB = 1 << 10
MIB = 1 << 20
BODY = b"x" * 12_600
ATTACKER, HONEST = ("127.0.0.2", 0), ("127.0.0.3", 0)

Connect = Callable[..., Awaitable[Client]]


async def echo(body: bytes, _info: RequestInfo) -> Response:
    return Response(200, body)


@asynccontextmanager
async def unfinished(connect: Connect, address: Any, count: int, size: int, peer: Any) -> AsyncIterator[None]:
    """`count` connections of one peer that announce a body of `size` bytes, send all but one, and start again."""
    head = f"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n".encode()
    ready = asyncio.Semaphore(0)

    async def hold() -> None:
        while True:
            try:
                client = await connect(address, local_addr=peer)
                await client.send(head + b"x" * (size - 1))
                ready.release()
                await client.receive()
            except (OSError, EOFError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(hold()) for _ in range(count)]
    try:
        async with asyncio.timeout(SECONDS):
            for _ in range(count):
                await ready.acquire()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("honest", [HONEST, ATTACKER], ids=["another address", "the same address"])
async def test_unfinished_large_bodies_keep_no_small_one_out(
    process: Any, connect: Connect, new_pair: Any, tmp_path: Any, honest: Any
) -> None:
    """Five connections that hold unfinished bodies of 16 MiB, in a server that holds 64 MiB."""
    new_pair().write(tmp_path)
    child = process(tmp_path, lame_duck=0.1)
    listening = json.loads(await asyncio.get_running_loop().run_in_executor(None, child.stderr.readline))
    address = tuple(listening["address"])
    async with unfinished(connect, address, 5, 16 * MIB, ATTACKER):
        client = await connect(address, local_addr=honest)
        probe = await connect(tuple(listening["metrics"]), tls=False)
        for _ in range(40):
            answer = await client.request("POST", "/echo", BODY)
            assert (answer.status, answer.body) == (200, BODY)
            assert (await probe.request("GET", "/readyz")).body == b"ok\n"


async def test_unfinished_small_bodies_of_one_peer_keep_no_other_out(serve: Any, connect: Connect) -> None:
    """They use up the reserve for small bodies too; a newcomer takes the room back."""
    limits = {"bodies_bytes": 4 * MIB}
    service = await serve({("POST", "/echo"): echo}, limits=limits)
    async with unfinished(connect, service.address, 30, 200 * KIB, ATTACKER):
        client = await connect(service.address, local_addr=HONEST)
        for size in (12, 100 * KIB, 1 * MIB):
            assert (await client.request("POST", "/echo", b"x" * size)).status == 200
        assert (await client.request("GET", "/readyz")).body == b"ok\n"


async def test_one_peer_may_be_all_load(serve: Any, connect: Connect) -> None:
    """Behind NAT or konnectivity all requests come from one address: no share binds there."""
    entered, release = asyncio.Semaphore(0), asyncio.Event()

    async def held(body: bytes, _info: RequestInfo) -> Response:
        entered.release()
        await release.wait()
        return Response(200, body)

    service = await serve({("POST", "/held"): held}, limits={"bodies_bytes": 4 * MIB})
    size = 200 * KIB
    clients = [await connect(service.address, local_addr=ATTACKER) for _ in range(19)]
    waiting = [asyncio.create_task(client.request("POST", "/held", b"x" * size)) for client in clients]
    async with asyncio.timeout(SECONDS):
        for _ in clients:
            await entered.acquire()
    release.set()
    assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}


async def test_running_handlers_of_one_peer_leave_room_for_another(serve: Any, connect: Connect) -> None:
    entered, release = asyncio.Semaphore(0), asyncio.Event()

    async def held(body: bytes, _info: RequestInfo) -> Response:
        entered.release()
        await release.wait()
        return Response(200, body)

    service = await serve({("POST", "/held"): held, ("POST", "/echo"): echo}, limits={"concurrency": 32})
    honest = await connect(service.address, local_addr=HONEST)
    assert (await honest.request("POST", "/echo", b"x")).status == 200
    waiting = []
    for number in range(32):
        client = await connect(service.address, local_addr=ATTACKER)
        waiting.append(asyncio.create_task(client.request("POST", "/held", b"x")))
        if number < 30:
            await entered.acquire()
    refused = [answer.status for answer in await asyncio.gather(*waiting[30:])]
    assert refused == [429, 429]
    assert (await honest.request("POST", "/echo", b"x")).status == 200
    assert (await honest.request("GET", "/readyz")).body == b"ok\n"
    release.set()
    await asyncio.gather(*waiting)


@asynccontextmanager
async def grinding(connect: Connect, address: Any, peers: list[Any], each: int) -> AsyncIterator[None]:
    """From each of these peers so many connections that send complete large bodies without a pause."""

    async def grind(peer: Any) -> None:
        client = await connect(address, local_addr=peer)
        while True:
            await client.request("POST", "/grind", b"x" * MIB)

    tasks = [asyncio.create_task(grind(peer)) for peer in peers for _ in range(each)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Grinder:
    """A handler that keeps the processor for a while, and notes whose body it had, as the first byte says."""

    def __init__(self) -> None:
        self.handled: list[bytes] = []

    async def __call__(self, body: bytes, _info: RequestInfo) -> Response:
        self.handled.append(body[:1])
        if len(body) > 100_000:
            time.sleep(0.02)  # noqa: ASYNC251 - as a decision does
        return Response(200, b"")

    def usual_run(self) -> float:
        """How many large bodies of the attackers were handled between two of the honest peer: the median.

        A peer whose own body is long in coming, on a busy machine, lets more of them pass now and then.
        """
        runs = b"".join(self.handled).split(b"h")[1:-1]
        return statistics.median(map(len, runs))


@pytest.mark.parametrize("size", [KIB, MIB])
async def test_complete_large_bodies_of_others_leave_the_processor_to_an_honest_peer(
    serve: Any, connect: Connect, size: int
) -> None:
    """Three attackers with eight connections each, which always have a large body there: 24 could be before it."""
    grinder = Grinder()
    service = await serve({("POST", "/grind"): grinder}, limits={"bodies_bytes": 64 * MIB})
    honest = await connect(service.address, local_addr=HONEST)
    attackers = [(f"127.0.0.{number}", 0) for number in (4, 5, 6)]
    async with grinding(connect, service.address, attackers, 8):
        await until_async(lambda: len(grinder.handled) >= 24)
        async with asyncio.timeout(10 * SECONDS):
            for _ in range(20):
                assert (await honest.request("POST", "/grind", b"h" + b"y" * (size - 1))).status == 200
    # What was handled as it arrived, and one of each attacker before a large one's turn.
    assert grinder.usual_run() <= (5 if size == KIB else 12)


async def test_one_peer_alone_is_not_held_up(serve: Any, connect: Connect) -> None:
    """Behind konnectivity all requests come from one address, large ones too."""
    grinder = Grinder()
    service = await serve({("POST", "/grind"): grinder}, limits={"bodies_bytes": 64 * MIB})
    clients = [await connect(service.address, local_addr=ATTACKER) for _ in range(8)]
    async with asyncio.timeout(SECONDS):
        answers = await asyncio.gather(*(client.request("POST", "/grind", b"x" * MIB) for client in clients))
    assert {answer.status for answer in answers} == {200}
    assert len(grinder.handled) == 8


async def test_a_peer_that_gave_up_takes_no_turn() -> None:
    turns = Turns(lambda _peer: False)
    order: list[str] = []

    async def request(name: str) -> None:
        await turns.take(name)
        order.append(name)

    tasks = [asyncio.create_task(request(name)) for name in ("a", "b", "c")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["a", "c"]


async def test_a_newcomer_comes_first_once_and_then_in_turn() -> None:
    turns = Turns(lambda _peer: False)
    order: list[str] = []

    async def request(name: str) -> None:
        await turns.take(name)
        order.append(name)
        time.sleep(0.005)  # noqa: ASYNC251 - as a decision does

    old = [asyncio.create_task(request("old")) for _ in range(6)]
    for _ in range(1000):
        if len(order) < 3:
            await asyncio.sleep(0)
    new = [asyncio.create_task(request("new")) for _ in range(3)]
    await asyncio.gather(*old, *new)
    late = order[3:]
    assert late.index("new") <= 1
    assert "new" in late[:2]
    assert "old" in late[late.index("new") : late.index("new") + 3], "and keeps nobody out"


async def test_a_path_may_have_a_smaller_bound_a_screen_and_vouched_calls(serve: Any, connect: Connect) -> None:
    read: list[int] = []

    async def handler(body: bytes, _info: RequestInfo) -> Response:
        read.append(len(body))
        return Response(200)

    def screen(info: RequestInfo) -> Response | None:
        return Response(503) if "Refuse" in info.headers else None

    intake = Intake(body_bytes=1000, screen=screen)
    service = await serve({("POST", "/small"): handler, ("POST", "/echo"): echo}, intakes={"/small": intake})
    for size, headers, status in ((1000, "", 200), (1001, "", 413), (1000, "Refuse: 1\r\n", 503)):
        client = await connect(service.address)
        assert (await client.request("POST", "/small", b"x" * size, headers)).status == status
    # The screen answers before a byte of the body has arrived.
    client = await connect(service.address)
    await client.send(b"POST /small HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\nRefuse: 1\r\n\r\n")
    assert (await client.receive()).status == 503
    assert read == [1000]
    assert (await (await connect(service.address)).request("POST", "/echo", b"x" * 2000)).status == 200


async def test_vouched_calls_have_a_reserve(serve: Any, connect: Connect) -> None:
    intake = Intake(is_vouched=lambda info: info.headers.get("Vouched") == "yes")
    limits = {"bodies_bytes": 1 * MIB, "small_body_bytes": 0}
    service = await serve({("POST", "/echo"): echo}, limits=limits, intakes={"/echo": intake})
    async with unfinished(connect, service.address, 20, 64 * KIB, ATTACKER):
        client = await connect(service.address, local_addr=ATTACKER)
        answer = await client.request("POST", "/echo", b"x" * 64 * KIB, "Vouched: yes\r\n")
        assert answer.status == 200


async def test_a_vouched_call_that_says_its_length_may_bring_more(serve: Any, connect: Connect) -> None:
    intake = Intake(
        body_bytes=1000, vouched_body_bytes=3000, is_vouched=lambda info: info.headers.get("Vouched") == "yes"
    )
    limits = {"small_body_bytes": 0, "body_bytes": 1 * MIB}
    service = await serve({("POST", "/echo"): echo}, limits=limits, intakes={"/echo": intake})
    vouched, other = "Vouched: yes\r\n", "Vouched: no\r\n"
    for size, headers, status in ((3000, vouched, 200), (3001, vouched, 413), (1001, other, 413), (1000, other, 200)):
        client = await connect(service.address)
        assert (await client.request("POST", "/echo", b"x" * size, headers)).status == status
    client = await connect(service.address)
    head = f"POST /echo HTTP/1.1\r\nHost: h\r\n{vouched}Transfer-Encoding: chunked\r\n\r\n"
    await client.send(head.encode() + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n")
    assert (await client.receive()).status == 413


async def test_chunked_bodies_are_not_small(serve: Any, connect: Connect) -> None:
    """Their length is unknown, so that they may not fill the reserve."""
    service = await serve({("POST", "/echo"): echo}, limits={"bodies_bytes": 1 * MIB})
    clients = []
    for _ in range(9):
        client = await connect(service.address)
        chunk = b"19000\r\n" + b"x" * 100 * KIB + b"\r\n"
        await client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
        clients.append(client)
    statuses = [asyncio.create_task(client.receive()) for client in clients]
    done, _ = await asyncio.wait(statuses, timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED)
    assert {task.result().status for task in done} == {429}
    assert (await (await connect(service.address)).request("POST", "/echo", b"x" * 50 * KIB)).status == 200
    for task in statuses:
        task.cancel()
    await asyncio.gather(*statuses, return_exceptions=True)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("tls", [True, False])
async def test_head_is_answered_as_get_without_a_body(serve: Any, connect: Connect, path: str, tls: bool) -> None:
    service = await serve({}, metrics_listen=("127.0.0.1", 0))
    client = await connect(service.address if tls else service.metrics_address, tls=tls)
    await client.send(f"HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    if path != "/metrics":
        assert b"Content-Length: 3\r\n" in head
    # The next answer follows immediately: HEAD's had no body.
    assert (await client.request("GET", "/healthz")).body == b"ok\n"


async def test_head_shows_a_closed_gate(serve: Any, connect: Connect) -> None:
    service = await serve({}, gates={"nodes": lambda: "no list yet"})
    client = await connect(service.address)
    await client.send(b"HEAD /readyz HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503 ")


async def test_head_of_another_path_is_refused(serve: Any, connect: Connect) -> None:
    service = await serve({("GET", "/once"): echo})
    client = await connect(service.address)
    await client.send(b"HEAD /once HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_client_that_never_reads_does_not_hold_up_the_drain(
    process: Any, connect: Connect, new_pair: Any, tmp_path: Any, signals: int
) -> None:
    """Its side never answers the server's TLS close; without a bound the drain would last for `finish_seconds`."""
    new_pair().write(tmp_path)
    child = process(tmp_path, lame_duck=0.2)
    read = asyncio.get_running_loop().run_in_executor
    listening = json.loads(await read(None, child.stderr.readline))
    client = await connect(tuple(listening["address"]))
    assert (await client.request("POST", "/echo", BODY)).status == 200
    client.writer.transport.pause_reading()
    for _ in range(signals):
        child.send_signal(signal.SIGTERM)
    assert await read(None, child.wait, SECONDS) == 0
    events = [json.loads(line)["event"] for line in child.stderr]
    assert events == ["draining", "stopped"]


async def test_a_request_that_has_arrived_keeps_its_connection_when_a_new_one_needs_room() -> None:
    """The event loop accepts the new connection before it reads the request."""

    async def handler(request: Any) -> web.Response:
        request.protocol.begin()
        request.protocol.end()
        return web.Response(text="served")

    connections = Connections(Limits(connections=1), Counter("cut", "", ["reason"], registry=None))
    server: Any = await connections.listen(handler, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        async with asyncio.timeout(SECONDS):
            await loop.sock_connect(client, address)
            client.send(request)
            assert (await loop.sock_recv(client, 4096)).endswith(b"served")
            (idle,) = connections._open
            idle.idle_since -= 1000
            client.send(request)
            newcomer = Connection(connections, web.Server(handler), loop)
            connections.add(newcomer)
            assert (await loop.sock_recv(client, 4096)).endswith(b"served")
            idle.idle_since -= 1000
            connections.discard(newcomer)
            connections.add(newcomer)
            assert await loop.sock_recv(client, 4096) == b""
    server.close()


async def _answers(host: str, port: int) -> bytes:
    client = await Client.connect((host, port), tls=False)
    try:
        return (await client.request("GET", "/healthz")).body
    finally:
        client.close()


async def test_one_address_serves_both_families(serve: Any) -> None:
    service = await serve({}, metrics_listen=("::", 0))
    _, port = service.metrics_address
    assert await _answers("127.0.0.1", port) == b"ok\n"
    if not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback address")
    assert await _answers("::1", port) == b"ok\n"


async def test_a_machine_without_ipv6_serves_ipv4(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.create_server

    def refuse_ipv6(address: Any, *, family: int = socket.AF_INET, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(address, family=family, **options)

    monkeypatch.setattr(socket, "create_server", refuse_ipv6)
    service = await serve({}, metrics_listen=("::", 0))
    host, port = service.metrics_address
    assert host == "0.0.0.0"
    assert await _answers("127.0.0.1", port) == b"ok\n"


async def test_an_ipv4_peer_of_a_socket_of_both_families_has_its_ipv4_address(serve: Any, connect: Connect) -> None:
    async def who(_body: bytes, info: RequestInfo) -> Response:
        return Response(200, info.peer.encode())

    service = await serve({("GET", "/who"): who}, listen=("::", 0))
    client = await connect(("127.0.0.1", service.address[1]))
    assert (await client.request("GET", "/who")).body == b"127.0.0.1"
