"""Whom this package tells what happens: structured events, as the server's logs take them."""

from typing import Protocol


class Log(Protocol):
    """`event` is a stable name; no field holds a key, a token, or text from elsewhere."""

    def info(self, event: str, **fields: object) -> None: ...
    def warning(self, event: str, **fields: object) -> None: ...
    def error(self, event: str, exception: BaseException | None = None, **fields: object) -> None: ...
