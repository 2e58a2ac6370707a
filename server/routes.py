"""The handler of each path, found by exact look-ups: there are no patterns to match in turn."""

from collections.abc import Mapping
from dataclasses import dataclass

from server.messages import NO_INTAKE, Handler, Intake, Refusal


@dataclass(frozen=True, slots=True)
class Route:
    """A path as registered, which is its metric's label too; its handler; and whether overload refuses it.

    `intake`: its conditions.
    """

    label: str
    handler: Handler
    bounded: bool
    intake: Intake = NO_INTAKE


class Routes:
    """The handler per (method, path). A path that ends in `/*` takes exactly one more segment, which is not empty."""

    def __init__(
        self,
        application: Mapping[tuple[str, str], Handler],
        own: Mapping[str, Handler],
        intakes: Mapping[str, Intake] | None = None,
    ) -> None:
        intakes = intakes or {}
        routes = {
            key: Route(key[1], handler, True, intakes.get(key[1], NO_INTAKE)) for key, handler in application.items()
        }
        for path, handler in own.items():
            if ("GET", path) in routes:
                raise ValueError(f"{path} belongs to the server")
            # Probes and scrapes matter most while the server is overloaded. A HEAD gets the head of GET's answer (RFC
            # 9110, 9.3.2): some probes and balancers send nothing else.
            routes["GET", path] = routes["HEAD", path] = Route(path, handler, False)
        self._routes = routes
        self._paths = {path for _, path in routes}

    def find(self, method: str, path: str) -> tuple[Route, str] | Refusal:
        """The route, with the segment in place of `/*`; or why there is none."""
        if route := self._routes.get((method, path)):
            return route, ""
        head, _, tail = path.rpartition("/")
        wild = f"{head}/*"
        if tail and (route := self._routes.get((method, wild))):
            return route, tail
        return Refusal.METHOD if path in self._paths or (tail and wild in self._paths) else Refusal.NOT_FOUND
