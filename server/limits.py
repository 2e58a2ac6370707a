"""The bounds of a server."""

from dataclasses import dataclass
from typing import Final

LAME_DUCK_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one server; sizes in bytes, times in seconds.

    `body_bytes`: the largest body. An UPDATE review carries two escaped objects of up to 3 MiB each, and more.
    `bodies_bytes`: all bodies held at once. Without this bound a client could make the server hold `body_bytes` per
    connection.
    `concurrency`: handlers running at once. The server becomes unready at `high_water` of it, or of `bodies_bytes` in
    complete bodies, and ready again at `low_water`.
    `small_body_bytes`: up to this size a body is small: its request may use the reserves.
    `turn_body_bytes`: larger bodies take turns, so that those of one client leave the processor to others.
    `reserve`: the part of `bodies_bytes` and of `concurrency` that only preferred requests may use: those with a small
    body, and those that a route's `Intake` vouches for.
    `spare`: the part of both that only peers within their share may use, so that one peer never keeps all others out.
    `keep_alive_seconds`: how long a connection may stay idle. It exceeds the 90 s after which the API server's Go
    client closes an idle connection: the side that closes first never loses a request to the other side's close.
    `lag_seconds`: the event loop lag at which the server becomes unready. It becomes ready again at a fifth of it.
    `lame_duck_seconds`: how long a stopping server still serves, unready, while its endpoint is withdrawn. Readiness
    or deletion reaches every node within some 5 s on a quiet cluster, and within 10 s on a large one.
    `drain_idle_seconds`: afterwards a connection is closed once it has been idle for this long, so that a client that
    has only just connected gets its request through.
    `finish_seconds`: how long requests in flight then have. A pod's terminationGracePeriodSeconds must be above
    `stop_seconds`, the sum.
    """

    body_bytes: int = 16 << 20
    bodies_bytes: int = 64 << 20
    header_line_bytes: int = 8190
    header_count: int = 64
    connections: int = 512
    concurrency: int = 256
    small_body_bytes: int = 256 << 10
    turn_body_bytes: int = 64 << 10
    reserve: float = 0.125
    spare: float = 0.0625
    high_water: float = 0.8
    low_water: float = 0.5
    lag_seconds: float = 1.0
    deadline_seconds: float = 10.0
    header_seconds: float = 5.0
    body_seconds: float = 5.0
    keep_alive_seconds: float = 120.0
    lame_duck_seconds: float = LAME_DUCK_SECONDS
    drain_idle_seconds: float = 1.0
    finish_seconds: float = 25.0

    def __post_init__(self) -> None:
        if not 0 < self.low_water < self.high_water < 1:
            raise ValueError("0 < low_water < high_water < 1 must hold")
        if min(self.reserve, self.spare) < 0 or self.reserve + self.spare >= 1:
            raise ValueError("reserve and spare must not be negative, and below 1 together")
        if self.lame_duck_seconds < 0:
            raise ValueError("lame_duck_seconds must not be negative")
        if self.drain_idle_seconds >= self.finish_seconds:
            raise ValueError("drain_idle_seconds must be below finish_seconds")

    @property
    def stop_seconds(self) -> float:
        """The longest time between the signal to stop and the end of the process."""
        return self.lame_duck_seconds + self.finish_seconds


class Latch:
    """Closes at `high` and opens again only at `low`, so that readiness does not flap around one value."""

    __slots__ = ("closed", "high", "low")

    def __init__(self, high: float, low: float) -> None:
        self.high = high
        self.low = low
        self.closed = False

    def update(self, value: float) -> None:
        if value >= self.high:
            self.closed = True
        elif value <= self.low:
            self.closed = False
