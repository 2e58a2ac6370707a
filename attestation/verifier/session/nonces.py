"""Nonces: made from a key that never leaves the process, and used once. Another process's nonce is foreign.

32 bytes: 4 of time (monotonic seconds, big-endian), 12 random, 16 of HMAC-SHA-256 over both.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import struct
from collections import OrderedDict
from collections.abc import Callable

from attestation.verifier.reasons import Reason, RefusedError

LIFETIME_SECONDS = 60
_TIME = struct.Struct(">I")
_RANDOM_SIZE, _MAC_SIZE = 12, 16
_KEY_SIZE = 32
_SIZE = _TIME.size + _RANDOM_SIZE + _MAC_SIZE


class Nonces:
    """`now`: monotonic seconds, which a host's clock cannot turn back. `limit`: nonces remembered as used."""

    def __init__(self, now: Callable[[], float], limit: int = 100_000) -> None:
        self._key = secrets.token_bytes(_KEY_SIZE)
        self._now = now
        self._limit = limit
        self._used: OrderedDict[bytes, float] = OrderedDict()

    def issue(self) -> str:
        """A fresh nonce, standard base64."""
        head = _TIME.pack(int(self._now())) + secrets.token_bytes(_RANDOM_SIZE)
        return base64.b64encode(head + self._mac(head)).decode()

    def spend(self, nonce: str) -> None:
        """Accept a nonce once. Raises RefusedError: foreign, expired, replayed, or OVERLOADED when the set is full."""
        head, age = self._read(nonce)
        if age > LIFETIME_SECONDS:
            raise RefusedError(Reason.NONCE_EXPIRED, f"{age:.0f} s old, required at most {LIFETIME_SECONDS} s")
        now = self._now()
        self._forget(now)
        if head in self._used:
            raise RefusedError(Reason.NONCE_REPLAYED)
        # Forgetting a used one to make room would be a way to replay it.
        if len(self._used) >= self._limit:
            raise RefusedError(Reason.OVERLOADED, f"{self._limit} nonces used in {LIFETIME_SECONDS} s")
        self._used[head] = now + LIFETIME_SECONDS + 1

    def is_unspent(self, nonce: str) -> bool:
        """Whether `spend` would accept the nonce now. Cheap: one MAC."""
        try:
            head, age = self._read(nonce)
        except RefusedError:
            return False
        return age <= LIFETIME_SECONDS and head not in self._used

    def _read(self, nonce: str) -> tuple[bytes, float]:
        """Time and randomness of a nonce that this process made, and its age in seconds. Raises RefusedError."""
        try:
            raw = base64.b64decode(nonce, validate=True)
        except (binascii.Error, ValueError):
            raise RefusedError(Reason.NONCE_FOREIGN, "not base64") from None
        head, mac = raw[:-_MAC_SIZE], raw[-_MAC_SIZE:]
        if len(raw) != _SIZE or not hmac.compare_digest(mac, self._mac(head)):
            raise RefusedError(Reason.NONCE_FOREIGN, "this process has not made it")
        return head, self._now() - _TIME.unpack_from(head)[0]

    def _forget(self, now: float) -> None:
        while self._used:
            head, until = next(iter(self._used.items()))
            if until > now:
                return
            del self._used[head]

    def _mac(self, head: bytes) -> bytes:
        return hmac.digest(self._key, b"morphisms nonce" + head, "sha256")[:_MAC_SIZE]
