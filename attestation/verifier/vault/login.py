"""Minting a workload's JWT and logging in to Vault or OpenBao with it; only the token that comes back leaves.

One POST to `auth/MOUNT/login`, made with aiohttp and not with hvac: a slow Vault then costs a waiting task that ends at
its deadline, where a thread could not be ended, and the answer's size is bounded.

A login that comes too late for its guest has made a token all the same, and a guest that asks again gets another. So
the answer is waited for a while longer, and what it brings is given back.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from attestation.verifier.peer import Answer, AskError, Peer
from attestation.verifier.policies.load import VaultLogin
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.bearer import Grant
from attestation.verifier.vault.signing import Signer
from server import logs

JWT_SECONDS = 60
_BACKDATE_SECONDS = 5  # Vault's clock may be behind
_MAX_AT_ONCE = 64
_LATE_SECONDS = 15.0
# Of the connections that there are, so that those who wait for nobody leave room for those who do.
_MAX_LATE = 32


@dataclass(frozen=True, slots=True)
class Login:
    """What Vault answered. `accessor` is for the operator: it can revoke the token and cannot use it."""

    token: str = field(repr=False)
    accessor: str
    lease_seconds: int
    renewable: bool


class Vault:
    """`issuer`, `audience`: of the JWT, as the auth mount is told. `keys`: the signing keys of the moment.

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

    async def log_in(self, grant: Grant, login: VaultLogin) -> Login:
        """Log in as the grant's workload. Raises RefusedError, for each way that Vault can say no its own reason."""
        path = f"/v1/auth/{quote(login.mount)}/login"
        headers = {"Content-Type": "application/json", "X-Vault-Request": "true"}
        if login.namespace:
            headers["X-Vault-Namespace"] = login.namespace
        try:
            # What waits for its turn, or for a signature, waits for Vault: one deadline holds for all.
            async with asyncio.timeout(self._peer.timeout), self._places:
                body = json.dumps({"role": login.role, "jwt": await self.mint(grant)}).encode()
                answer = await self._asked(path, body, headers)
        except TimeoutError:
            raise RefusedError(Reason.VAULT_SLOW, f"no answer in {self._peer.timeout:g} s") from None
        except AskError as error:
            raise RefusedError(Reason.VAULT_SLOW if error.is_slow else Reason.VAULT_UNREACHABLE, str(error)) from None
        if answer.status != 200:
            raise refusal(answer)
        return _login(answer.body)

    async def _asked(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        ask = self._peer.ask("POST", path, body=body, headers=headers, seconds=_LATE_SECONDS)
        exchange = asyncio.create_task(ask)
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            if len(self._late) >= _MAX_LATE:
                exchange.cancel()
            else:
                task = asyncio.create_task(self._give_back(exchange, headers))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
            raise

    async def _give_back(self, exchange: asyncio.Task[Answer], headers: Mapping[str, str]) -> None:
        """Revoke what a login brings for which nobody waits any more."""
        try:
            answer = await exchange
            if answer.status != 200:
                return
            login = _login(answer.body)
            own = {**headers, "X-Vault-Token": login.token}
            answer = await self._peer.ask("POST", "/v1/auth/token/revoke-self", body=b"{}", headers=own)
        except (AskError, RefusedError):
            return
        logs.info("late_login", accessor=login.accessor, revoked=answer.status < 300)

    async def mint(self, grant: Grant) -> str:
        """The JWT: `sub` the workload, `cnf` the guest's key (RFC 7800), and flat strings for claim mappings."""
        now = int(self._now())
        claims: dict[str, Any] = {
            **grant.claims,
            "iss": self._issuer,
            "aud": self._audience,
            "sub": grant.subject,
            "iat": now,
            "nbf": now - _BACKDATE_SECONDS,
            "exp": now + JWT_SECONDS,
            "jti": str(uuid.uuid4()),
            "cnf": {"jwk": dict(grant.tee_pubkey)},
        }
        return await self._keys().sign(claims)


_BY_STATUS: Mapping[int, Reason] = {
    400: Reason.VAULT_REFUSED,
    403: Reason.VAULT_DENIED,
    404: Reason.VAULT_NO_MOUNT,
    412: Reason.VAULT_BEHIND,
    429: Reason.VAULT_LIMITED,
    473: Reason.VAULT_BEHIND,
}


def refusal(answer: Answer) -> RefusedError:
    """By status; Vault's texts can name claims' values, so only whether it is sealed is taken from them."""
    detail = f"Vault answered {answer.status}"
    if answer.status in _BY_STATUS:
        return RefusedError(_BY_STATUS[answer.status], detail)
    if answer.status == 503 and b"sealed" in answer.body:
        return RefusedError(Reason.VAULT_SEALED, detail)
    return RefusedError(Reason.VAULT_ERROR if answer.status >= 500 else Reason.VAULT_STRANGE, detail)


def _login(body: bytes) -> Login:
    try:
        auth = json.loads(body)["auth"]
        token, accessor = auth["client_token"], auth.get("accessor") or ""
        seconds, renewable = auth["lease_duration"], auth["renewable"]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise RefusedError(Reason.VAULT_STRANGE, "Vault's answer holds no login") from None
    if not isinstance(token, str) or not token or not isinstance(accessor, str) or not isinstance(seconds, int):
        raise RefusedError(Reason.VAULT_STRANGE, "Vault's answer holds no login")
    return Login(token, accessor, seconds, bool(renewable))
