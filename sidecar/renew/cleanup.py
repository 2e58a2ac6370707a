"""Revokes replaced tokens and leases, once the application has had time to change over; retries while Vault is away."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from sidecar.deadline import Deadline
from sidecar.errors import SidecarError
from sidecar.log import Events
from sidecar.renew.schedule import Schedule, Task
from sidecar.vault.session import SecretLease, VaultSession

# With the back-off between them some five minutes; by then a short-lived token has ended by itself.
MAX_ATTEMPTS: Final = 10


@dataclass(slots=True)
class _Entry:
    session: VaultSession
    lease: SecretLease | None
    due: float
    attempts: int = 0


class Cleanup:
    """What is still to be revoked. Bounded: each entry is dropped after MAX_ATTEMPTS."""

    def __init__(self, events: Events, schedule: Schedule) -> None:
        self._events = events
        self._schedule = schedule
        self._entries: list[_Entry] = []

    def add_token(self, session: VaultSession, seconds: float) -> None:
        """Revoke a token, and with it its leases, in so many seconds."""
        self._entries = [each for each in self._entries if each.session is not session]
        if session.is_open:
            self._entries.append(_Entry(session, None, time.monotonic() + seconds))
        self._schedule.set(Task.CLEANUP, self.due_in())

    def add_lease(self, session: VaultSession, lease: SecretLease, seconds: float) -> None:
        """Revoke one lease of a token that stays, in so many seconds."""
        if lease.id:
            self._entries.append(_Entry(session, lease, time.monotonic() + seconds))
        self._schedule.set(Task.CLEANUP, self.due_in())

    def open_sessions(self) -> list[VaultSession]:
        """Sessions whose tokens wait to be revoked."""
        return [each.session for each in self._entries if each.lease is None]

    def due_in(self) -> float | None:
        """Seconds until the next one is due; None when there is none."""
        return min((max(0.0, each.due - time.monotonic()) for each in self._entries), default=None)

    def run(self, deadline: Deadline) -> None:
        """Revoke what is due. Raises SidecarError when Vault cannot answer and a later attempt may succeed."""
        now = time.monotonic()
        for entry in [each for each in self._entries if each.due <= now]:
            self._revoke(deadline, entry)

    def _revoke(self, deadline: Deadline, entry: _Entry) -> None:
        what = "token" if entry.lease is None else "lease"
        entry.attempts += 1
        try:
            if entry.lease is None:
                reason = entry.session.revoke_token(deadline)
            else:
                reason = entry.session.revoke_lease(deadline, entry.lease)
        except SidecarError as error:
            if error.retryable and entry.attempts < MAX_ATTEMPTS and entry.session.remaining() > 0:
                raise
            deadline.shutdown.check()
            reason = error.detail
        self._entries.remove(entry)
        if reason:
            self._events.warning(f"{what}_not_revoked", detail=f"{reason}; it expires with its time to live")
        else:
            self._events.info(f"{what}_revoked")
