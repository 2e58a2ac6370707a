"""One worker process, as its parent sees it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from server import logs
from server.messages import Response
from server.workers.handed import HandingDown, pair
from server.workers.link import VARIABLE
from server.workers.messages import (
    Answer,
    Collect,
    Drain,
    Family,
    Known,
    Question,
    Report,
    Status,
    Topic,
    ToWorker,
    decode_from_worker,
    framed,
    read_frame,
)


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """A running worker. `failing` is None until its first sign of life; `silent_turns` counts those since the last."""

    number: int
    process: asyncio.subprocess.Process
    handing: HandingDown
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    failing: Mapping[str, str] | None = None
    silent_turns: int = 0
    known: dict[str, int] = field(default_factory=dict)
    families: Sequence[Family] = ()
    reported: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def can_serve(self) -> bool:
        """Whether its gates are open."""
        return self.failing is not None and not self.failing

    def knows(self, topics: Mapping[str, Topic]) -> bool:
        """Whether it has taken the newest version of each topic into use."""
        return all(self.known.get(name) == topic.version for name, topic in topics.items())

    def send(self, message: ToWorker) -> None:
        if not self.writer.is_closing():
            self.writer.write(framed(message))

    def ask_for_report(self) -> None:
        """Let it send its metrics; `reported` is set when they are here."""
        self.reported.clear()
        self.send(Collect())

    def drain(self) -> None:
        self.send(Drain())

    async def follow(
        self,
        changed: Callable[[], None],
        knows_more: Callable[[], None],
        answer: Callable[[str], Awaitable[Response]],
    ) -> None:
        """Take note of what it says until it closes its socket.

        `changed` is called after each sign of life, `knows_more` after it has taken a topic into use; `answer` makes
        the answer to GET of a path.
        """
        answering: set[asyncio.Task[None]] = set()
        while (frame := await read_frame(self.reader)) is not None:
            message = decode_from_worker(frame)
            self.silent_turns = 0
            if isinstance(message, Status):
                self.failing = message.failing
                changed()
            elif isinstance(message, Known):
                self.known[message.name] = message.version
                changed()
                knows_more()
            elif isinstance(message, Report):
                self.families = message.families
                self.reported.set()
            elif isinstance(message, Question):
                task = asyncio.ensure_future(self._answer(message, answer))
                answering.add(task)
                task.add_done_callback(answering.discard)

    async def _answer(self, question: Question, answer: Callable[[str], Awaitable[Response]]) -> None:
        response = await answer(question.path)
        self.send(Answer(question.number, response.status, response.body, response.content_type))

    async def end(self) -> int:
        """Kill it, if it still runs; returns its exit code."""
        with suppress(ProcessLookupError):
            self.process.kill()
        return await self.process.wait()


async def start_worker(number: int, command: Sequence[str]) -> Worker:
    """Run the command as a worker. Raises OSError."""
    handing, handed = pair()
    messages, theirs = socket.socketpair()
    messages.setblocking(False)
    inherited = (handed.fileno(), theirs.fileno())
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, VARIABLE: ",".join(map(str, (number, *inherited)))},
            pass_fds=inherited,
        )
    except BaseException:
        handing.close()
        messages.close()
        raise
    finally:
        handed.close()
        theirs.close()
    logs.info("worker_started", number=number, pid=process.pid)
    reader, writer = await asyncio.open_unix_connection(sock=messages)
    return Worker(number=number, process=process, handing=HandingDown(handing), reader=reader, writer=writer)
