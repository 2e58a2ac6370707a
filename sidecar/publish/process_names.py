"""Whether a process is the one that `on-change` names, by what the kernel records of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

COMM_BYTES: Final = 15  # TASK_COMM_LEN in linux/sched.h, without the final NUL
SHEBANG_BYTES: Final = 256  # BINPRM_BUF_SIZE in linux/binfmts.h
_ENV: Final = "env"
_MAX_INTERPRETERS: Final = 4  # the kernel's own bound is 5 (exec_binprm in fs/exec.c)


@dataclass(frozen=True, slots=True)
class Record:
    """A process: `comm`, the words of its command line, its program's path (None where it cannot be read).

    `first_bytes(word)`: the start of the file that a word names, as the process sees it; None where it cannot be read.
    """

    comm: str
    words: Sequence[str]
    program: str | None
    first_bytes: Callable[[str], bytes | None]


def is_named(process: Record, name: str) -> bool:
    """Whether the process is called `name`: by the kernel, by its command, by its program, or by its script.

    The kernel keeps COMM_BYTES of a name. What fills them may go on otherwise than `name`, so that alone proves
    nothing. A script that the kernel starts by its first line (`#!`) has the interpreter as its command and program.
    """
    if process.words and _base(process.words[0]) == name:
        return True
    is_comm = process.comm == name[:COMM_BYTES]
    if is_comm and len(name) < COMM_BYTES:
        return True
    program = None if process.program is None else _base(process.program.removesuffix(" (deleted)"))
    if is_comm and program == name:
        return True
    if is_comm and process.words and _titled(process.words[0]) == name:
        return True
    # Not the name of the program itself, so the script's, if there is one.
    is_scripts = is_comm and all(
        each[:COMM_BYTES] != process.comm for each in (program, *map(_base, process.words[:1])) if each
    )
    return _is_script(process, name, is_scripts)


def _is_script(process: Record, name: str, is_scripts: bool) -> bool:
    """Whether the words are what the kernel (binfmt_script) makes of a script of that name.

    `is_scripts`: the kernel's name agrees, and is that of a script. It decides where the file cannot be read.
    """
    words = process.words
    for place in range(1, len(words)):
        if _base(words[place]) != name:
            continue
        start = process.first_bytes(words[place])
        if start is not None:
            expected = _interpreters(start, process.first_bytes)
            return bool(expected) and [_base(words[0]), *words[1:place]] == [_base(expected[0]), *expected[1:]]
        return is_scripts and place == 1
    return False


def _interpreters(start: bytes, first_bytes: Callable[[str], bytes | None]) -> list[str]:
    """As `_interpreter`; where the interpreter is a script too, the kernel goes on with that one's first line."""
    words = _interpreter(start)
    for _ in range(_MAX_INTERPRETERS):
        inner = _interpreter((first_bytes(words[0]) or b"") if words and words[0].startswith("/") else b"")
        if not inner:
            break
        words = [*inner, *words]
    return words


def _titled(word: str) -> str:
    """The name in a title that a program gives itself, `NAME: what it does`."""
    return _base(word.partition(":")[0]) if ": " in word else ""


def _interpreter(start: bytes) -> list[str]:
    """The words before the script's own, as its first line says: an interpreter and one argument; what `env` starts."""
    if not start.startswith(b"#!"):
        return []
    line = start[2:].partition(b"\n")[0].decode(errors="surrogateescape").strip(" \t\r")
    interpreter, _, rest = line.replace("\t", " ").partition(" ")
    rest = rest.strip(" ")
    if _base(interpreter) != _ENV:
        return [interpreter, rest] if rest else [interpreter]
    words = rest.split()
    if words[:1] in (["-S"], ["--split-string"]):
        words = words[1:]
    while words and "=" in words[0]:  # variables that `env -S` sets
        words = words[1:]
    return words


def _base(path: str) -> str:
    return path.rpartition("/")[2]
