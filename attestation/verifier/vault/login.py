"""Minting a workload's JWT and logging in to Vault or OpenBao with it; only the token that comes back leaves.

One POST to `auth/MOUNT/login`, made with aiohttp: a slow Vault then costs a waiting task that ends at its deadline,
whereas a thread could not be stopped, and the answer's size is bounded.

A login that comes too late for its guest has made a token all the same, and a guest that tries again gets another. So
the verifier waits for the answer a while longer, and revokes its token.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from attestation.errors import PeerError
from attestation.verifier.peer import Answer, Peer
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.entitlement import Entitlement
from attestation.verifier.untrusted_json import read_json
from attestation.verifier.vault.signing import Signer
from server import logs

JWT_SECONDS = 60
_BACKDATE_SECONDS = 5  # Vault's clock may be behind
_MAX_AT_ONCE = 64
_LATE_SECONDS = 30.0
# A share of all connections. While so many tokens wait for their end, no other is made.
_MAX_LATE = 32
_REVOKE_TRIES, _REVOKE_PAUSE_SECONDS = 5, 2.0


@dataclass(frozen=True, slots=True)
class Login:
    """Vault's answer to a login. `accessor` is for the operator: it can revoke the token and cannot use it."""

    token: str = field(repr=False)
    accessor: str
    lease_seconds: int
    renewable: bool


class JwtAuth:
    """Vault's jwt auth method. `issuer`, `audience`: of the JWT, as the mount is configured. `keys`: those in force.

    `now`: Unix seconds.
    """

    def __init__(
        self, peer: Peer, issuer: str, audience: str, keys: Callable[[], Signer], now: Callable[[], float]
    ) -> None:
        self._peer = peer
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._now = now
        self._places = asyncio.Semaphore(_MAX_AT_ONCE)
        self._late: set[asyncio.Task[None]] = set()

    async def log_in(self, entitled: Entitlement) -> Login:
        """Log in as the entitled workload. Raises RefusedError, with a reason per way that Vault can refuse."""
        login, headers = entitled.vault, _headers(entitled)
        path = f"/v1/auth/{quote(login.mount)}/login"
        if len(self._late) >= _MAX_LATE:
            raise RefusedError(Reason.VAULT_SLOW, f"{_MAX_LATE} logins without a guest are not revoked yet")
        try:
            # Waiting for a turn and for a signature counts as waiting for Vault: one deadline covers all.
            async with asyncio.timeout(self._peer.timeout), self._places:
                body = json.dumps({"role": login.role, "jwt": await self.mint(entitled)}).encode()
                answer = await self._send(path, body, headers)
        except TimeoutError:
            raise RefusedError(Reason.VAULT_SLOW, f"no answer in {self._peer.timeout:g} s") from None
        except PeerError as error:
            raise RefusedError(Reason.VAULT_SLOW if error.is_slow else Reason.VAULT_UNREACHABLE, str(error)) from None
        if answer.status != 200:
            raise refusal(answer)
        return _login(answer.body)

    async def _send(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        ask = self._peer.request("POST", path, body=body, headers=headers, seconds=_LATE_SECONDS)
        exchange = asyncio.create_task(ask)
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            self._in_background(self._give_back(exchange, headers))
            raise

    def revoke(self, login: Login, entitled: Entitlement) -> None:
        """Revoke the token of a login whose guest has gone, in the background."""
        self._in_background(self._revoke(login, _headers(entitled)))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _give_back(self, exchange: asyncio.Task[Answer], headers: Mapping[str, str]) -> None:
        """Revoke the token of a login whose guest has stopped waiting, once Vault has made it."""
        try:
            answer = await exchange
            if answer.status != 200:
                return
            login = _login(answer.body)
        except (PeerError, RefusedError):
            return
        await self._revoke(login, headers)

    async def _revoke(self, login: Login, headers: Mapping[str, str]) -> None:
        own = {**headers, "X-Vault-Token": login.token}
        for _ in range(_REVOKE_TRIES):
            try:
                answer = await self._peer.request("POST", "/v1/auth/token/revoke-self", body=b"{}", headers=own)
            except PeerError:
                answer = None
            # 403: Vault does not know the token any more.
            if answer is not None and (answer.status < 300 or answer.status == 403):
                logs.info("late_login", accessor=login.accessor, revoked=True)
                return
            await asyncio.sleep(_REVOKE_PAUSE_SECONDS)
        logs.error("late_login", accessor=login.accessor, revoked=False)

    async def mint(self, entitled: Entitlement) -> str:
        """The JWT: `sub` the workload, `cnf` the guest's key (RFC 7800), and flat strings for claim mappings."""
        now = int(self._now())
        claims: dict[str, Any] = {
            **entitled.claims,
            "iss": self._issuer,
            "aud": self._audience,
            "sub": entitled.subject,
            "iat": now,
            "nbf": now - _BACKDATE_SECONDS,
            "exp": now + JWT_SECONDS,
            "jti": str(uuid.uuid4()),
            "cnf": {"jwk": dict(entitled.tee_pubkey)},
        }
        return await self._keys().sign(claims)


def _headers(entitled: Entitlement) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "X-Vault-Request": "true"}
    if entitled.vault.namespace:
        headers["X-Vault-Namespace"] = entitled.vault.namespace
    return headers


_BY_STATUS: Mapping[int, Reason] = {
    400: Reason.VAULT_REFUSED,
    403: Reason.VAULT_DENIED,
    404: Reason.VAULT_NO_MOUNT,
    412: Reason.VAULT_BEHIND,
    429: Reason.VAULT_LIMITED,
    473: Reason.VAULT_BEHIND,
}


def refusal(answer: Answer) -> RefusedError:
    """The reason by status. Vault's texts can name claims' values, so they only tell whether Vault is sealed."""
    detail = f"Vault answered {answer.status}"
    if answer.status in _BY_STATUS:
        return RefusedError(_BY_STATUS[answer.status], detail)
    if answer.status == 503 and b"sealed" in answer.body:
        return RefusedError(Reason.VAULT_SEALED, detail)
    return RefusedError(Reason.VAULT_ERROR if answer.status >= 500 else Reason.VAULT_STRANGE, detail)


def _login(body: bytes) -> Login:
    try:
        auth = read_json(body)["auth"]
        token, accessor = auth["client_token"], auth.get("accessor") or ""
        seconds, renewable = auth["lease_duration"], auth["renewable"]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise RefusedError(Reason.VAULT_STRANGE, "Vault's answer holds no login") from None
    if not isinstance(token, str) or not token or not isinstance(accessor, str) or not isinstance(seconds, int):
        raise RefusedError(Reason.VAULT_STRANGE, "Vault's answer holds no login")
    return Login(token, accessor, seconds, bool(renewable))
