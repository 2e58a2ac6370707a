"""Whether the API server answers this process at all.

An answer of any status counts. A replica that gets none has a fault of its own, such as a cut network, and the others
can serve in its place. A 401, 403 or 5xx meets every replica alike, so it must not make them all unready.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from server import logs
from server.kubernetes.client import Client
from server.kubernetes.errors import KubernetesError

SILENCE_SECONDS: Final = 10.0
"""Without an answer for so long, the replica is cut off."""

# A quiet watch sends nothing for a minute, so after so long without an answer the server is asked for one.
_PROBE_SECONDS: Final = 2.0
# Small, readable by every account, and answered by the API server itself.
_PROBE_PATH: Final = "/version"


class Contact:
    """`run` asks the API server where it has been silent; `problem` is a gate of readiness."""

    def __init__(
        self,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        probe_seconds: float = _PROBE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._silence_seconds = silence_seconds
        self._probe_seconds = probe_seconds
        self._clock = clock
        self._client: Client | None = None
        self._is_silent = False

    @property
    def silent_seconds(self) -> float:
        """Seconds since the last answer, of whatever status; 0 before there was a client."""
        return 0.0 if self._client is None else self._clock() - self._client.answered_at

    def problem(self) -> str | None:
        """Why this process counts as cut off; None while it does not."""
        silent = self.silent_seconds
        if silent < self._silence_seconds:
            return None
        return f"no answer from the API server for {silent:.0f} s"

    async def run(self, client: Client) -> None:
        """Ask for an answer where none has come by itself, until cancelled. Each change is logged once."""
        self._client = client
        while True:
            await asyncio.sleep(self._probe_seconds)
            if self.silent_seconds >= self._probe_seconds:
                with suppress(KubernetesError):
                    await client.read(_PROBE_PATH, seconds=self._probe_seconds)
            self._note()

    def _note(self) -> None:
        is_silent = self.problem() is not None
        if is_silent and not self._is_silent:
            logs.warning(
                "api_server_silent", seconds=round(self.silent_seconds, 1), effect="not ready until it answers"
            )
        elif self._is_silent and not is_silent:
            logs.info("api_server_answers_again")
        self._is_silent = is_silent
