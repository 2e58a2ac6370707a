"""Clients that post without pause, each over a connection that it keeps."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Sequence


class Load:
    """One thread per entry of `pauses`, which is how long that client is idle between two requests, in seconds.

    A client opens a new connection after an answer that says `Connection: close`. It never looks whether the server has
    closed an idle connection: it finds out by losing a request, which `failures` then lists.
    """

    def __init__(
        self, connect: Callable[[], http.client.HTTPConnection], body: bytes, pauses: Sequence[float] = (0, 0, 0, 0)
    ) -> None:
        self.answered = 0
        self.answered_each = [0] * len(pauses)
        self.failures: list[str] = []
        self._connect = connect
        self._body = body
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=each, daemon=True) for each in enumerate(pauses)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def least_answered(self) -> int:
        """The answers of the client that has had the fewest."""
        return min(self.answered_each)

    def _run(self, number: int, pause: float) -> None:
        connection = self._connect()
        while not self._stop.is_set():
            try:
                connection.request("POST", "/mutate/pod", self._body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
            except OSError as error:
                self._failed(type(error).__name__)
                connection.close()  # and the next request opens it again
            else:
                with self._lock:
                    self.answered += 1
                    self.answered_each[number] += 1
                if answer.status != 200:
                    self._failed(str(answer.status))
            self._stop.wait(pause)
        connection.close()

    def _failed(self, reason: str) -> None:
        with self._lock:
            self.failures.append(reason)
