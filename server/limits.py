"""Every bound of the server, and the load that is measured against them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one server; sizes in bytes, times in seconds.

    `body_bytes`: an UPDATE review carries two objects of up to 3 MiB each, escaped, and more.
    `bodies_bytes`: all bodies held at once, else connections times `body_bytes` is what a client can make us hold.
    `concurrency`: handlers running at once; readiness ends at `high_water` of it and returns at `low_water`.
    `keep_alive_seconds`: above the 90 s after which the API server's Go client closes an idle connection, because
    the side that closes first never loses a request in flight to the other's close.
    `lag_seconds`: event loop lag at which readiness ends; it returns at a fifth of it.
    `drain_delay_seconds`: readiness false, still serving, until endpoints have moved; then in-flight requests have the
    rest of `grace_seconds`, which must be below the pod's terminationGracePeriodSeconds (30).
    """

    body_bytes: int = 16 << 20
    bodies_bytes: int = 64 << 20
    header_line_bytes: int = 8190
    header_count: int = 64
    connections: int = 512
    concurrency: int = 256
    high_water: float = 0.8
    low_water: float = 0.5
    lag_seconds: float = 1.0
    deadline_seconds: float = 10.0
    header_seconds: float = 5.0
    body_seconds: float = 5.0
    keep_alive_seconds: float = 120.0
    drain_delay_seconds: float = 5.0
    drain_idle_seconds: float = 1.0
    grace_seconds: float = 25.0

    def __post_init__(self) -> None:
        if not 0 < self.low_water < self.high_water < 1:
            raise ValueError("0 < low_water < high_water < 1 must hold")
        if self.drain_delay_seconds + self.drain_idle_seconds >= self.grace_seconds:
            raise ValueError("drain_delay_seconds and drain_idle_seconds must fit into grace_seconds")


class Latch:
    """Closes at `high`, opens again only at `low`: readiness must not flap around one value."""

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


class Load:
    """Handlers running and body bytes held now; both refuse beyond their limit."""

    __slots__ = ("_limits", "bytes_held", "latch", "running")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.running = 0
        self.bytes_held = 0
        high = max(1, int(limits.concurrency * limits.high_water))
        self.latch = Latch(high, min(high - 1, int(limits.concurrency * limits.low_water)))

    @property
    def full(self) -> bool:
        return self.running >= self._limits.concurrency

    def enter(self) -> None:
        self.running += 1
        self.latch.update(self.running)

    def leave(self) -> None:
        self.running -= 1
        self.latch.update(self.running)

    def hold(self, size: int) -> bool:
        """Count `size` more body bytes; False, and nothing counted, when that is too many."""
        if self.bytes_held + size > self._limits.bodies_bytes:
            return False
        self.bytes_held += size
        return True

    def release(self, size: int) -> None:
        self.bytes_held -= size
