"""A bounded queue in which the clients take turns, so that none of them keeps the others waiting."""

from __future__ import annotations

from collections import OrderedDict

from attestation.errors import KeyServiceError


class Turns:
    """At most `limit` places, `share` of them for one client. Each client has a line; the lines are served in turn.

    A key may stand in several lines: its turn is the first that comes. A full queue makes room for a client with fewer
    places by the last place of the longest line, so that many places never keep a newcomer out.
    """

    def __init__(self, limit: int, share: int) -> None:
        self._limit = limit
        self._share = share
        # Clients in the order of their turns; keys in the order of their arrival.
        self._lines: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __contains__(self, key: str) -> bool:
        return any(key in line for line in self._lines.values())

    def add(self, client: str, key: str) -> str | None:
        """Give the key a place in the client's line. Returns a key that has lost its last place for it.

        Raises KeyServiceError when the client has no place left.
        """
        line = self._lines.get(client, OrderedDict())
        if key in line:
            return None
        if len(line) >= self._share:
            raise KeyServiceError(f"{len(line)} requests of {client} wait already, required fewer")
        displaced = self._make_room(len(line)) if self._places() >= self._limit else None
        self._lines.setdefault(client, line)[key] = None
        return displaced

    def take(self) -> str:
        """The key whose turn it is; it leaves every line. Raises KeyError when none waits."""
        client, line = self._lines.popitem(last=False)
        key, _ = line.popitem(last=False)
        if line:
            self._lines[client] = line
        for other in [name for name, each in self._lines.items() if key in each]:
            self._leave(other, key)
        return key

    def drop(self, client: str) -> list[str]:
        """Close the client's line. Returns the keys that stand in no other one."""
        return [key for key in self._lines.pop(client, ()) if key not in self]

    def _places(self) -> int:
        return sum(map(len, self._lines.values()))

    def _make_room(self, places: int) -> str | None:
        longest = max(self._lines, key=lambda client: len(self._lines[client]))
        if len(self._lines[longest]) <= places + 1:
            raise KeyServiceError(f"{self._places()} requests wait already, required fewer")
        key = next(reversed(self._lines[longest]))
        self._leave(longest, key)
        return None if key in self else key

    def _leave(self, client: str, key: str) -> None:
        del self._lines[client][key]
        if not self._lines[client]:
            del self._lines[client]
