"""Workers that share a port, as processes: a parent that accepts, two workers that answer."""

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from server.workers.pool import WorkerPool
from server.workers.timing import WorkerTiming
from tests.support.drained_load import DrainedLoad
from tests.support.processes import listening_ports, log_lines, start
from tests.support.until import SECONDS, until_async, until_awaited

PROGRAM = """
import asyncio, json, os, sys, time
from pathlib import Path
from server.limits import Limits
from server.messages import Response
from server.metrics import new_registry
from server.service import Application, run
from server.tls import CertificateFiles
from server.workers.link import ParentLink
from server.workers.pool import WorkerPool
from server.workers.timing import WorkerTiming

folder = Path(sys.argv[1])
options = json.loads(sys.argv[2])
parent = ParentLink.inherited()

async def echo(body, info):
    return Response(200, body)

async def pid(body, info):
    return Response(200, str(os.getpid()).encode())

async def hold(body, info):
    (folder / "held").touch()
    while not (folder / "released").exists():
        await asyncio.sleep(0.02)
    return Response(200, str(os.getpid()).encode())

async def hang(body, info):
    time.sleep(600)

word = b""

def take(content):
    global word
    if (folder / f"refuses-{parent.number}").exists():
        raise ValueError
    word = content

async def topic(body, info):
    return Response(200, word)

def make():
    registry = new_registry()
    patient = dict.fromkeys(("lame_duck", "lag", "deadline", "header", "body", "finish"), 600)
    limits = {f"{name}_seconds": seconds for name, seconds in patient.items()} | {"drain_idle_seconds": 0.3}
    common = dict(
        certificate=CertificateFiles(folder / "tls.crt", folder / "tls.key", interval=0.05),
        limits=Limits(**limits | options.get("limits", {})),
        registry=registry,
    )
    if parent is not None:
        parent.on_topic("word", take)
        routes = {("POST", "/echo"): echo, ("POST", "/pid"): pid, ("POST", "/topic"): topic}
        routes |= {("POST", "/hold"): hold, ("POST", "/hang"): hang}
        return Application(routes=routes, parent=parent, **common)
    timing = {"silent": 600, "hung": 600, "start": 600}
    pool = WorkerPool(options.get("count", 2), registry, timing=WorkerTiming(**timing | options.get("timing", {})))
    pool.publish("word", b"of the parent")
    gates = {"known": lambda: None if pool.is_known("word") else "not by all"}
    return Application(
        routes={}, listen=("127.0.0.1", 0), metrics_listen=("127.0.0.1", 0), workers=pool, gates=gates, **common
    )

if parent is not None and (folder / f"hangs-{parent.number}").exists():
    (folder / f"hangs-{parent.number}").rename(folder / "hung")
    time.sleep(600)
if parent is not None and (folder / "fails").exists():
    sys.exit(2)
sys.exit(run(make))
"""


@dataclass
class Server:
    """A parent with its workers, and its two ports."""

    process: subprocess.Popen[bytes]
    log: Path
    folder: Path
    address: tuple[str, int]
    plain: tuple[str, int]

    def events(self, name: str) -> list[dict]:
        return [line for line in log_lines(self.log) if line["event"] == name]

    def pids(self) -> dict[int, int]:
        """The newest process of each worker, by its number."""
        return {line["number"]: line["pid"] for line in self.events("worker_started")}


@contextlib.contextmanager
def running(folder: Path, **options: object) -> Iterator[Server]:
    """A parent and its workers, in a folder with its certificate; all are killed at the end."""
    log = folder / "log"
    process = start([sys.executable, "-c", PROGRAM, str(folder), json.dumps(options)], log)
    try:
        port, plain = listening_ports(process, log)
        yield Server(process, log, folder, ("127.0.0.1", port), ("127.0.0.1", plain))
    finally:
        process.kill()
        process.wait(SECONDS)
        started = Server(process, log, folder, ("", 0), ("", 0)).events("worker_started")
        for pid in (line["pid"] for line in started):
            if _is_ours(pid, folder):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def shared(new_pair, tmp_path_factory) -> Iterator[Server]:
    """A server for the tests after which it serves as before."""
    folder = tmp_path_factory.mktemp("shared")
    new_pair().write(folder)
    with running(folder) as server:
        yield server


@pytest.fixture
def serving(new_pair, tmp_path) -> Iterator[Callable[..., Server]]:
    """`serving(**options)`: a server of the test's own."""
    new_pair().write(tmp_path)
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(running(tmp_path, **options))


def _is_ours(pid: int, folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


class Plain:
    """The plain port, on one connection."""

    def __init__(self, connect: Callable, server: Server) -> None:
        self._connect, self._server = connect, server

    async def get(self, path: str) -> tuple[int, str]:
        client = await self._connect(self._server.plain, tls=False)
        answer = await client.request("GET", path)
        client.close()
        return answer.status, answer.body.decode()

    async def value(self, series: str) -> float:
        found = re.search(rf"^{re.escape(series)} (\S+)$", (await self.get("/metrics"))[1], re.MULTILINE)
        return 0.0 if found is None else float(found[1])

    async def ready(self, workers: int = 2) -> set[int]:
        """Wait until so many workers serve: a client that closes at once is followed by one of another worker.

        Returns the processes that have answered.
        """
        seen: set[int] = set()

        async def serve() -> bool:
            with contextlib.suppress(OSError, EOFError):  # a busy machine may make a worker look hung
                client = await self._connect(self._server.address)
                seen.add(await served_by(client))
                client.close()
            return len(seen & set(self._server.pids().values())) == workers

        await until_awaited(serve)
        return seen


async def served_by(client) -> int:
    return int((await client.request("POST", "/pid")).body)


async def on_all(load: Callable[[list[int]], Coroutine[Any, Any, None]], workers: set[int]) -> list[asyncio.Task[None]]:
    """Start loads until each of the workers has one; `load` adds the worker of its connection to the list.

    The parent may still count connections of a worker that have ended, and prefer the other.
    """
    begun: list[int] = []
    loads: list[asyncio.Task[None]] = []
    while len(loads) < 4 or set(begun) != workers:
        loads.append(asyncio.create_task(load(begun)))
        await until_async(lambda: len(begun) == len(loads) or loads[-1].done())
        if loads[-1].done():
            await loads[-1]
    return loads


async def test_new_connections_go_to_the_worker_that_has_fewest(serving, connect):
    server = serving()
    plain = Plain(connect, server)

    async def both_serve() -> bool:
        return await plain.get("/readyz") == (200, "ok\n") and await plain.value("morphisms_workers") == 2

    await until_awaited(both_serve)
    # There has been no connection before, whose end the parent might not know of yet.
    clients = [await connect(server.address) for _ in range(20)]
    shares = Counter([await served_by(client) for client in clients])
    assert shares == dict.fromkeys(server.pids().values(), 10)

    async def known() -> bool:
        return await plain.value("morphisms_connections") == 20

    await until_awaited(known)
    # Half of them, all of one worker, end: what comes next makes up for them.
    one = server.pids()[0]
    for client in clients:
        if await served_by(client) == one:
            client.close()

    async def noted() -> bool:
        return await plain.value("morphisms_connections") == 10

    await until_awaited(noted)
    again = [await served_by(await connect(server.address)) for _ in range(9)]
    assert again == [one] * 9


async def test_a_killed_worker_takes_only_its_own_requests_with_it_and_comes_back(shared, connect):
    server = shared
    plain = Plain(connect, server)
    await plain.ready()
    victim, other = server.pids().values()
    lost: Counter[int] = Counter()
    answered_after = asyncio.Event()
    killed = asyncio.Event()
    comrades: set[int] = set()

    async def load(begun: list[int]) -> None:
        client = await connect(server.address)
        mine = await served_by(client)
        begun.append(mine)
        while not answered_after.is_set():
            try:
                mine = await served_by(client)
            except (OSError, EOFError):  # the connection's end, in place of an answer
                assert killed.is_set()
                lost[mine] += 1
                client = await connect(server.address)
                mine = await served_by(client)  # none but those of the moment is lost
            comrades.add(mine)
            if comrades - {victim, other}:
                answered_after.set()

    loads = await on_all(load, {victim, other})
    killed.set()
    os.kill(victim, signal.SIGKILL)
    # New clients are answered all along, in the end by the worker that has come back.
    async with asyncio.timeout(SECONDS):
        while not answered_after.is_set():
            client = await connect(server.address)
            comrades.add(await served_by(client))
            client.close()
            if comrades - {victim, other}:
                answered_after.set()
        await asyncio.gather(*loads)
    assert (await (await connect(server.address)).request("POST", "/topic")).body == b"of the parent"
    assert set(lost) <= {victim}
    assert lost[victim] <= len(loads)
    assert (await plain.get("/readyz"))[0] == 200


async def test_connections_wait_while_no_worker_is_there(shared, connect):
    server = shared
    plain = Plain(connect, server)
    await plain.ready()
    former = set(server.pids().values())
    for pid in former:
        os.kill(pid, signal.SIGKILL)
    clients = await asyncio.gather(*(connect(server.address) for _ in range(8)))
    # Those that a dying worker had begun to serve have ended with it; a new connection never does.
    answers = await asyncio.gather(*(served_by(client) for client in clients), return_exceptions=True)
    assert {each for each in answers if isinstance(each, int)} <= set(server.pids().values())
    assert await served_by(await connect(server.address)) not in former


async def test_a_drain_under_load_loses_no_request(serving, connect):
    server = serving()
    plain = Plain(connect, server)
    await plain.ready()
    idle = [await connect(server.address) for _ in range(2)]
    held = await connect(server.address)
    holding = asyncio.create_task(held.request("POST", "/hold"))
    load = DrainedLoad(lambda: connect(server.address), b"body", clients=8)
    await load.loaded()

    async def is_held() -> bool:
        return (server.folder / "held").exists()

    await until_awaited(is_held)
    server.process.send_signal(signal.SIGTERM)

    async def drains() -> bool:
        return len(server.events("draining")) == 3

    await until_awaited(drains)
    assert (await plain.get("/readyz"))[0] == 503
    # Endpoints have not moved yet: a new connection is still served.
    assert {await served_by(await connect(server.address)) for _ in range(8)} <= set(server.pids().values())
    await load.drained()
    server.process.send_signal(signal.SIGTERM)
    for client in idle:
        assert await client.closed()
    assert not holding.done()
    (server.folder / "released").touch()
    assert (await holding).status == 200
    assert await asyncio.to_thread(server.process.wait, SECONDS) == 0
    assert [line["code"] for line in server.events("worker_ended")] == [0, 0]


async def test_a_certificate_swap_reaches_every_worker_and_drops_nothing(shared, connect, new_pair):
    server = shared
    plain = Plain(connect, server)
    await plain.ready()
    swapped = asyncio.Event()
    workers = set(server.pids().values())

    async def keep_alive(begun: list[int]) -> None:
        client = await connect(server.address)
        begun.append(await served_by(client))
        while not swapped.is_set():
            await served_by(client)
        await served_by(client)

    loads = await on_all(keep_alive, workers)
    new = new_pair()
    new.write(server.folder)
    shown: dict[int, bytes] = {}

    async def everywhere() -> bool:
        client = await connect(server.address)
        shown[await served_by(client)] = client.certificate
        client.close()
        return shown == dict.fromkeys(workers, new.der)

    await until_awaited(everywhere)
    swapped.set()
    await asyncio.gather(*loads)


async def test_metrics_are_those_of_all_workers_and_no_counter_falls_when_one_dies(shared, connect):
    server = shared
    plain = Plain(connect, server)
    await plain.ready()
    # Of a path that no other test asks this server for.
    series = 'morphisms_requests_total{code="200",route="/echo"}'
    count = 'morphisms_request_seconds_count{route="/echo"}'

    async def ask(client, times: int = 1) -> None:
        for _ in range(times):
            assert (await client.request("POST", "/echo", b"x")).status == 200

    assert await plain.value(series) == 0
    clients = [await connect(server.address) for _ in range(4)]
    for client in clients:
        await ask(client, 5)

    async def counted(expected: int) -> None:
        async def holds() -> bool:
            return await plain.value(series) == expected

        await until_awaited(holds)

    await counted(20)
    assert await plain.value(count) == 20

    async def answers_for_all() -> bool:
        """A worker that answers the scrape over TLS, unless its parent takes seconds to tell it what."""
        return f"{series} 20.0" in (await clients[0].request("GET", "/metrics")).body.decode()

    await until_awaited(answers_for_all)
    victim = await served_by(clients[0])
    ended = len(server.events("worker_ended"))
    os.kill(victim, signal.SIGKILL)
    lowest = 20.0

    async def is_back() -> bool:
        nonlocal lowest
        lowest = min(lowest, await plain.value(series))
        return victim not in server.pids().values() and await plain.value("morphisms_workers") == 2

    await until_awaited(is_back)
    assert lowest == 20
    for _ in range(3):
        await ask(await connect(server.address))
    await counted(23)
    assert [line["pid"] for line in server.events("worker_ended")][ended:] == [victim]

    async def all_ends_are_counted() -> bool:
        exited = await plain.value('morphisms_workers_ended_total{reason="exited"}')
        return exited == len(server.events("worker_ended"))

    await until_awaited(all_ends_are_counted)


async def test_a_worker_that_hangs_is_replaced_while_others_serve(serving, connect, tmp_path):
    """Worker 0 hangs in its start for the whole test, one of the others once it has served."""
    (tmp_path / "hangs-0").touch()
    # A busy machine may make others look hung: they too are replaced, and without the longer pause of a second time.
    server = serving(count=3, timing={"silent": 1, "hung": 3, "backoff": (0.1, 0.1)})
    plain = Plain(connect, server)
    await plain.ready(2)

    hung = 0

    async def one_hangs() -> bool:
        nonlocal hung
        with contextlib.suppress(OSError, EOFError):
            client = await connect(server.address)
            hung = await served_by(client)
            await client.send(b"POST /hang HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
            return True
        return False

    await until_awaited(one_hangs)

    async def replaced() -> bool:
        return hung not in server.pids().values()

    await until_awaited(replaced)
    assert hung in [line["pid"] for line in server.events("worker_hung")]
    seen = await plain.ready(2)
    await until_async((tmp_path / "hung").exists)
    assert server.pids()[0] not in seen

    async def is_counted() -> bool:
        return await plain.value('morphisms_workers_ended_total{reason="hung"}') >= 1

    await until_awaited(is_counted)


async def test_a_worker_that_never_gives_a_sign_of_life_is_killed_and_started_again():
    registry = CollectorRegistry()
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    pool = WorkerPool(1, registry, timing=WorkerTiming(start=0.5), command=command)
    pool.start(("127.0.0.1", 0), {}, _unexpected)
    looking = asyncio.create_task(pool.run())

    async def twice() -> bool:
        return (registry.get_sample_value("morphisms_workers_ended_total", {"reason": "hung"}) or 0) >= 2

    await until_awaited(twice)
    assert pool.problem() == "worker 0 starts"
    looking.cancel()
    pool.drain()
    await pool.finished(0)
    assert pool.problem() == "worker 0 starts"


def _unexpected() -> None:
    raise AssertionError


async def test_a_worker_that_cannot_use_what_its_parent_sent_gets_no_connections(serving, connect, tmp_path):
    (tmp_path / "refuses-0").touch()
    server = serving()

    async def refused() -> bool:
        return bool(server.events("topic_unusable"))

    await until_awaited(refused)
    clients = [await connect(server.address) for _ in range(4)]
    assert {await served_by(client) for client in clients} == {server.pids()[1]}
    assert {(await client.request("POST", "/topic")).body for client in clients} == {b"of the parent"}

    async def not_by_all() -> bool:
        return await Plain(connect, server).get("/readyz") == (503, "[-]known: not by all\n")

    await until_awaited(not_by_all)


async def test_workers_finish_and_end_when_their_parent_is_killed(serving, connect):
    server = serving()
    await Plain(connect, server).ready()
    client = await connect(server.address)
    holding = asyncio.create_task(client.request("POST", "/hold"))

    async def is_held() -> bool:
        return (server.folder / "held").exists()

    await until_awaited(is_held)
    server.process.kill()
    await asyncio.to_thread(server.process.wait, SECONDS)

    async def noticed() -> bool:
        return len(server.events("parent_gone")) == 2

    await until_awaited(noticed)
    assert not holding.done()
    (server.folder / "released").touch()
    assert int((await holding).body) in server.pids().values()

    async def none_is_left() -> bool:
        return not any(_is_ours(pid, server.folder) for pid in server.pids().values())

    await until_awaited(none_is_left)


async def test_a_server_whose_workers_cannot_start_exits_2(serving, tmp_path):
    (tmp_path / "fails").touch()
    server = serving()
    assert await asyncio.to_thread(server.process.wait, SECONDS) == 2


async def test_clients_that_never_shake_hands_keep_nobody_out(serving, connect):
    server = serving(limits={"connections": 16, "header_seconds": 600})
    plain = Plain(connect, server)
    await plain.ready()
    before = _descriptors(server.process.pid)
    silent = [await connect(server.address, tls=False) for _ in range(200)]
    for _ in range(4):
        assert await served_by(await connect(server.address)) in server.pids().values()

    async def cut() -> bool:
        # Each worker keeps as many handshakes as it may have connections.
        return await plain.value('morphisms_connections_cut_total{reason="too_many"}') >= 200 - 2 * 16

    await until_awaited(cut)
    closed = [asyncio.create_task(client.closed(10 * SECONDS)) for client in silent]
    await until_async(lambda: sum(each.done() and each.result() for each in closed) >= 200 - 2 * 16)
    for each in closed:
        each.cancel()
    await asyncio.gather(*closed, return_exceptions=True)

    async def parent_has_none() -> bool:
        return _descriptors(server.process.pid) <= before + 2

    await until_awaited(parent_has_none)


async def test_more_connections_than_descriptors_end_no_worker(serving, connect):
    server = serving()
    plain = Plain(connect, server)
    await plain.ready()
    for pid in (server.process.pid, *server.pids().values()):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (_descriptors(pid) + 16, 4096))
    silent = [await connect(server.address, tls=False) for _ in range(200)]

    async def are_refused() -> bool:
        with contextlib.suppress(OSError, EOFError):  # the parent may have no descriptor for the scrape either
            return await plain.value('morphisms_connections_cut_total{reason="too_many"}') > 0
        return False

    await until_awaited(are_refused)
    for client in silent:
        client.close()

    async def serves() -> bool:
        try:
            return await served_by(await connect(server.address)) in server.pids().values()
        except (OSError, EOFError, ssl.SSLError):
            return False

    await until_awaited(serves)
    assert server.events("worker_ended") == []


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
