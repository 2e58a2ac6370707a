"""Metrics of the server. Label values come from routes, refusals and gates, so that a client cannot add any."""

import asyncio
import functools
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from server.health import Health
from server.load import Load
from server.messages import Refusal, RequestInfo, Response

LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LAG_INTERVAL_SECONDS = 0.1
EXPOSED_SECONDS = 1.0


def new_registry() -> CollectorRegistry:
    """A new registry with the metrics of the process, the platform and the garbage collector."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class ServerMetrics:
    """Requests, refusals, load, event loop lag and gates of one server."""

    def __init__(self, registry: CollectorRegistry, load: Load, health: Health, connections: Callable[[], int]) -> None:
        self._registry = registry
        self._requests = Counter("morphisms_requests", "Requests answered.", ["route", "code"], registry=registry)
        self._seconds = Histogram(
            "morphisms_request_seconds",
            "From a request's headers to its answer.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._refused = Counter(
            "morphisms_refused", "Requests the server answered itself.", ["reason"], registry=registry
        )
        self.cut = Counter("morphisms_connections_cut", "Connections the server cut.", ["reason"], registry=registry)
        self._lag = Gauge("morphisms_event_loop_lag_seconds", "Lag of the event loop, last seen.", registry=registry)
        self._lags = Histogram(
            "morphisms_event_loop_lag_distribution_seconds",
            "Lag of the event loop.",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
            registry=registry,
        )
        Gauge("morphisms_requests_running", "Handlers running.", registry=registry).set_function(lambda: load.running)
        Gauge("morphisms_body_bytes_held", "Request bodies in memory.", registry=registry).set_function(
            lambda: load.bytes_held
        )
        Gauge("morphisms_connections", "Open connections.", registry=registry).set_function(connections)
        gate = Gauge("morphisms_ready", "1 when the gate is open.", ["gate"], registry=registry)
        for name in health.names:
            gate.labels(name).set_function(functools.partial(_is_open, health, name))
        for refusal in Refusal:
            self._refused.labels(refusal.value)
        self._exposed: tuple[float, bytes] | None = None
        # Each child is looked up once, because labels() costs more than the increment.
        self._answered: dict[tuple[str, int], Counter] = {}
        self._timed: dict[str, Histogram] = {}

    def watch_certificate(self, not_after: Callable[[], float]) -> None:
        """Export the end of the certificate that the server shows."""
        Gauge(
            "morphisms_serving_certificate_not_after_seconds",
            "End of the certificate that this server shows, Unix time.",
            registry=self._registry,
        ).set_function(not_after)

    def answered(self, route: str, code: int, seconds: float) -> None:
        """Count one answer; `route` is a registered path or `other`."""
        counter = self._answered.get((route, code))
        if counter is None:
            counter = self._answered[route, code] = self._requests.labels(route, str(code))
        counter.inc()
        timed = self._timed.get(route)
        if timed is None:
            timed = self._timed[route] = self._seconds.labels(route)
        timed.observe(seconds)

    def refused(self, refusal: Refusal) -> None:
        self._refused.labels(refusal.value).inc()

    async def measure_lag(self, seen: Callable[[float], None]) -> None:
        """Measure the event loop's lag until cancelled, and call `seen` with each value in seconds."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_INTERVAL_SECONDS
            await asyncio.sleep(LAG_INTERVAL_SECONDS)
            lag = max(0.0, loop.time() - due)
            self._lag.set(lag)
            self._lags.observe(lag)
            seen(lag)

    async def expose(self, _body: bytes, _info: RequestInfo) -> Response:
        """The registry in Prometheus' text format, made once a second at most: it costs more than any other answer."""
        now = asyncio.get_running_loop().time()
        if self._exposed is None or now - self._exposed[0] >= EXPOSED_SECONDS:
            self._exposed = (now, generate_latest(self._registry))
        return Response(200, self._exposed[1], CONTENT_TYPE_LATEST)


def _is_open(health: Health, name: str) -> float:
    return float(health.reason(name) is None)
