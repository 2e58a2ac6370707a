"""A progress line on a terminal, for work that takes seconds; nothing anywhere else."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Final, Self, TextIO

from server.text import printable

_CLEAR: Final = "\r\x1b[2K"
_WIDTH: Final = 20


class Progress:
    """`with Progress(...) as progress: progress("pods", 3, 9)`. The line is gone at the end."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._shown = False
        self._wanted = self._stream.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown:
            self._stream.write(_CLEAR)
            self._stream.flush()

    def __call__(self, what: str, done: int, of: int, detail: str = "") -> None:
        """Show a bar: `done` of `of` parts, the present one's name, and a detail."""
        if not self._wanted:
            return
        full = _WIDTH * done // max(of, 1)
        bar = "#" * full + "." * (_WIDTH - full)
        self._stream.write(f"{_CLEAR}[{bar}] {printable(what)} {printable(detail)}".rstrip())
        self._stream.flush()
        self._shown = True
