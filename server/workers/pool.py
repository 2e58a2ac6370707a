"""The parent's side: it owns the port, accepts, and hands each connection to the worker with the fewest.

A worker runs this process's own command line, and makes the handshakes, so that slow clients never hold the parent up.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import DecodeError
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from server import logs
from server.connections import listening
from server.messages import Handler, RequestInfo, Response
from server.workers.merging import Merging, Rule, families_of
from server.workers.messages import Topic
from server.workers.timing import TIMING, TURN_SECONDS, WorkerTiming
from server.workers.worker import Worker, start_worker

Address = tuple[str, int]

# Accepted in one turn of the loop.
_AT_ONCE: Final = 32
# A connection that its worker has not taken holds a descriptor here. More of them wait in the kernel.
_UNTAKEN: Final = 64
# After a turn in which neither the machine nor a worker had room.
_PAUSE_SECONDS: Final = 0.05
_SCRAPE_SECONDS: Final = 1.0
# For what has arrived when the server stops to accept: a second at most.
_LAST_TURNS: Final = 200
_CANNOT_START: Final = 2
_NO_CONNECTION: Final = frozenset({errno.ECONNABORTED, errno.EINTR, errno.EPROTO})


class WorkerPool:
    """The workers of one server.

    `gauges`: how the values of the application's own gauges become one (`server.workers.merging`).
    `command`: a worker's command line; by default this process's own.
    """

    def __init__(
        self,
        count: int,
        registry: CollectorRegistry,
        *,
        gauges: Mapping[str, Rule] | None = None,
        timing: WorkerTiming = TIMING,
        command: Sequence[str] | None = None,
    ) -> None:
        self._timing = timing
        self._registry = registry
        self._merging = Merging(gauges or {})
        self._command = list(command or [sys.executable, *sys.orig_argv[1:]])
        self._count = count
        self._workers: dict[int, Worker] = {}
        self._listener: socket.socket | None = None
        self._is_accepting = False
        self._is_exhausted = False
        self._held: list[socket.socket] = []
        self._topics: dict[str, Topic] = {}
        self._own: Mapping[str, Handler] = {}
        self._has_served = False
        self._is_draining = False
        self._slots: list[asyncio.Task[bool]] = []
        self._exposed: tuple[float, bytes] | None = None
        self._stop: Callable[[], None] = _ignore
        self.cannot_start = False
        """Whether a worker could not start before any had served, as with an unusable configuration."""
        self.known: Callable[[], None] = _ignore
        """Called when a worker has taken a topic into use."""
        Gauge("morphisms_workers", "Worker processes that can serve.", registry=registry).set_function(
            lambda: sum(worker.can_serve for worker in self._workers.values())
        )
        self._ended = Counter("morphisms_workers_ended", "Worker processes that ended.", ["reason"], registry=registry)
        for reason in ("exited", "hung"):
            self._ended.labels(reason)

    def problem(self) -> str | None:
        """Why no worker can serve; None while one can. A gate of readiness."""
        reasons = []
        for number in range(self._count):
            worker = self._workers.get(number)
            if worker is None or worker.failing is None:
                reasons.append(f"worker {number} starts")
            elif self._is_silent(worker):
                reasons.append(f"worker {number} gives no sign of life")
            elif worker.failing:
                name, reason = next(iter(worker.failing.items()))
                reasons.append(f"worker {number}: {name}: {reason}")
            else:
                return None
        return "; ".join(reasons)

    def publish(self, name: str, content: bytes) -> None:
        """Let every worker know, those that start later too. A worker gets connections once it knows the newest."""
        before = self._topics.get(name)
        if before is not None and before.content == content:
            return
        topic = self._topics[name] = Topic(name, 1 if before is None else before.version + 1, content)
        for worker in self._workers.values():
            worker.send(topic)

    def is_known(self, name: str) -> bool:
        """Whether all workers that may have connections have taken the newest version into use."""
        topic = self._topics.get(name)
        if topic is None:
            return False
        return all(
            worker.known.get(name) == topic.version for worker in self._workers.values() if worker.failing is not None
        )

    def start(self, listen: Address, own: Mapping[str, Handler], stop: Callable[[], None]) -> Address:
        """Bind the port, and start the workers. Raises OSError.

        `own`: what answers the probes and metrics that come over TLS. `stop` makes the server drain.
        """
        self._own, self._stop = own, stop
        self._listener = listening(*listen)
        self._listener.setblocking(False)
        self._slots = [asyncio.ensure_future(self._keep(number)) for number in range(self._count)]
        host, port, *_ = self._listener.getsockname()
        return host, port

    async def run(self) -> None:
        """Look for signs of life, and read the counters, until cancelled."""
        turns = 0
        while True:
            await asyncio.sleep(TURN_SECONDS)
            turns += 1
            for worker in list(self._workers.values()):
                self._look_at(worker)
                if turns % _turns(self._timing.collect) == 0:
                    worker.ask_for_report()

    def drain(self) -> None:
        """Let the workers end their connections as they are answered. New ones are still accepted, and handed down."""
        self._is_draining = True
        for worker in self._workers.values():
            worker.drain()

    async def finished(self, seconds: float) -> bool:
        """Accept what has arrived, then nothing more, and wait for the workers to end.

        Returns whether each of them answered all of its requests in time.
        """
        await self._close()
        if self._slots:
            await asyncio.wait(self._slots, timeout=seconds + self._timing.overtime)
        for slot in self._slots:
            slot.cancel()
        ended = await asyncio.gather(*self._slots, return_exceptions=True)
        return all(each is True for each in ended)

    async def expose(self, _body: bytes, _info: RequestInfo) -> Response:
        """The metrics of all processes as one, made once a second at most."""
        loop = asyncio.get_running_loop()
        if self._exposed is None or loop.time() - self._exposed[0] >= _SCRAPE_SECONDS:
            workers = [worker for worker in self._workers.values() if not self._is_silent(worker)]
            for worker in workers:
                worker.ask_for_report()
            waiting = [asyncio.ensure_future(worker.reported.wait()) for worker in workers]
            if waiting:
                _, late = await asyncio.wait(waiting, timeout=_SCRAPE_SECONDS)
                for each in late:
                    each.cancel()
            processes = [families_of(self._registry), *(worker.families for worker in self._workers.values())]
            self._exposed = (loop.time(), generate_latest(self._merging.merged(processes)))
        return Response(200, self._exposed[1], CONTENT_TYPE_LATEST)

    async def _close(self) -> None:
        if self._listener is None:
            return
        # Workers take a moment for each: what they have no room for yet waits in the kernel.
        for _ in range(_LAST_TURNS):
            if self._accept():
                break
            await asyncio.sleep(_PAUSE_SECONDS / 10)
        self._pause()
        self._listener.close()
        self._listener = None
        self._resume()
        for worker in self._workers.values():
            worker.handing.close()

    async def _keep(self, number: int) -> bool:
        """Run worker `number`, and another one after each that ends, until the drain.

        Returns whether the one that drained answered all of its requests.
        """
        loop = asyncio.get_running_loop()
        pause = self._timing.backoff[0]
        while True:
            started = loop.time()
            code = await self._run_one(number)
            if self._is_draining:
                return code == 0
            if code == _CANNOT_START and not self._has_served:
                self.cannot_start = True
                self._stop()
                self._stop()
                return False
            if loop.time() - started >= self._timing.steady:
                pause = self._timing.backoff[0]
            await asyncio.sleep(pause)
            pause = min(self._timing.backoff[1], 2 * pause)
            if self._is_draining:
                return True  # there is nothing that it could finish

    async def _run_one(self, number: int) -> int | None:
        """Run one worker to its end; its exit code, or None when it could not be run."""
        try:
            worker = await start_worker(number, self._command)
        except OSError as error:
            logs.error("worker_not_started", number=number, errno=error.errno)
            return None
        loop = asyncio.get_running_loop()
        self._workers[number] = worker
        try:
            for topic in self._topics.values():
                worker.send(topic)
            if self._is_draining:
                worker.drain()
            loop.add_reader(worker.handing.fileno(), self._taken, worker)
            if self._listener is None:
                worker.handing.close()
            await worker.follow(lambda: self._changed(worker), self.known, self._answer)
            return await worker.process.wait()
        except DecodeError as error:
            logs.error("worker_unintelligible", exception=error, number=number)
            return None
        finally:
            del self._workers[number]
            loop.remove_reader(worker.handing.fileno())
            code = await worker.end()
            worker.handing.receive()  # what it had taken is not for another one
            worker.writer.close()
            self._merging.retire(worker.families)
            self._ended.labels("hung" if self._is_hung(worker) else "exited").inc()
            self._held += worker.handing.discard()
            logs.info("worker_ended", number=number, pid=worker.process.pid, code=code)
            self.known()  # it may have been the last one that did not know
            self._resume()

    def _look_at(self, worker: Worker) -> None:
        worker.silent_turns += 1
        if self._is_hung(worker):
            logs.error("worker_hung", number=worker.number, pid=worker.process.pid)
            worker.process.kill()

    def _is_silent(self, worker: Worker) -> bool:
        return worker.silent_turns > _turns(self._timing.silent)

    def _is_hung(self, worker: Worker) -> bool:
        seconds = self._timing.start if worker.failing is None else self._timing.hung
        return worker.silent_turns > _turns(seconds)

    def _changed(self, worker: Worker) -> None:
        self._has_served = self._has_served or worker.can_serve
        self._resume()

    def _taken(self, worker: Worker) -> None:
        if not worker.handing.receive():
            asyncio.get_running_loop().remove_reader(worker.handing.fileno())
        self._resume()

    async def _answer(self, path: str) -> Response:
        info = RequestInfo("GET", path, "", "", {}, asyncio.get_running_loop().time() + _SCRAPE_SECONDS, "")
        return await self._own[path](b"", info)

    def _candidates(self) -> list[Worker]:
        """The workers that may get a connection, the best first: one that can serve, with the fewest connections."""
        able = [
            worker
            for worker in self._workers.values()
            if worker.failing is not None
            and not self._is_silent(worker)
            and worker.knows(self._topics)
            and worker.handing.waiting < _UNTAKEN
        ]
        return sorted(able, key=lambda worker: (not worker.can_serve, worker.handing.open, worker.handing.sent))

    def _accept(self) -> bool:
        """Hand down some of the connections that have arrived. Returns whether no more of them wait."""
        listener = self._listener
        if listener is None:
            return True
        if not self._hand_down_held():
            self._pause()
            return False
        for _ in range(_AT_ONCE):
            candidates = self._candidates()
            if not candidates:
                self._pause()
                return False
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno in _NO_CONNECTION:
                    continue
                # No descriptor or no memory is left: the connections wait in the kernel for a moment.
                if not self._is_exhausted:
                    logs.warning("accept_failed", errno=error.errno)
                self._is_exhausted = True
                self._pause(_PAUSE_SECONDS)
                return False
            self._is_exhausted = False
            if not any(worker.handing.send(connection) for worker in candidates):
                self._held.append(connection)
                self._pause(_PAUSE_SECONDS)
                return False
        return False

    def _hand_down_held(self) -> bool:
        """Hand down the connections that found no worker before. Returns whether none is left."""
        while self._held:
            if not any(worker.handing.send(self._held[0]) for worker in self._candidates()):
                return False
            del self._held[0]
        return True

    def _pause(self, seconds: float | None = None) -> None:
        """Leave connections in the kernel until a worker says something, or for so long."""
        if self._is_accepting and self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._is_accepting = False
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self._resume)

    def _resume(self) -> None:
        """Go on, if a worker has room: first with the connections that found none, or whose worker has ended."""
        if self._listener is None:
            for connection in self._held:
                connection.close()
            self._held = []
        elif self._candidates() and self._hand_down_held() and not self._is_accepting:
            self._is_accepting = True
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)


def _turns(seconds: float) -> int:
    return max(1, round(seconds / TURN_SECONDS))


def _ignore() -> None:
    pass
