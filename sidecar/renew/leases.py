"""Dynamic credentials that one token has made: the lease of each, when to renew it, when it expires."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from sidecar.deadline import jitter
from sidecar.publish.render import Read
from sidecar.vault.session import RENEW_AT, SecretLease, spread

RETRY_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class LeasedCredentials:
    """One secret's lease; `due` for renewal and `expires` are points of the monotonic clock."""

    lease: SecretLease
    due: float
    expires: float


class Leases:
    """The leases of one token, per secret. They end with the token.

    `reread_seconds`: after what time to read again what has no lease although its engine is not KV.
    """

    def __init__(self, reread_seconds: float) -> None:
        self._reread_seconds = reread_seconds
        self._held: dict[Read, LeasedCredentials] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no credentials have been made."""
        return not self._held

    def get(self, read: Read) -> LeasedCredentials:
        """The credentials of a secret. Raises KeyError."""
        return self._held[read]

    def put(self, read: Read, credentials: LeasedCredentials) -> None:
        """Replace the credentials of a secret."""
        self._held[read] = credentials

    def grant(self, read: Read, lease: SecretLease, seconds: float | None = None) -> None:
        """Note that Vault granted a lease, or, with `seconds`, that it renewed one for so long."""
        now, granted = time.monotonic(), lease.seconds if seconds is None else seconds
        if granted:
            self._held[read] = LeasedCredentials(lease, now + granted * RENEW_AT * spread(), now + granted)
        else:
            due = now + early_reread(self._reread_seconds)
            self._held[read] = LeasedCredentials(lease, due, float("inf"))

    def retry_missing(self, wanted: Iterable[Read]) -> None:
        """Make those of `wanted` due soon that are not held."""
        for read in wanted:
            if read not in self._held:
                self._held[read] = LeasedCredentials(SecretLease(), time.monotonic() + retry_delay(), 0.0)

    def postpone(self, read: Read) -> None:
        """Make one that failed due again soon."""
        self._held[read] = replace(self._held[read], due=time.monotonic() + retry_delay())

    def bring_forward(self, seconds: float) -> None:
        """Make all due in so many seconds, unless they are due before."""
        due = time.monotonic() + seconds
        self._held = {read: replace(each, due=min(each.due, due)) for read, each in self._held.items()}

    def due(self) -> list[Read]:
        """Secrets whose credentials are to be renewed now."""
        now = time.monotonic()
        return [read for read, each in self._held.items() if each.due <= now]

    def due_in(self) -> float | None:
        """Seconds until the next one is due; None when there is none."""
        now = time.monotonic()
        return min((max(0.0, each.due - now) for each in self._held.values()), default=None)


def retry_delay() -> float:
    """Seconds until credentials that could not be had are requested again: short, because their life may be short."""
    return RETRY_SECONDS * (0.5 + jitter())


def early_reread(seconds: float) -> float:
    """Up to a tenth less, so that pods which started together do not read together."""
    return seconds * (0.9 + 0.1 * jitter())
