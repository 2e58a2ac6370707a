"""Bearers: what stands between an accepted attestation and its one login, known to the process that made them alone.

A bearer is a handle. What it stands for, the grant, stays in this process's memory, so nothing in a bearer is trusted.
It has the form of a JWT because clients of the KBS protocol read its expiry. Its key is random and never leaves the
process: Vault, which knows the ES256 keys, can never take a bearer for a login.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.basis import Basis
from kbs.base64url import decode, encode
from kbs.messages import write_json

BEARER_SECONDS = 60
_HEADER = encode(write_json({"alg": "HS256", "typ": "JWT"}))
_KEY_SIZE = 32
_MAX_SIZE = 16 * 1024
# A pod attests again when an answer was lost. A pod that keeps attesting displaces its own grants, never another's.
_PER_POD = 4


@dataclass(frozen=True, slots=True)
class Grant:
    """An accepted attestation, and the session that its one login belongs to.

    `granted_by`: the digest of the policy. `claims`: what the report attests, flat strings.
    """

    correlation_id: str
    basis: Basis
    granted_by: str
    nonce: str = field(repr=False)
    tee_pubkey: Mapping[str, str]
    claims: Mapping[str, str]
    simulated: bool


class Bearers:
    """The grants of the last minute. `now`: monotonic seconds, which a host's clock cannot turn back."""

    def __init__(self, now: Callable[[], float], limit: int = 10_000) -> None:
        self._key = secrets.token_bytes(_KEY_SIZE)
        self._now = now
        self._limit = limit
        # In the order of their end, and by pod.
        self._grants: OrderedDict[str, tuple[Grant, float]] = OrderedDict()
        self._by_pod: dict[tuple[str, str], list[str]] = {}

    def issue(self, grant: Grant) -> str:
        """A bearer for one login. Raises RefusedError: OVERLOADED."""
        now = self._now()
        self._forget(now)
        own = self._by_pod.get(_pod(grant), [])
        if len(own) >= _PER_POD:
            self._drop(own[0])
        elif len(self._grants) >= self._limit:
            raise RefusedError(Reason.OVERLOADED, f"{self._limit} attestations wait for their login")
        handle = secrets.token_urlsafe(32)
        self._keep(handle, grant, now + BEARER_SECONDS)
        issued = int(time.time())
        claims: dict[str, Any] = {
            "iat": issued,
            "exp": issued + BEARER_SECONDS,
            "jti": handle,
            "cnf": {"jwk": dict(grant.tee_pubkey)},
        }
        signed = f"{_HEADER}.{encode(write_json(claims))}"
        return f"{signed}.{self._mac(signed)}"

    def take(self, bearer: str) -> Claimed:
        """The grant, which no second call gets. Raises RefusedError: BEARER_INVALID, BEARER_EXPIRED or BEARER_USED."""
        if len(bearer) > _MAX_SIZE:
            raise RefusedError(Reason.BEARER_INVALID, "too large")
        signed, _, mac = bearer.rpartition(".")
        if not bearer.isascii() or not hmac.compare_digest(mac, self._mac(signed)):
            raise RefusedError(Reason.BEARER_INVALID, "this process has not made it")
        # From here on all of it is this process's own, byte for byte: the key signs nothing else.
        handle = json.loads(decode(signed.partition(".")[2]))["jti"]
        if handle not in self._grants:
            raise RefusedError(
                Reason.BEARER_USED, f"used, displaced by the pod's later ones, or over {BEARER_SECONDS} s"
            )
        grant, until = self._drop(handle)
        if self._now() >= until:
            raise RefusedError(Reason.BEARER_EXPIRED)
        return Claimed(grant, handle, until)

    def give_back(self, claimed: Claimed) -> None:
        """Let the bearer be used after all, until its first end: Vault has made no login of it."""
        if len(self._by_pod.get(_pod(claimed.grant), [])) < _PER_POD and len(self._grants) < self._limit:
            self._keep(claimed.handle, claimed.grant, claimed.until)

    def __len__(self) -> int:
        return len(self._grants)

    def _mac(self, signed: str) -> str:
        return encode(hmac.digest(self._key, signed.encode(), "sha256"))

    def _keep(self, handle: str, grant: Grant, until: float) -> None:
        self._grants[handle] = (grant, until)
        self._by_pod.setdefault(_pod(grant), []).append(handle)

    def _drop(self, handle: str) -> tuple[Grant, float]:
        grant, until = self._grants.pop(handle)
        own = self._by_pod[_pod(grant)]
        own.remove(handle)
        if not own:
            del self._by_pod[_pod(grant)]
        return grant, until

    def _forget(self, now: float) -> None:
        # A bearer that was given back stands behind later ones, and goes at most BEARER_SECONDS after its end.
        while self._grants:
            handle, (_, until) = next(iter(self._grants.items()))
            if until > now:
                return
            self._drop(handle)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A grant that was taken for one login. `until`: monotonic seconds."""

    grant: Grant
    handle: str = field(repr=False)
    until: float


def _pod(grant: Grant) -> tuple[str, str]:
    return grant.basis.pod.cluster, grant.basis.pod.pod_uid
