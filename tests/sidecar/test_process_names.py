"""A process has the name in `on-change`, or it has another: for names of every length, as Linux records them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from sidecar.publish.process_names import COMM_BYTES, Record, is_named

# Few letters and lengths around the kernel's bound, so that two names often begin alike.
NAMES = st.builds(
    lambda head, tail: (head + tail)[:64],
    st.sampled_from(["payments-servic", "payments-service", "payments-servi", "a", "nginx", "python3", ""]),
    st.text("ab.-_e", min_size=1, max_size=4),
)
LINES = st.sampled_from(
    [
        "#!/usr/bin/python3",
        "#! /usr/bin/python3 -u",
        "#!/bin/sh",
        "#!/usr/bin/env python3",
        "#!/usr/bin/env -S python3 -u",
        "#!/usr/bin/env -S A=b python3 -u",
    ]
)
FOLDERS = st.sampled_from(["", "./", "/app/", "/usr/local/bin/"])


@dataclass(frozen=True)
class Started:
    """What execve was given, and what the kernel then has."""

    name: str
    record: Record


def _comm(name: str) -> str:
    return name[:COMM_BYTES]


def _unreadable(_: str) -> bytes | None:
    return None


@st.composite
def programs(draw: st.DrawFn) -> Started:
    """A binary; its command line names other files, and it may have replaced its own first word by a title."""
    name, folder, arguments = draw(NAMES), draw(FOLDERS), draw(st.lists(NAMES, max_size=2))
    title = draw(st.sampled_from([f"{folder}{name}", f"{name}: master process", "worker process", ""]))
    readable = draw(st.sampled_from([_unreadable, lambda _: b"#!/usr/bin/python3\n", lambda _: b"\x7fELF"]))
    return Started(name, Record(_comm(name), [title, *arguments], f"/app/{name}", readable))


@st.composite
def scripts(draw: st.DrawFn) -> Started:
    """A script by its `#!`: binfmt_script puts interpreter and argument before the path; env replaces itself."""
    name, folder, line = draw(NAMES), draw(FOLDERS), draw(LINES)
    other = draw(NAMES)
    path = f"{folder}{name}"
    interpreter, *rest = line[2:].strip().split(" ", 1)
    if interpreter.endswith("/env"):
        words = [word for word in rest[0].split() if word != "-S" and "=" not in word]
        comm, readable = _comm(words[0]), True
    else:
        words = [interpreter, *rest]
        # What cannot be read is known by the kernel's name, if there is no argument before it.
        comm, readable = _comm(name), draw(st.booleans()) or bool(rest)

    def first_bytes(word: str) -> bytes | None:
        return f"{line}\nbody\n".encode() if word == path and readable else None

    return Started(name, Record(comm, [*words, path, other], f"/usr/bin/{words[0].rpartition('/')[2]}", first_bytes))


def _also(started: Started) -> set[str]:
    """Other names that the kernel itself gives the process: the interpreter's, and a short name of its own."""
    words = started.record.words
    own = {words[0].rpartition("/")[2]} if words else set()
    return own | ({started.record.comm} if len(started.record.comm) < COMM_BYTES else set())


@given(st.one_of(programs(), scripts()))
def test_a_process_has_its_own_name(started: Started) -> None:
    assert is_named(started.record, started.name)


@given(st.one_of(programs(), scripts()), NAMES)
def test_a_process_has_no_other_name(started: Started, name: str) -> None:
    if name == started.name or name in _also(started):
        return
    assert not is_named(started.record, name)


@given(scripts(), st.data())
def test_a_program_that_only_names_the_script_is_another(started: Started, data: st.DataObject) -> None:
    """An editor, a pager, or the interpreter of another script."""
    words = list(started.record.words)
    command = data.draw(st.sampled_from(["/usr/bin/tail", "vi", "/app/manager"]))
    reader: Callable[[str], bytes | None] = started.record.first_bytes
    path = words[-2]
    for line in ([command, path], [command, "-f", path], [words[0], "/app/manager.py", path]):
        record = Record(_comm(line[0].rpartition("/")[2]), line, f"/usr/bin/{line[0]}", reader)
        if started.name not in (line[0].rpartition("/")[2], record.comm):
            assert not is_named(record, started.name)


def test_a_script_that_gives_itself_a_title_keeps_its_name() -> None:
    """As setproctitle does: the kernel has cut the name, and the command line is gone."""
    name = "payments-service-worker"
    record = Record(_comm(name), [f"{name}: master [2 workers]"], "/usr/bin/python3.11", _unreadable)
    assert is_named(record, name)
    assert not is_named(record, "payments-service-other")
    other = Record("payments-servi", [f"{name}: master"], "/usr/bin/python3.11", _unreadable)
    assert not is_named(other, name), "a title alone proves nothing"


def test_a_script_whose_interpreter_is_a_script_has_its_name() -> None:
    files = {"/app/payments-service.py": b"#!/opt/run -x\n", "/opt/run": b"#!/bin/bash -e\n", "/bin/bash": b"\x7fELF"}
    words = ["/bin/bash", "-e", "/opt/run", "-x", "/app/payments-service.py", "--verbose"]
    assert is_named(Record("payments-servic", words, "/usr/bin/bash", files.get), "payments-service.py")
    words.remove("-x")
    assert not is_named(Record("payments-servic", words, "/usr/bin/bash", files.get), "payments-service.py")


def test_interpreters_that_name_each_other_end() -> None:
    words = ["/a", "/b", "/a", "/b", "/a", "/b", "/app/payments-service.py"]
    files = {"/app/payments-service.py": b"#!/a\n", "/a": b"#!/b\n", "/b": b"#!/a\n"}
    assert not is_named(Record("x", words, "/a", files.get), "payments-service.py")
