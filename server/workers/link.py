"""A worker's side: it takes connections and messages from its parent, and tells it whether it can serve."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry

from server import logs
from server.messages import Handler, RequestInfo, Response
from server.workers.handed import HandedDown
from server.workers.merging import families_of
from server.workers.messages import (
    Answer,
    Collect,
    Drain,
    FromWorker,
    Known,
    Question,
    Report,
    Status,
    Topic,
    decode_to_worker,
    framed,
    read_frame,
)
from server.workers.timing import TURN_SECONDS

VARIABLE: Final = "MORPHISMS_WORKER"
"""In a worker's environment: its number, and the descriptors of its two sockets."""

_ANSWER_SECONDS: Final = 3.0

Take = Callable[[bytes], None]
"""Takes a topic's content into use. It raises when that cannot be used."""


class ParentLink:
    """The two sockets to the parent. A parent that ends makes its worker drain."""

    def __init__(self, number: int, handed: int, messages: int) -> None:
        self.number = number
        self._handed = HandedDown(handed)
        self._socket = socket.socket(fileno=messages)
        os.set_inheritable(messages, False)
        self._writer: asyncio.StreamWriter | None = None
        self._topics: dict[str, Take] = {}
        self._untold: dict[str, Topic] = {}
        self._questions: dict[int, asyncio.Future[Response]] = {}
        self._asked = 0
        self._open: Callable[[], int] = int
        self._failing: Callable[[], dict[str, str]] = dict
        self._over = asyncio.Event()

    @classmethod
    def inherited(cls) -> ParentLink | None:
        """The link of this process; None when it is not a worker."""
        text = os.environ.pop(VARIABLE, None)
        if text is None:
            return None
        number, handed, messages = map(int, text.split(","))
        logs.add_to_every_line(worker=number)
        return cls(number, handed, messages)

    def on_topic(self, name: str, take: Take) -> None:
        """Let `take` have the content of a topic, now and whenever the parent has a new one. Call it before `run`."""
        self._topics[name] = take

    @property
    def own(self) -> dict[str, Handler]:
        """Handlers of what a replica answers as a whole: its probes and its metrics."""
        return {path: self._asking(path) for path in ("/healthz", "/readyz", "/metrics")}

    def start(self, adopt: Callable[[socket.socket], None], open_: Callable[[], int], cut: Callable[[], None]) -> None:
        """Take connections from now on. `open_`: how many there are; `cut`: one was lost for want of a descriptor."""
        self._open = open_
        loop = asyncio.get_running_loop()

        def take() -> None:
            for connection in self._handed.take(cut):
                adopt(connection)
            if self._handed.is_over:
                loop.remove_reader(self._handed.fileno())
                self._over.set()
            self.counted()

        loop.add_reader(self._handed.fileno(), take)

    def counted(self) -> None:
        """Tell the parent how many connections are open now."""
        self._handed.say(self._open())

    async def run(
        self, registry: CollectorRegistry, failing: Callable[[], dict[str, str]], stop: Callable[[], None]
    ) -> None:
        """Follow the parent until cancelled. `stop` makes the server drain; a second call, at once."""
        self._failing = failing
        reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell())
            over = tasks.create_task(self._end_with_connections(stop))
            while (frame := await read_frame(reader)) is not None:
                message = decode_to_worker(frame)
                if isinstance(message, Topic):
                    self._take(message)
                elif isinstance(message, Answer):
                    if (asked := self._questions.pop(message.number, None)) and not asked.done():
                        asked.set_result(Response(message.status, message.body, message.content_type))
                elif isinstance(message, Collect):
                    self._send(Report(families_of(registry)))
                elif isinstance(message, Drain):
                    stop()
            logs.warning("parent_gone")
            over.cancel()
            stop()
            stop()
            await asyncio.get_running_loop().create_future()

    def report(self, registry: CollectorRegistry) -> None:
        """Send the last counts, before the process ends."""
        self._send(Report(families_of(registry)))

    async def _tell(self) -> None:
        while True:
            self._send(Status(self._failing()))
            # Counts that found no room in the socket are sent again.
            self.counted()
            await asyncio.sleep(TURN_SECONDS)

    async def _end_with_connections(self, stop: Callable[[], None]) -> None:
        """Once the parent hands nothing down any more, no lame duck is needed."""
        await self._over.wait()
        stop()
        stop()

    def _take(self, topic: Topic) -> None:
        take = self._topics.get(topic.name)
        try:
            if take is not None:
                take(topic.content)
        except Exception as error:  # the parent hands no connections to a worker that does not say that it knows
            logs.error("topic_unusable", exception=error, topic=topic.name)
            return
        self._send(Known(topic.name, topic.version))
        self._send(Status(self._failing()))

    def _send(self, message: FromWorker) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(framed(message))

    def _asking(self, path: str) -> Handler:
        async def ask(_body: bytes, _info: RequestInfo) -> Response:
            self._asked += 1
            answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            self._questions[self._asked] = answer
            number = self._asked
            try:
                self._send(Question(number, path))
                async with asyncio.timeout(_ANSWER_SECONDS):
                    return await answer
            except TimeoutError:
                return Response(503, b"the parent process does not answer\n", "text/plain")
            finally:
                self._questions.pop(number, None)

        return ask
