"""Whether the verifier's clock can be used: the host sets it, and a clock turned back revives lists, tokens and logins.

It is compared with three things that the host does not choose: the build, the newest revocation list that an accepted
report rested on, and Vault's clock, which is followed between its answers by the monotonic one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from attestation.errors import PeerError
from attestation.verifier.peer import Peer
from attestation.verifier.reasons import Reason, RefusedError

MOST_SECONDS = 30.0
_ASK_SECONDS = 10.0
_FIRST_SECONDS = 1.0
# Answered without a token, in every state of Vault; a read of it is not audited.
_HEALTH_PATH = "/v1/sys/health"
BUILT_FILE = "built"


class Clock:
    """`now`: Unix seconds, as the host has it. `steady`: monotonic seconds. `built`: Unix seconds of the build."""

    def __init__(self, now: Callable[[], float], steady: Callable[[], float], built: float) -> None:
        self._now = now
        self._steady = steady
        self._oldest = built
        self._oldest_is = "the build"
        # Vault's time less the monotonic one.
        self._vault: float | None = None

    def require(self) -> None:
        """Raise RefusedError, CLOCK, while the clock cannot be right."""
        if problem := self._problem():
            raise RefusedError(Reason.CLOCK, problem)

    def check(self) -> str | None:
        """The gate: None while the clock can be right."""
        return self._problem() or None

    def saw_lists(self, lists_from: Iterable[datetime]) -> None:
        """Take the newest thisUpdate of lists that an accepted report rested on."""
        for each in lists_from:
            # A list of the future is refused where it is used. Here it could stop the verifier for good.
            if self._oldest < each.timestamp() <= self._now():
                self._oldest, self._oldest_is = each.timestamp(), "the newest revocation list"

    def saw_vault(self, date: str | None) -> None:
        """Take the Date of an answer of Vault's that has just come."""
        if date is None:
            return
        try:
            self._vault = parsedate_to_datetime(date).timestamp() - self._steady()
        except (ValueError, OverflowError):
            return

    def _problem(self) -> str:
        now = self._now()
        if now < self._oldest:
            return f"the clock is {self._oldest - now:.0f} s before {self._oldest_is}"
        if self._vault is not None and abs(now - self._vault - self._steady()) > MOST_SECONDS:
            return (
                f"the clock is {now - self._vault - self._steady():+.0f} s from Vault's, at most {MOST_SECONDS:.0f} s"
            )
        return ""

    async def follow(self, vault: Peer) -> None:
        """Ask Vault what time it is, until cancelled."""
        while True:
            with contextlib.suppress(PeerError):
                self.saw_vault((await vault.request("GET", _HEALTH_PATH)).date)
            await asyncio.sleep(_FIRST_SECONDS if self._vault is None else _ASK_SECONDS)


def build_time(folder: Path = Path(__file__).parent) -> float:
    """Unix seconds of the build, which an image's build has written beside this module; 0 in a checkout."""
    try:
        return float(int((folder / BUILT_FILE).read_text()))
    except FileNotFoundError:
        return 0.0
