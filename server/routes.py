"""Which handler answers a path. Exact lookups: no patterns to compile, nothing to match in turn."""

from collections.abc import Mapping
from dataclasses import dataclass

from server.messages import Handler, Refusal


@dataclass(frozen=True, slots=True)
class Route:
    """A path as it was registered (also its metric label), its handler, and whether load may refuse it."""

    label: str
    handler: Handler
    bounded: bool


class Routes:
    """(method, path) to handler. A path that ends in `/*` takes exactly one more segment, never an empty one."""

    def __init__(self, application: Mapping[tuple[str, str], Handler], own: Mapping[str, Handler]) -> None:
        routes = {key: Route(key[1], handler, True) for key, handler in application.items()}
        for path, handler in own.items():
            if ("GET", path) in routes:
                raise ValueError(f"{path} belongs to the server")
            # A probe or a scrape must be answered above all when the server is overloaded.
            routes["GET", path] = Route(path, handler, False)
        self._routes = routes
        self._paths = {path for _, path in routes}

    def find(self, method: str, path: str) -> tuple[Route, str] | Refusal:
        """The route and the segment that `/*` stood for, or why there is none."""
        if route := self._routes.get((method, path)):
            return route, ""
        head, _, tail = path.rpartition("/")
        wild = f"{head}/*"
        if tail and (route := self._routes.get((method, wild))):
            return route, tail
        return Refusal.METHOD if path in self._paths or (tail and wild in self._paths) else Refusal.NOT_FOUND
