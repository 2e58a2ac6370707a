"""An ES256 key that never leaves Vault: transit signs with the newest version, and all allowed versions are listed.

Rotation is `vault write -f transit/keys/NAME/rotate`; `min_decryption_version` takes the old ones off the list.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.vault.credentials import Credentials
from attestation.verifier.vault.signing import ALGORITHM, public_jwk
from server import logs

KEY_TYPE = "ecdsa-p256"
_REFRESH_SECONDS, _RETRY_SECONDS = 10.0, 0.5
_MAX_VERSIONS = 16
_SIGNATURE_SIZE = 64  # r and s (RFC 7518, section 3.4)


@dataclass(frozen=True, slots=True)
class _Versions:
    """The versions at the last request. `key_id`: of version `latest`."""

    latest: int
    key_id: str
    jwks: bytes


class TransitKeys:
    """Signs with transit key `name` under `mount`, known while `watch` runs."""

    def __init__(self, credentials: Credentials, mount: str, name: str) -> None:
        self._credentials = credentials
        self._path = f"{quote(mount)}/keys/{quote(name, safe='')}"
        self._sign_path = f"{quote(mount)}/sign/{quote(name, safe='')}/sha2-256"
        self._versions: _Versions | None = None
        self._problem = RefusedError(Reason.VAULT_CREDENTIALS, "the transit key was not read yet")

    @property
    def jwks(self) -> bytes:
        """All listed keys, newest first. Raises RefusedError until the key was read once."""
        return self._known().jwks

    def check(self) -> str | None:
        """The gate: None once the key was read."""
        return None if self._versions is not None else self._problem.reason.value

    async def watch(self) -> None:
        """Follow rotation until cancelled; the last good answer is kept."""
        while True:
            await self.refresh()
            await asyncio.sleep(_RETRY_SECONDS if self._versions is None else _REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Read the key once."""
        try:
            versions = _versions(await self._credentials.request("GET", self._path))
        except RefusedError as error:
            if str(error) != str(self._problem):  # one line per fault, not per try
                logs.warning("transit_key_not_read", reason=error.reason.value, detail=error.detail)
            self._problem = error
            return
        if versions != self._versions:
            logs.info("transit_key", version=versions.latest, kid=versions.key_id)
        self._versions = versions

    async def sign(self, claims: dict[str, Any]) -> str:
        """A JWT. Raises RefusedError."""
        versions = self._known()
        try:
            return await self._signed(claims, versions)
        except RefusedError as error:
            if error.reason not in (Reason.VAULT_REFUSED, Reason.VAULT_ERROR):
                raise
            # That version may be forbidden (min_encryption_version) by now: 400, or OpenBao's 500.
            await self.refresh()
            if self._known() == versions:
                raise
        return await self._signed(claims, self._known())

    async def _signed(self, claims: dict[str, Any], versions: _Versions) -> str:
        header = {"alg": ALGORITHM, "kid": versions.key_id, "typ": "JWT"}
        signed = ".".join(_encode(json.dumps(each, separators=(",", ":")).encode()) for each in (header, claims))
        body = {
            "input": base64.b64encode(signed.encode()).decode(),
            "marshaling_algorithm": "jws",
            # Named, because the header says whose signature it is.
            "key_version": versions.latest,
        }
        data = await self._credentials.request("POST", self._sign_path, body)
        return f"{signed}.{_signature(data.get('signature'), versions.latest)}"

    def _known(self) -> _Versions:
        if self._versions is None:
            raise RefusedError(self._problem.reason, f"transit key: {self._problem.detail}")
        return self._versions


def _versions(data: Mapping[str, Any]) -> _Versions:
    if data.get("type") != KEY_TYPE:
        raise RefusedError(Reason.VAULT_STRANGE, f"the transit key is of type {data.get('type')!s:.32}, not {KEY_TYPE}")
    try:
        # Transit leaves out what is older than min_decryption_version.
        numbers = sorted(map(int, data["keys"]), reverse=True)[:_MAX_VERSIONS]
        keys = [public_jwk(ECKey.import_key(data["keys"][str(number)]["public_key"])) for number in numbers]
    except (JoseError, LookupError, ValueError, TypeError):
        raise RefusedError(Reason.VAULT_STRANGE, "the transit key's public half cannot be read") from None
    if not keys or any(key["crv"] != "P-256" for key in keys):
        raise RefusedError(Reason.VAULT_STRANGE, "the transit key has no version on P-256")
    return _Versions(numbers[0], keys[0]["kid"], json.dumps({"keys": keys}, separators=(",", ":")).encode())


def _signature(value: object, version: int) -> str:
    """The signature of a JWS out of `vault:vN:…`."""
    prefix = f"vault:v{version}:"
    if not isinstance(value, str) or not value.startswith(prefix):
        raise RefusedError(Reason.VAULT_STRANGE, "transit gave no signature of the requested version")
    try:
        raw = base64.b64decode(value[len(prefix) :].rstrip("=") + "==", altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    if len(raw) != _SIGNATURE_SIZE:
        raise RefusedError(Reason.VAULT_STRANGE, f"transit's signature has {len(raw)} bytes, not {_SIGNATURE_SIZE}")
    return _encode(raw)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
