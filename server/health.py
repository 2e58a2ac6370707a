"""Liveness and readiness. Ready means that every named gate is open; a closed one says why."""

from collections.abc import Callable, Mapping

from server.messages import RequestInfo, Response

Check = Callable[[], str | None]
"""A gate asked at each probe: None when open, else the reason, which anyone who reaches the port may read."""


class Gate:
    """A gate that its owner moves. Closed with a reason until opened."""

    def __init__(self, reason: str) -> None:
        self._reason: str | None = reason

    def open(self) -> None:
        self._reason = None

    def close(self, reason: str) -> None:
        self._reason = reason

    def __call__(self) -> str | None:
        return self._reason


class Health:
    """The gates by name, and the two probes' handlers."""

    def __init__(self, gates: Mapping[str, Check]) -> None:
        self._gates = dict(gates)

    @property
    def names(self) -> list[str]:
        return list(self._gates)

    def reason(self, name: str) -> str | None:
        """Why gate `name` is closed; a check that raises is closed, by the class of what it raised."""
        try:
            return self._gates[name]()
        except Exception as error:  # a broken check must not look like readiness, nor take the probe down
            return f"check failed: {type(error).__name__}"

    def failing(self) -> dict[str, str]:
        """Closed gates and their reasons."""
        return {name: reason for name in self._gates if (reason := self.reason(name)) is not None}

    async def healthz(self, _body: bytes, _info: RequestInfo) -> Response:
        """200 while the event loop answers."""
        return Response(200, b"ok\n", "text/plain")

    async def readyz(self, _body: bytes, _info: RequestInfo) -> Response:
        """200, or 503 with one line for each closed gate."""
        failing = self.failing()
        if not failing:
            return Response(200, b"ok\n", "text/plain")
        lines = [f"[-]{name}: {reason}\n" for name, reason in failing.items()]
        return Response(503, "".join(lines).encode(), "text/plain")
