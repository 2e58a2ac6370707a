"""Liveness and readiness. A server is ready while every named gate is open; a closed gate gives its reason."""

from collections.abc import Callable, Mapping

from server.messages import RequestInfo, Response

Check = Callable[[], str | None]
"""A gate, evaluated per probe: None when it is open, else the reason. Any client of the port may read the reason."""


class Gate:
    """A gate that its owner opens and closes. It starts closed, with a reason."""

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
        """Why the gate `name` is closed. A check that raises counts as closed, with the exception's class as reason."""
        try:
            return self._gates[name]()
        except Exception as error:  # a broken check must not look ready, and must not break the probe
            return f"check failed: {type(error).__name__}"

    def failing(self) -> dict[str, str]:
        """The closed gates, with their reasons."""
        return {name: reason for name in self._gates if (reason := self.reason(name)) is not None}

    async def healthz(self, _body: bytes, _info: RequestInfo) -> Response:
        """200 while the event loop answers."""
        return Response(200, b"ok\n", "text/plain")

    async def readyz(self, _body: bytes, _info: RequestInfo) -> Response:
        """200, or 503 with one line per closed gate."""
        failing = self.failing()
        if not failing:
            return Response(200, b"ok\n", "text/plain")
        lines = [f"[-]{name}: {reason}\n" for name, reason in failing.items()]
        return Response(503, "".join(lines).encode(), "text/plain")
