import asyncio
import gc
import json
import signal
import socket
import ssl
import time
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from server.connections import Connections
from server.limits import Latch, Limits
from server.messages import Response
from server.service import Application, Service
from tests.support.drained_load import DrainedLoad
from tests.support.until import SECONDS

BODY = b"x" * 12_600


async def echo(body, info):
    return Response(200, body)


def held():
    """A handler that waits until released, and the events to see and release it."""
    entered, release = asyncio.Semaphore(0), asyncio.Event()

    async def handler(body, info):
        entered.release()
        await release.wait()
        return Response(200, body)

    return handler, entered, release


async def test_answers_over_tls_1_3_and_keeps_the_connection(serve, connect):
    service = await serve({("POST", "/echo"): echo})
    client = await connect(service.address)
    assert client.writer.get_extra_info("ssl_object").version() == "TLSv1.3"
    for _ in range(3):
        answer = await client.request("POST", "/echo?timeout=5s", BODY)
        assert (answer.status, answer.body) == (200, BODY)


async def test_requests_are_freed_without_a_cyclic_collection(serve, connect):
    """Collections are rare, so requests in cycles were the webhook's growth under load, with all that they hold."""
    service = await serve({("POST", "/echo"): echo})
    client = await connect(service.address)
    gc.collect()
    gc.disable()
    try:
        before = _requests_in_memory()
        for _ in range(20):
            assert (await client.request("POST", "/echo", BODY)).status == 200
        added = _requests_in_memory() - before
    finally:
        gc.enable()
    # The connection holds its last one until the next.
    assert added <= 2


def _requests_in_memory():
    return sum(type(each) is web.BaseRequest for each in gc.get_objects())


async def test_refuses_tls_1_2(serve, connect):
    service = await serve({})
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(service.address, maximum_version=ssl.TLSVersion.TLSv1_2)


async def test_finds_routes_and_the_last_segment(serve, connect):
    async def role(body, info):
        return Response(200, f"{info.tail} {info.query} {info.headers['x-id']}".encode())

    service = await serve({("GET", "/token/*"): role})
    client = await connect(service.address)
    assert (await client.request("GET", "/token/a%20b?q=1", headers="X-ID: 7\r\n")).body == b"a b q=1 7"
    assert (await client.request("GET", "/token/")).status == 404
    assert (await client.request("GET", "/token/a/b")).status == 404
    assert (await client.request("POST", "/token/a")).status == 405


@pytest.mark.parametrize("chunked", [False, True])
async def test_too_large_a_body_is_413(serve, connect, chunked):
    service = await serve({("POST", "/echo"): echo}, limits={"body_bytes": 100_000})
    fits = await connect(service.address)
    large = await connect(service.address)
    if chunked:
        head = b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"c350\r\n" + b"x" * 50_000 + b"\r\n"
        await fits.send(head + chunk * 2 + b"0\r\n\r\n")
        await large.send(head + chunk * 3 + b"0\r\n\r\n")
    else:
        await fits.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
        await large.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100001\r\n\r\n" + b"x" * 100_001)
    assert len((await fits.receive()).body) == 100_000
    answer = await large.receive()
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


async def test_all_bodies_together_are_bounded_and_released(serve, connect):
    handler, entered, release = held()
    service = await serve({("POST", "/held"): handler, ("POST", "/echo"): echo}, limits={"bodies_bytes": 20_000})
    first, second = await connect(service.address), await connect(service.address)
    holding = asyncio.create_task(first.request("POST", "/held", BODY))
    await entered.acquire()
    assert (await second.request("POST", "/echo", BODY)).status == 429
    release.set()
    assert (await holding).status == 200
    assert (await second.request("POST", "/echo", BODY)).status == 200


async def test_refuses_what_it_would_have_to_expand(serve, connect):
    service = await serve({("POST", "/echo"): echo})
    client = await connect(service.address)
    assert (await client.request("POST", "/echo", b"x", "Content-Encoding: gzip\r\n")).status == 415


async def test_tells_a_client_that_asks_to_continue(serve, connect):
    service = await serve({("POST", "/echo"): echo})
    client = await connect(service.address)
    await client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert (await client.receive()).status == 100
    await client.send(b"ok")
    assert (await client.receive()).body == b"ok"


async def test_too_many_or_too_long_headers_are_refused(serve, connect):
    service = await serve({("GET", "/x"): echo}, limits={"header_line_bytes": 1000, "header_count": 10})
    for headers in ("A: b\r\n" * 20, f"A: {'b' * 2000}\r\n"):
        answer = await (await connect(service.address)).request("GET", "/x", headers=headers)
        assert (answer.status, answer.body) == (400, b"bad request\n")


async def test_overload_is_429_at_once_and_unready_before(serve, connect):
    handler, entered, release = held()
    service = await serve({("POST", "/held"): handler}, limits={"concurrency": 10})
    probe = await connect(service.address)
    holding = []
    for count in range(1, 11):
        client = await connect(service.address)
        holding.append(asyncio.create_task(client.request("POST", "/held", BODY)))
        await entered.acquire()
        assert (await probe.request("GET", "/readyz")).status == (503 if count >= 8 else 200)
    eleventh = await connect(service.address)
    answer = await eleventh.request("POST", "/held", BODY)  # no handler ends before `release`
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert (await probe.request("GET", "/healthz")).status == 200
    release.set()
    assert {answer.status for answer in await asyncio.gather(*holding)} == {200}
    assert (await probe.request("GET", "/readyz")).status == 200


async def test_the_deadline_answers_as_the_application_says(serve, connect):
    ended = asyncio.Event()

    async def slow(body, info):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def refuse(refusal, info):
        return Response(200, f"{refusal.value} {info.path}".encode())

    service = await serve({("GET", "/slow"): slow}, limits={"deadline_seconds": 0.2}, refuse=refuse)
    assert (await (await connect(service.address)).request("GET", "/slow")).body == b"deadline /slow"
    assert ended.is_set()


async def test_a_handlers_own_timeout_is_not_the_deadline(serve, connect):
    async def handler(body, info):
        raise TimeoutError

    service = await serve({("GET", "/x"): handler})
    assert (await (await connect(service.address)).request("GET", "/x")).status == 500


async def test_slow_loris_is_cut_while_others_are_served(serve, connect):
    service = await serve({("POST", "/echo"): echo}, limits={"body_seconds": 1.5})
    header, body, good, idle = [await connect(service.address) for _ in range(4)]
    # Only now: a machine that stops for a moment may not cut the handshakes.
    service._connections._limits = replace(service._connections._limits, header_seconds=1.5)
    await header.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nX")
    await body.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nx")

    async def trickle():
        while True:
            await header.send(b"x")
            await asyncio.sleep(0.05)

    drip = asyncio.create_task(trickle())
    cut = asyncio.create_task(header.closed())
    while True:
        assert (await good.request("POST", "/echo", BODY)).status == 200
        if cut.done():
            break
    drip.cancel()
    assert cut.result()
    assert (await body.receive()).status == 408
    # Saying nothing is not slow: a Go client keeps unused connections for 90 s.
    assert (await idle.request("POST", "/echo", BODY)).status == 200


async def test_plain_listener_has_probes_and_metrics_only(serve, connect):
    service = await serve({("POST", "/echo"): echo}, metrics_listen=("127.0.0.1", 0))
    plain = await connect(service.metrics_address, tls=False)
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await plain.request("GET", path)).status == 200
    assert (await plain.request("POST", "/echo", b"x")).status == 404


async def test_a_closed_or_broken_gate_is_named_with_its_reason(serve, connect):
    def broken():
        raise ValueError("secret")

    registry = CollectorRegistry()
    service = await serve({}, gates={"nodes": lambda: "no list yet", "broken": broken}, registry=registry)
    answer = await (await connect(service.address)).request("GET", "/readyz")
    assert answer.status == 503
    assert answer.body == b"[-]nodes: no list yet\n[-]broken: check failed: ValueError\n"
    assert registry.get_sample_value("morphisms_ready", {"gate": "nodes"}) == 0


async def test_metrics_have_bounded_labels(serve, connect):
    registry = CollectorRegistry()
    service = await serve({("POST", "/echo"): echo}, registry=registry)
    client = await connect(service.address)
    for path in ("/echo", "/a", "/b", "/c"):
        await client.request("POST", path, b"x")
    assert registry.get_sample_value("morphisms_requests_total", {"route": "/echo", "code": "200"}) == 1
    assert registry.get_sample_value("morphisms_requests_total", {"route": "other", "code": "404"}) == 3
    text = (await client.request("GET", "/metrics")).body
    assert b'/a"' not in text
    assert b"morphisms_request_seconds_bucket" in text


async def test_a_blocked_loop_shows_as_lag_and_ends_readiness(serve, connect):
    registry = CollectorRegistry()
    # Readiness returns at a fifth of this, which no tick reaches again: the probe cannot come too late.
    service = await serve({}, registry=registry, limits={"lag_seconds": 1e-8})
    client = await connect(service.address)
    time.sleep(0.5)  # noqa: ASYNC251 (the fault itself)
    async with asyncio.timeout(SECONDS):
        while not (registry.get_sample_value("morphisms_event_loop_lag_distribution_seconds_sum") or 0) > 0.2:
            await client.request("GET", "/healthz")
    answer = await client.request("GET", "/readyz")
    assert (answer.status, answer.body) == (503, b"[-]event-loop: the event loop lags\n")


def test_a_latch_opens_again_only_well_below_where_it_closed():
    latch = Latch(high=8, low=5)
    states = []
    for value in (7, 8, 7, 6, 5, 7, 8):
        latch.update(value)
        states.append(latch.closed)
    assert states == [False, True, True, True, False, False, True]


async def test_a_failed_background_task_ends_the_server(serve):
    async def watch():
        raise ValueError("lost")

    service = await serve({}, background=[watch])
    async with asyncio.timeout(SECONDS):
        assert await service.wait() == 1


async def test_idle_connections_make_room_only_when_stale(serve, connect, monkeypatch):
    monkeypatch.setattr("server.connections._EVICT_AFTER_SECONDS", 600.0)
    service = await serve({("POST", "/echo"): echo}, limits={"connections": 2})
    first, second = await connect(service.address), await connect(service.address)
    assert (await first.request("POST", "/echo", b"x")).status == 200
    third = await connect(service.address)
    assert await third.closed()
    monkeypatch.setattr("server.connections._EVICT_AFTER_SECONDS", 0.0)
    fourth = await connect(service.address)
    assert (await fourth.request("POST", "/echo", b"x")).status == 200
    assert await second.closed()


async def test_a_caller_of_many_connections_keeps_no_other_out(serve, connect, monkeypatch):
    """Each of them is used all the time, so that none is stale."""
    monkeypatch.setattr("server.connections._EVICT_AFTER_SECONDS", 600.0)

    async def is_served(client):
        try:
            return (await client.request("POST", "/echo", b"x")).status == 200
        except (OSError, EOFError):
            return False

    service = await serve({("POST", "/echo"): echo}, limits={"connections": 4})
    many = [await connect(service.address, local_addr=("127.0.0.2", 0)) for _ in range(4)]
    for each in many:
        assert (await each.request("POST", "/echo", b"x")).status == 200
    others = [await connect(service.address) for _ in range(2)]
    for other in others:
        assert (await other.request("POST", "/echo", b"x")).status == 200
    assert sorted([await is_served(each) for each in many]) == [False, False, True, True]
    assert await (await connect(service.address, local_addr=("127.0.0.2", 0))).closed()
    assert (await others[0].request("POST", "/echo", b"x")).status == 200


async def test_drains_under_load_without_losing_a_request(process, connect, new_pair, tmp_path):
    new_pair().write(tmp_path)
    child = process(tmp_path, lame_duck=600)
    lines: list[dict] = []
    read = asyncio.get_running_loop().run_in_executor
    listening = json.loads(await read(None, child.stderr.readline))
    lines.append(listening)
    address, plain = tuple(listening["address"]), tuple(listening["metrics"])
    idle = await connect(address)
    probe = await connect(plain, tls=False)
    load = DrainedLoad(lambda: connect(address), BODY, clients=16)
    assert (await probe.request("GET", "/readyz")).status == 200
    await load.loaded()
    child.send_signal(signal.SIGTERM)
    lines.append(json.loads(await read(None, child.stderr.readline)))
    assert lines[-1]["event"] == "draining"
    assert (await probe.request("GET", "/readyz")).status == 503
    # Endpoints have not moved yet: a new connection is still served.
    assert (await (await connect(address)).request("POST", "/echo", BODY)).status == 200
    await load.drained()
    child.send_signal(signal.SIGTERM)
    assert await idle.closed()
    assert await read(None, child.wait, SECONDS) == 0


async def test_a_lame_duck_answers_idle_clients_with_a_close_and_hangs_up_on_none(serve, connect):
    service = await serve({("POST", "/echo"): echo}, limits={"lame_duck_seconds": 600})
    used, unused, idle = [await connect(service.address) for _ in range(3)]
    assert "connection" not in (await used.request("POST", "/echo", BODY)).headers
    service.stop()
    ended = asyncio.create_task(service.wait())
    # Longer than `drain_idle_seconds`, at which idle connections are closed only after the lame duck.
    service._connections.close_overdue(asyncio.get_running_loop().time() + 60)
    assert not await idle.closed(0.1)
    for client in (used, unused, await connect(service.address)):
        answer = await client.request("POST", "/echo", BODY)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.closed()
    assert (await (await connect(service.address)).request("GET", "/readyz")).status == 503
    assert not ended.done()
    service.stop()
    assert await idle.closed()
    assert await ended == 0


async def test_a_request_that_has_arrived_keeps_its_connection_open():
    """The event loop has not read it yet when the idle connection becomes overdue."""

    async def handler(request):
        request.protocol.begin()
        request.protocol.end()
        return web.Response(text="served")

    connections = Connections(Limits(), Counter("cut", "", ["reason"], registry=None))
    server = await connections.listen(handler, "127.0.0.1", 0)
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        async with asyncio.timeout(SECONDS):
            await loop.sock_connect(client, server.sockets[0].getsockname())
            client.send(request)
            assert (await loop.sock_recv(client, 4096)).endswith(b"served")
            client.send(request)
            connections.close_overdue(loop.time() + 1000)
            assert (await loop.sock_recv(client, 4096)).endswith(b"served")
            connections.close_overdue(loop.time() + 1000)
            assert await loop.sock_recv(client, 4096) == b""
    server.close()


async def test_what_cannot_start_says_so_and_exits_2(process, tmp_path):
    child = process(tmp_path)
    _, errors = await asyncio.get_running_loop().run_in_executor(None, child.communicate)
    line = json.loads(errors)
    assert child.returncode == 2
    assert line["event"] == "start_failed"
    assert "tls.crt: cannot be read" in line["problems"][0]


async def test_without_a_certificate_only_health_and_metrics_are_served():
    """A process that nothing calls, such as one that watches, opens no other port, and ends without a lame duck."""
    limits = Limits(lame_duck_seconds=0.0)
    service = Service(Application(routes={}, certificate=None, metrics_listen=("127.0.0.1", 0), limits=limits))
    await service.start()
    host, port = service.metrics_address
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}/readyz") as response:
        assert response.status == 200
    assert not service._listeners
    waiting = asyncio.ensure_future(service.wait())
    service.stop()
    assert await waiting == 0
    assert not service._plain_listener.is_serving()
