"""The bearer token between an attestation and its Vault token: signed, so that any replica can accept it.

A JWT under HMAC with a key of its own, derived from the one that replicas share: Vault, which knows the ES256 keys, can
never take it for a login. `cnf` holds the ephemeral key: a stolen bearer yields answers that the thief cannot read.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from attestation.verifier.reasons import Reason, RefusedError

BEARER_SECONDS = 60
_ALGORITHM = "HS256"
_MAX_SIZE = 16 * 1024


@dataclass(frozen=True, slots=True)
class Grant:
    """An accepted attestation. `policy`: digest of the policy that it rests on, looked up again before use.

    `claims`: flat strings for Vault, `snp_*` attested and `k8s_*` asserted.
    """

    correlation_id: str
    policy: str
    subject: str
    nonce: str = field(repr=False)
    tee_pubkey: Mapping[str, str]
    claims: Mapping[str, str]


class Bearers:
    """`key`: 32 bytes that all replicas share. `now`: Unix seconds."""

    def __init__(self, key: bytes, now: Callable[[], float]) -> None:
        self._key = OctKey.import_key(hmac.digest(key, b"morphisms bearer", "sha256"))
        self._now = now

    def issue(self, grant: Grant) -> str:
        """The bearer token."""
        now = int(self._now())
        claims: dict[str, Any] = {
            "iat": now,
            "exp": now + BEARER_SECONDS,
            "jti": grant.correlation_id,
            "sub": grant.subject,
            "cnf": {"jwk": dict(grant.tee_pubkey)},
            "eat_nonce": grant.nonce,
            "policy": grant.policy,
            "claims": dict(grant.claims),
        }
        return jwt.encode({"alg": _ALGORITHM}, claims, self._key, algorithms=[_ALGORITHM])

    def read(self, token: str) -> Grant:
        """The grant of a bearer. Raises RefusedError: BEARER_INVALID or BEARER_EXPIRED."""
        if len(token) > _MAX_SIZE:
            raise RefusedError(Reason.BEARER_INVALID, "too large")
        try:
            claims = jwt.decode(token, self._key, algorithms=[_ALGORITHM]).claims
        except (JoseError, ValueError, TypeError):
            raise RefusedError(Reason.BEARER_INVALID, "not made with this verifier's key") from None
        # From here on the claims are the verifier's own: this key signs nothing else.
        if self._now() >= claims["exp"]:
            raise RefusedError(Reason.BEARER_EXPIRED)
        return Grant(
            correlation_id=claims["jti"],
            policy=claims["policy"],
            subject=claims["sub"],
            nonce=claims["eat_nonce"],
            tee_pubkey=claims["cnf"]["jwk"],
            claims=claims["claims"],
        )
