"""One cluster's token-signing keys (JWKS): fetched when needed, and for an unknown key id every ten seconds at most.

`fetch` reads a file or requests the API server; the keys are public, so their shape alone is checked. A fetched set is
used for ten minutes, so that a key which the cluster has withdrawn stops counting, and for an hour at most while
no newer set is available.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from attestation.errors import PeerError
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.untrusted_json import read_json

Key = RSAKey | ECKey
Fetch = Callable[[], Awaitable[bytes]]

REFETCH_SECONDS = 10.0
RETRY_SECONDS = 5.0  # after a failure
FRESH_SECONDS = 600.0
LONGEST_SECONDS = 3600.0
MAX_JWKS_SIZE = 256 * 1024
MAX_KEYS = 64
_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 4096
_CURVES = frozenset({"P-256", "P-384", "P-521"})


class KeySet:
    """The keys of one cluster. `fetch` raises PeerError. `now`: monotonic seconds."""

    def __init__(self, fetch: Fetch, now: Callable[[], float]) -> None:
        self._fetch = fetch
        self._now = now
        self._keys: dict[str, Key] = {}
        self._listed: dict[str, float] = {}
        self._fetched: float | None = None
        self._requested: float | None = None
        self._fetches = 0
        self._problem = ""
        self._turn = asyncio.Lock()

    async def key(self, key_id: str) -> Key | None:
        """The key with this id, or None when a set that was fetched after the call began does not have it.

        Raises RefusedError: KEYS_UNAVAILABLE, or TOKEN_KEY_UNKNOWN when the set at hand is older and no newer one may
        be fetched yet. The caller may come again: another caller's unknown key id must not refuse a new key for good.
        """
        fetches = self._fetches
        if not self._is_younger_than(FRESH_SECONDS) or key_id not in self._keys:
            await self._refresh(key_id)
        if not self._is_younger_than(LONGEST_SECONDS):
            raise RefusedError(Reason.KEYS_UNAVAILABLE, self._problem or "not fetched yet")
        key = self._keys.get(key_id)
        if key is None and self._fetches == fetches:
            raise RefusedError(Reason.TOKEN_KEY_UNKNOWN, "the cluster's keys are fetched again in a few seconds")
        return key

    def has(self, key_id: str) -> bool:
        """Whether `key` returns this key without a request to the cluster."""
        return key_id in self._keys and self._is_younger_than(FRESH_SECONDS)

    def listed_since(self) -> dict[str, float]:
        """Thumbprint of each key that the newest set lists → when a fetched set first listed it, monotonic seconds."""
        return dict(self._listed)

    def _is_younger_than(self, seconds: float) -> bool:
        return self._fetched is not None and self._now() - self._fetched < seconds

    async def _refresh(self, key_id: str) -> None:
        async with self._turn:
            # A caller that waited for its turn finds the set that the previous one fetched.
            if key_id in self._keys and self._is_younger_than(FRESH_SECONDS):
                return
            # Unknown ids cost an attacker nothing; each must not cost the API server a request.
            pause = RETRY_SECONDS if self._problem else REFETCH_SECONDS
            if self._requested is not None and self._now() - self._requested < pause:
                return
            self._requested = self._now()
            try:
                self._keys = parse_jwks(await self._fetch())
            except PeerError as error:
                self._problem = str(error)
                return
            self._fetched, self._problem = self._now(), ""
            self._fetches += 1
            thumbprints = {key.thumbprint() for key in self._keys.values()}
            self._listed = {each: self._listed.get(each, self._fetched) for each in thumbprints}


def parse_jwks(data: bytes) -> dict[str, Key]:
    """Key id to public key; keys without an id, or of a kind that no API server uses, are left out.

    Raises PeerError for a document that is not a JWKS, and for one without a usable key.
    """
    if len(data) > MAX_JWKS_SIZE:
        raise PeerError(f"JWKS has more than {MAX_JWKS_SIZE} bytes")
    try:
        document = read_json(data)
    except ValueError:
        raise PeerError("JWKS is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise PeerError(f"JWKS has no list of at most {MAX_KEYS} keys")
    found = {entry["kid"]: key for entry in entries if (key := _key(entry)) is not None}
    if not found:
        raise PeerError("JWKS has no usable key")
    return found


def _key(entry: object) -> Key | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str) or entry.get("use", "sig") != "sig":
        return None
    try:
        if entry.get("kty") == "RSA":
            rsa = RSAKey.import_key({"kty": "RSA", "n": entry["n"], "e": entry["e"]})
            return rsa if _MIN_RSA_BITS <= rsa.raw_value.key_size <= _MAX_RSA_BITS else None
        if entry.get("kty") == "EC" and entry.get("crv") in _CURVES:
            return ECKey.import_key({name: entry[name] for name in ("kty", "crv", "x", "y")})
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return None
