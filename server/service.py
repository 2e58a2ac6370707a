"""A server from start to exit: it listens, answers within its limits, and drains."""

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote

import uvloop
from aiohttp import web
from aiohttp.http_exceptions import PayloadEncodingError
from aiohttp.web_protocol import RequestPayloadError
from prometheus_client import CollectorRegistry

from server import logs
from server.adopting import Adopting
from server.allocator import give_back
from server.connections import Connection, Connections
from server.fronts import Parent, Workers
from server.health import Check, Gate, Health
from server.limits import Latch, Limits
from server.load import HeldBody, Load
from server.messages import Handler, Intake, Refusal, Refuse, RequestInfo, Response, refuse
from server.metrics import ServerMetrics, new_registry
from server.routes import Route, Routes
from server.tls import Certificate, CertificateFiles, HeldCertificate, ServingContext
from server.turns import Turns
from server.watched import FileMetrics
from server.yaml.strict import ConfigurationError

# After these the rest of the body may still arrive, and would be read as the next request.
_CLOSING_STATUSES = {408, 413}

Address = tuple[str, int]
Background = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class Application:
    """The parts that make up a server.

    `routes`: the handler per (method, path); a path that ends in `/*` takes one more segment.
    `intakes`: the conditions of a path, where it has any.
    `listen`, `metrics_listen`: (host, port), with port 0 for any free one. The second is without TLS, and serves
    /healthz, /readyz and /metrics only. Without a certificate the first is not opened: a process with no routes, which
    only runs what is in `background`.
    `gates`: what readiness depends on, by name.
    `background`: coroutines that run beside the server until it has drained. When one raises, the server stops with
    exit code 1.
    `refuse`: makes the answer where no handler gives one (overload, deadline, failure).
    `files`: metrics of watched files, if other watches on the same registry share them.
    `workers`: the processes that answer what comes over TLS, in place of this one, which then only accepts for them.
    `parent`: the process that does so for this one, a worker.
    """

    routes: Mapping[tuple[str, str], Handler]
    certificate: CertificateFiles | HeldCertificate | None
    intakes: Mapping[str, Intake] = field(default_factory=dict)
    listen: Address = ("::", 8443)
    metrics_listen: Address | None = None
    limits: Limits = field(default_factory=Limits)
    gates: Mapping[str, Check] = field(default_factory=dict)
    background: Sequence[Background] = ()
    refuse: Refuse = refuse
    registry: CollectorRegistry = field(default_factory=new_registry)
    files: FileMetrics | None = None
    workers: Workers | None = None
    parent: Parent | None = None


class Service:
    """A running server: call `start`, then `wait` for the exit code. `stop`, SIGTERM and SIGINT make it drain."""

    def __init__(self, application: Application) -> None:
        self._app = application
        self._limits = limits = application.limits
        self._load = Load(limits)
        self._turns = Turns(self._load.is_contended)
        self._lag = Latch(limits.lag_seconds, limits.lag_seconds / 5)
        self._serving = Gate("starting")
        gates: dict[str, Check] = {
            "serving": self._serving,
            "load": self._load.problem,
            "event-loop": self._check_lag,
        }
        if application.workers is not None:
            gates["workers"] = application.workers.problem
        self._health = Health({**gates, **application.gates})
        self._metrics = ServerMetrics(application.registry, self._load, self._health, lambda: len(self._connections))
        self._certificate = certificate = _certificate(application)
        if certificate is not None:
            self._metrics.watch_certificate(lambda: certificate.not_after)
        expose = self._metrics.expose if application.workers is None else application.workers.expose
        own: Mapping[str, Handler] = {
            "/healthz": self._health.healthz,
            "/readyz": self._health.readyz,
            "/metrics": expose,
        }
        if application.parent is not None:
            own = application.parent.own
        self._answers = own
        self._routes = Routes(application.routes, own, application.intakes)
        self._own = Routes({}, own)
        self._connections = Connections(limits, self._metrics.cut)
        self._plain = Connections(limits, self._metrics.cut)
        self._adopting: Adopting | None = None
        self._listeners: list[asyncio.AbstractServer] = []
        self._plain_listener: asyncio.AbstractServer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._lame_duck_over = asyncio.Event()
        self._failed = False
        self.address: Address = application.listen
        self.metrics_address: Address | None = None

    async def start(self) -> None:
        """Listen. Afterwards `address` and `metrics_address` hold the bound ports. Raises OSError."""
        app = self._app
        own: list[Background] = []
        if app.workers is not None:
            self.address = app.workers.start(app.listen, self._answers, self.stop)
            own.append(app.workers.run)
        elif self._certificate is not None and app.parent is None:
            main = await self._connections.listen(self._answer, *app.listen, self._certificate.front)
            self._listeners.append(main)
            self.address = _bound(main)
        if self._certificate is not None:
            own.append(self._certificate.watch)
        if app.metrics_listen:
            self._plain_listener = await self._plain.listen(self._answer_plain, *app.metrics_listen)
            self.metrics_address = _bound(self._plain_listener)
        own += [
            self._connections.sweep,
            self._plain.sweep,
            lambda: self._metrics.measure_lag(self._lag.update),
            give_back,
        ]
        for background in (*own, *app.background):
            task = asyncio.ensure_future(background())
            task.add_done_callback(self._background_done)
            self._tasks.append(task)
        self._serving.open()
        if app.parent is not None and self._certificate is not None:
            self._adopt(app.parent, self._certificate.front)
            return
        logs.info("listening", address=list(self.address), metrics=self.metrics_address and list(self.metrics_address))

    def _adopt(self, parent: Parent, front: ServingContext) -> None:
        """Take this server's connections from its parent."""
        adopting = Adopting(self._connections, self._answer, front, self._limits)
        self._adopting = adopting
        self._connections.lost = adopting.changed = parent.counted
        parent.start(adopting.adopt, lambda: len(self._connections) + len(adopting), adopting.cut)

        async def follow() -> None:
            await parent.run(self._app.registry, self._health.failing, self.stop)

        task = asyncio.ensure_future(follow())
        task.add_done_callback(self._background_done)
        self._tasks.append(task)

    def stop(self) -> None:
        """Make the server drain. A second call ends the lame duck early."""
        if self._stopping.is_set():
            self._lame_duck_over.set()
        self._stopping.set()

    async def wait(self) -> int:
        """Serve until stopped, then drain. Returns 0 when every accepted request was answered, else 1."""
        await self._stopping.wait()
        self._serving.close("draining")
        # Each answer from now on makes its client drop the connection and open the next one elsewhere. No idle
        # connection is closed yet: its client may be sending a request on it.
        self._connections.closes_after_answer = True
        if (workers := self._app.workers) is not None:
            workers.drain()
        logs.info("draining", connections=len(self._connections), running=self._load.running)
        # Endpoints follow readiness with a delay. Until then new connections still arrive, and are served.
        try:
            # A worker is told by its parent, which may still hand connections down until then.
            async with asyncio.timeout(self._limits.lame_duck_seconds if self._app.parent is None else None):
                await self._lame_duck_over.wait()
        except TimeoutError:
            pass
        # This resets connections that the kernel has accepted and the loop has not: the lame duck has to be long enough
        # for no client to open one any more.
        for listener in self._listeners:
            listener.close()
        complete = await self._finished()
        if not complete:
            logs.error("drain_incomplete", connections=len(self._connections), running=self._load.running)
            self._connections.abort()
        if self._plain_listener is not None:
            self._plain_listener.close()
        self._plain.abort()
        if self._app.parent is not None:
            self._app.parent.report(self._app.registry)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        logs.info("stopped", complete=complete)
        if workers is not None and workers.cannot_start:
            return 2
        return 0 if complete and not self._failed else 1

    async def _finished(self) -> bool:
        """Wait for the requests in flight. Returns whether all of them were answered in time."""
        if self._app.workers is not None:
            return await self._app.workers.finished(self._limits.finish_seconds)
        # The sweep closes the connections that are idle.
        self._connections.idle_seconds = self._limits.drain_idle_seconds
        left = self._limits.finish_seconds
        if self._adopting is not None:
            loop = asyncio.get_running_loop()
            before = loop.time()
            await self._adopting.settled(left)
            left -= loop.time() - before
        complete = await self._connections.drained(left)
        if self._adopting is not None:
            self._adopting.abort()
        return complete

    def _background_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        if error := task.exception():
            # Without its watches a server would decide on outdated facts. It is better replaced.
            logs.error("background_failed", exception=error)
            self._failed = True
            self.stop()

    def _check_lag(self) -> str | None:
        return "the event loop lags" if self._lag.closed else None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._handle(request, self._routes)

    async def _answer_plain(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._handle(request, self._own)

    async def _handle(self, request: web.BaseRequest, routes: Routes) -> web.StreamResponse:
        connection = cast(Connection, request.protocol)
        connection.begin()
        now = asyncio.get_running_loop().time
        started = now()
        path, _, query = request.raw_path.partition("?")
        found = routes.find(request.method, path)
        label = "other"
        deadline = started + self._limits.deadline_seconds
        address, headers = connection.address, request.headers
        info = RequestInfo(
            request.method, path, query, "", headers, deadline, address, connection.is_connected, connection.spki
        )
        try:
            if isinstance(found, Refusal):
                response = self._refuse(found, info)
            else:
                route, tail = found
                label = route.label
                if tail:
                    info = info._replace(tail=unquote(tail))
                response = await self._respond(request, route, info, connection.peer)
        finally:
            connection.end()
        self._metrics.answered(label, response.status, now() - started)
        sent = {"Content-Type": response.content_type, "Server": "morphisms"}
        if response.headers:
            sent.update(response.headers)
        answer = web.Response(status=response.status, body=response.body, headers=sent)
        # The same holds for a body that is malformed itself. One that was read to its end and then found wrong closes
        # nothing: the next handshake would cost more than the next bad request.
        is_cut_short = response.status == 400 and not request.content.is_eof()
        if self._connections.closes_after_answer or response.status in _CLOSING_STATUSES or is_cut_short:
            answer.force_close()
        return answer

    async def _respond(self, request: web.BaseRequest, route: Route, info: RequestInfo, peer: str) -> Response:
        intake = route.intake
        if (early := intake.screen(info)) is not None:
            return early
        has_body = request.can_read_body
        length = request.content_length if has_body else 0
        # Without a length it may become any size.
        is_small = length is not None and length <= self._limits.small_body_bytes
        is_vouched = not is_small and intake.is_vouched(info)
        preferred = is_small or is_vouched
        if route.bounded and not self._load.has_room(peer, preferred=preferred):
            return self._refuse_overloaded(info, peer)
        largest = intake.body_bytes or self._limits.body_bytes
        if is_vouched and intake.vouched_body_bytes is not None and length is not None:
            largest = intake.vouched_body_bytes
        largest = min(largest, self._limits.body_bytes)
        body = _Body(request, self._load, self._limits, largest, peer, preferred=preferred)
        has_arrived = not has_body or request.content.is_eof()
        try:
            async with asyncio.timeout_at(info.deadline) as timeout:
                content = await body.read() if has_body else b""
                if content is Refusal.OVERLOADED:
                    return self._refuse_overloaded(info, peer)
                if isinstance(content, Refusal):
                    return self._refuse(content, info)
                if not route.bounded:
                    return await route.handler(content, info)
                # Other requests may have taken the last slot while this body was arriving.
                if not has_arrived and not self._load.has_room(peer, preferred=preferred):
                    return self._refuse_overloaded(info, peer)
                self._load.enter(peer)
                try:
                    if len(content) > self._limits.turn_body_bytes:
                        await self._turns.take(peer)
                    return await route.handler(content, info)
                finally:
                    self._load.leave(peer)
        except Exception as error:
            if isinstance(error, TimeoutError) and timeout.expired():
                logs.warning("deadline", route=route.label, seconds=self._limits.deadline_seconds)
                return self._refuse(Refusal.DEADLINE, info)
            logs.error("handler_failed", exception=error, route=route.label)
            return self._refuse(Refusal.FAILED, info)
        finally:
            body.release()

    def _refuse_overloaded(self, info: RequestInfo, peer: str) -> Response:
        self._load.refused(peer)
        return self._refuse(Refusal.OVERLOADED, info)

    def _refuse(self, refusal: Refusal, info: RequestInfo) -> Response:
        self._metrics.refused(refusal)
        return self._app.refuse(refusal, info)


def _certificate(app: Application) -> Certificate | HeldCertificate | None:
    if app.certificate is None or isinstance(app.certificate, HeldCertificate):
        return app.certificate
    return Certificate(app.certificate, app.files or FileMetrics(app.registry))


class _Body:
    """The body of a request: bounded while it is read, and counted against the load until it is released."""

    __slots__ = ("_held", "_is_evicted", "_largest", "_limits", "_load", "_request", "_timeout")

    def __init__(
        self, request: web.BaseRequest, load: Load, limits: Limits, largest: int, peer: str, *, preferred: bool
    ) -> None:
        self._request = request
        self._load = load
        self._limits = limits
        self._largest = largest
        self._held: HeldBody = load.begin(peer, self._evict, preferred=preferred)
        self._timeout: asyncio.Timeout | None = None
        self._is_evicted = False

    async def read(self) -> bytes | Refusal:
        request = self._request
        if request.headers.get("Content-Encoding", "identity") != "identity":
            return Refusal.ENCODING
        if (request.content_length or 0) > self._largest:
            return Refusal.TOO_LARGE
        if request.content.is_eof():  # the whole body has arrived already, so no time limit is needed
            return await self._collect()
        try:
            async with asyncio.timeout(self._limits.body_seconds) as self._timeout:
                if request.headers.get("Expect", "").lower() == "100-continue":
                    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    request.writer.output_size = 0
                return await self._collect()
        except TimeoutError:
            if self._is_evicted:
                return Refusal.OVERLOADED
            if self._timeout is not None and self._timeout.expired():
                return Refusal.BODY_TIMEOUT
            raise

    async def _collect(self) -> bytes | Refusal:
        stream = self._request.content
        chunks: list[bytes] = []
        while True:
            try:
                chunk = await stream.readany()
            except (ConnectionError, RequestPayloadError, PayloadEncodingError):
                return Refusal.MALFORMED
            if self._is_evicted:
                return Refusal.OVERLOADED
            if not chunk:
                break
            if self._held.size + len(chunk) > self._largest:
                return Refusal.TOO_LARGE
            if not self._load.hold(self._held, len(chunk)):
                return Refusal.OVERLOADED
            chunks.append(chunk)
        self._load.settle(self._held)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _evict(self) -> None:
        """End the reading: another body needs the room."""
        self._is_evicted = True
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def release(self) -> None:
        self._load.release(self._held)
        # Without this the two would hold each other, and the request, until a cyclic collection.
        self._held.evict = _ignore_eviction


def _ignore_eviction() -> None:
    pass


def run(make: Callable[[], Application]) -> int:
    """Run the application that `make` returns until SIGTERM or SIGINT. Returns the exit code.

    `make` is called on the event loop. From then on the process logs JSON lines to stderr. The exit code is 2 when the
    server cannot start, because of its configuration, its certificate or its address.
    """
    logs.configure()
    return uvloop.run(_main(make))


async def _main(make: Callable[[], Application]) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_loop_failure)
    try:
        application = make()
        service = Service(application)
        # A terminal, or a supervisor of the whole group, also signals the workers: they stop when their parent says so.
        react = service.stop if application.parent is None else _ignore_signal
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, react)
        await service.start()
        tune_garbage_collector()
    except ConfigurationError as error:
        loop.set_exception_handler(_ignore_loop_failure)
        logs.error("start_failed", problems=error.problems)
        return 2
    except Exception as error:
        loop.set_exception_handler(_ignore_loop_failure)
        logs.error("start_failed", exception=error, errno=getattr(error, "errno", None))
        return 2
    return await service.wait()


def tune_garbage_collector() -> None:
    """Exempt the objects made at start-up from cyclic garbage collection, and collect less often.

    A parsed body consists of some hundred containers without cycles, which reference counts free. With the default
    thresholds each body triggers a collection of the young generation, and every hundredth a full one. That was
    measured to take a fifth of an admission's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _log_loop_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # asyncio's own handler would log the exception's text, which may hold a secret.
    exception = context.get("exception")
    if isinstance(exception, ConnectionError):
        return
    logs.error("event_loop", exception=exception)


def _ignore_signal() -> None:
    pass


def _ignore_loop_failure(_loop: asyncio.AbstractEventLoop, _context: dict[str, Any]) -> None:
    # A failed start may leave clients open, and asyncio reports them. The last line of the log should be the reason
    # of the failure instead.
    pass


def _bound(server: asyncio.AbstractServer) -> Address:
    host, port, *_ = cast(asyncio.Server, server).sockets[0].getsockname()
    return host, port
