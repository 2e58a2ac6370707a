"""The verifier's own Vault token: obtained at the start, renewed at half its life, replaced when renewal ends.

Requested through aiohttp's `Peer`, as in `login`: a slow Vault costs a waiting task that ends at its deadline, whereas
a thread could not be stopped and, held by a dead Vault, would be missing elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from attestation.errors import PeerError
from attestation.verifier.peer import Peer
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.secret_file import read_secret_file
from attestation.verifier.untrusted_json import mapping, read_json
from attestation.verifier.vault.login import refusal
from server import logs
from server.yaml.strict import ConfigurationError

_RETRY_SECONDS = 1.0
_LONGEST_PAUSE = 60.0
# A 403 may mean a revoked token or a missing policy; a login fixes only the first, so it is tried this rarely.
_DOUBT_SECONDS = 10.0
_MAX_AT_ONCE = 64
MAX_ANSWER_SIZE = 4 << 20  # a KV secret of a mebibyte, and what JSON makes of it


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A token that another program provides, such as Vault Agent; read again when it is replaced."""

    path: Path


@dataclass(frozen=True, slots=True)
class AppRole:
    """The role's id and the secret id, each in a file. `mount`: of the approle auth method."""

    role_id: Path
    secret_id: Path
    mount: str = "approle"


@dataclass(frozen=True, slots=True)
class HeldAppRole:
    """The two ids from memory; each call raises RefusedError until there is one."""

    role_id: Callable[[], str]
    secret_id: Callable[[], str]
    mount: str = "approle"


@dataclass(frozen=True, slots=True)
class _Lease:
    """`full`: seconds it was given at its login; `ends`: monotonic seconds, None for a token that does not expire."""

    token: str = field(repr=False)
    full: int
    ends: float | None
    renewable: bool


class Credentials:
    """Keeps a token while `keep` runs, and sends requests to Vault with it."""

    def __init__(self, peer: Peer, login: TokenFile | AppRole | HeldAppRole, namespace: str = "") -> None:
        self._peer = peer
        self._login = login
        self.namespace = namespace
        self._lease: _Lease | None = None
        self._problem: RefusedError | None = RefusedError(Reason.VAULT_CREDENTIALS, "not logged in yet")
        self._logged_in = 0.0
        self._doubted = asyncio.Event()
        self._places = asyncio.Semaphore(_MAX_AT_ONCE)

    def check(self) -> str | None:
        """The gate: None while there is a token that has not expired."""
        return None if self._live() is not None else self._why().reason.value

    async def keep(self) -> None:
        """Log in, renew and log in again, until cancelled."""
        while True:
            pause = await self._step()
            try:
                async with asyncio.timeout(pause):
                    await self._doubted.wait()
            except TimeoutError:
                pass

    async def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """`data` of Vault's answer. Raises RefusedError: VAULT_CREDENTIALS for a 403, else as a login is refused."""
        return mapping((await self._request(method, path, body)).get("data"))

    async def read_secret(self, path: str) -> Mapping[str, Any] | None:
        """`data` of a KV secret, version 2; None when it is not there or its newest version is deleted.

        Raises RefusedError as `request` does, also for a mount that is not there.
        """
        document = await self._request("GET", path, None, absent=True)
        return mapping(document["data"]) if "data" in document and mapping(document["data"]).get("data") else None

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, absent: bool = False
    ) -> Mapping[str, Any]:
        """The whole answer. `absent`: a 404 by which a KV engine says that it holds nothing there is an answer, too."""
        lease = self._live()
        if lease is None:
            raise self._why()
        try:
            return await self._send(method, path, body, lease.token, absent=absent)
        except RefusedError as error:
            if error.reason is Reason.VAULT_CREDENTIALS and time.monotonic() - self._logged_in > _DOUBT_SECONDS:
                self._doubted.set()
            raise

    def _live(self) -> _Lease | None:
        lease = self._lease
        return None if lease is None or (lease.ends is not None and time.monotonic() >= lease.ends) else lease

    def _why(self) -> RefusedError:
        problem = self._problem
        if problem is None:
            return RefusedError(Reason.VAULT_CREDENTIALS, "the token has expired")
        return RefusedError(problem.reason, f"the verifier's own login: {problem.detail}")

    async def _step(self) -> float:
        """Renew or log in once; seconds until the next time."""
        doubted = self._doubted.is_set()
        self._doubted.clear()
        try:
            lease = None if doubted else await self._renewed(self._live())
            if lease is None:
                lease = await self._log_in()
                logs.info("vault_login", method=type(self._login).__name__, lease_seconds=lease.full)
        except RefusedError as error:
            if self._problem is None or str(self._problem) != str(error):  # one line per fault, not per try
                logs.warning("vault_login_failed", reason=error.reason.value, detail=error.detail)
            self._problem = error
            return _RETRY_SECONDS
        self._lease, self._problem = lease, None
        if lease.ends is None:
            return _LONGEST_PAUSE
        return min(max((lease.ends - time.monotonic()) / 2, _RETRY_SECONDS), _LONGEST_PAUSE)

    async def _renewed(self, lease: _Lease | None) -> _Lease | None:
        """The lease with a later end; None when there has to be a login."""
        if lease is None or not lease.renewable:
            return None
        if isinstance(self._login, TokenFile) and _text(self._login.path) != lease.token:
            return None
        try:
            answer = await self._send("POST", "auth/token/renew-self", {}, lease.token)
        except RefusedError as error:
            if error.reason in (Reason.VAULT_CREDENTIALS, Reason.VAULT_REFUSED):
                return None
            raise
        seconds = _seconds(mapping(answer.get("auth")).get("lease_duration"))
        renewed = _lease(lease.token, seconds, lease.renewable, lease.full)
        # Whatever the login below does, this much is certain.
        self._lease = renewed
        # Near its longest life a token is renewed for less and less.
        return renewed if renewed.ends is None or seconds * 2 > lease.full else None

    async def _log_in(self) -> _Lease:
        if isinstance(self._login, TokenFile):
            token = _text(self._login.path)
            data = mapping((await self._send("GET", "auth/token/lookup-self", None, token)).get("data"))
            lease = _lease(token, _seconds(data.get("ttl")), data.get("renewable") is True)
        else:
            role, secret = _ids(self._login)
            body = {"role_id": role, "secret_id": secret}
            answer = await self._send("POST", f"auth/{quote(self._login.mount)}/login", body, None)
            auth = mapping(answer.get("auth"))
            own = auth.get("client_token")
            if not isinstance(own, str) or not own:
                raise RefusedError(Reason.VAULT_STRANGE, "Vault's answer holds no login")
            lease = _lease(own, _seconds(auth.get("lease_duration")), auth.get("renewable") is True)
        self._logged_in = time.monotonic()
        return lease

    async def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, token: str | None, *, absent: bool = False
    ) -> Mapping[str, Any]:
        headers = {"Content-Type": "application/json", "X-Vault-Request": "true"}
        if token is not None:
            headers["X-Vault-Token"] = token
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        content = None if body is None else json.dumps(body).encode()
        try:
            async with asyncio.timeout(self._peer.timeout), self._places:
                answer = await self._peer.request(method, f"/v1/{path}", body=content, headers=headers)
        except TimeoutError:
            raise RefusedError(Reason.VAULT_SLOW, f"no answer in {self._peer.timeout:g} s") from None
        except PeerError as error:
            raise RefusedError(Reason.VAULT_SLOW if error.is_slow else Reason.VAULT_UNREACHABLE, str(error)) from None
        if answer.status == 403:
            raise RefusedError(Reason.VAULT_CREDENTIALS, f"Vault answered 403 to {path}")
        if answer.status not in (200, 204) and not (absent and answer.status == 404 and _is_absent(answer.body)):
            raise refusal(answer)
        try:
            document = read_json(answer.body) if answer.status != 204 else {}
        except ValueError:
            raise RefusedError(Reason.VAULT_STRANGE, "Vault's answer is not JSON") from None
        return mapping(document)


def _is_absent(body: bytes) -> bool:
    """A KV engine's answer for a secret that it does not hold; without an engine the answer has an error's text."""
    try:
        document = mapping(read_json(body))
    except ValueError:
        return False
    return document.get("errors") == [] or "metadata" in mapping(document.get("data"))


def _lease(token: str, seconds: int, renewable: bool, full: int | None = None) -> _Lease:
    ends = time.monotonic() + seconds if seconds else None
    return _Lease(token, seconds if full is None else full, ends, renewable)


def _ids(login: AppRole | HeldAppRole) -> tuple[str, str]:
    if isinstance(login, HeldAppRole):
        return login.role_id(), login.secret_id()
    return _text(login.role_id), _text(login.secret_id)


def _text(path: Path) -> str:
    try:
        text = read_secret_file(path).decode("ascii").strip()
    except ConfigurationError as error:
        raise RefusedError(Reason.VAULT_CREDENTIALS, str(error)) from None
    except ValueError:
        raise RefusedError(Reason.VAULT_CREDENTIALS, f"{path}: is not ASCII") from None
    if not text or not text.isprintable():
        raise RefusedError(Reason.VAULT_CREDENTIALS, f"{path}: is empty, or more than one line")
    return text


def _seconds(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RefusedError(Reason.VAULT_STRANGE, "Vault's answer holds no lease")
    return value
