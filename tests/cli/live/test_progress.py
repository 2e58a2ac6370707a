"""A progress bar on a terminal, and nothing in a file or a pipe."""

from __future__ import annotations

import io

from cli.support.progress import Progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_at_a_terminal_sees_a_bar_that_is_gone_at_the_end() -> None:
    terminal = _Terminal()
    with Progress(terminal) as progress:
        progress("pods", 5, 10, "300 objects\x1b[2J")
    shown, clear = terminal.getvalue().rsplit("\r", 1)
    assert shown.endswith("[##########..........] pods 300 objects?[2J")
    assert clear == "\x1b[2K"


def test_a_pipe_gets_nothing() -> None:
    pipe = io.StringIO()
    with Progress(pipe) as progress:
        progress("pods", 5, 10)
    assert pipe.getvalue() == ""
