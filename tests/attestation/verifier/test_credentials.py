"""The verifier's own Vault token, against a real OpenBao: had, renewed, had anew; and what the gate says meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestation.verifier.peer import Peer
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.vault import credentials as module
from attestation.verifier.vault.credentials import AppRole, Credentials, TokenFile
from tests.attestation.verifier.own_login import write_app_role, write_secret
from tests.attestation.verifier.test_vault import Stub, stub
from tests.support.openbao import OpenBao
from tests.support.until import until_async, until_awaited

__all__ = ["stub"]  # a fixture

SELF = ("GET", "auth/token/lookup-self")


@contextlib.asynccontextmanager
async def kept(url: str, login: TokenFile | AppRole, seconds: float = 60.0) -> AsyncIterator[Credentials]:
    """Credentials that are being kept."""
    peer = Peer(url, timeout=seconds)
    own = Credentials(peer, login)
    task = asyncio.create_task(own.keep())
    try:
        yield own
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await peer.close()


def role(files: dict[str, Path]) -> AppRole:
    return AppRole(files["roleId"], files["secretId"])


def holder(own: Credentials) -> str:
    assert own._lease is not None
    return own._lease.token


async def test_a_token_is_renewed_before_it_ends(tmp_path: Path, bao: OpenBao, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.05)
    files = write_app_role(bao, tmp_path, "renewing", token_ttl="1h", token_max_ttl="24h")
    async with kept(bao.url, role(files)) as own:
        assert own.check() == "vault-credentials"
        await until_async(lambda: own.check() is None)
        first, expires = holder(own), (await own.request(*SELF))["expire_time"]

        async def is_renewed() -> bool:
            return str((await own.request(*SELF))["expire_time"]) > expires

        await until_awaited(is_renewed)
        assert own.check() is None
        assert holder(own) == first
        assert (await own.request(*SELF))["policies"] == ["default", "renewing"]


async def test_after_half_its_life_a_token_is_renewed_and_at_the_end_of_renewal_there_is_another_login(
    tmp_path: Path, bao: OpenBao
) -> None:
    files = write_app_role(bao, tmp_path, "ending", token_ttl="100s", token_max_ttl="1h")
    own = Credentials(peer := Peer(bao.url, timeout=60), role(files))
    assert 0 < await own._step() <= 50
    first = holder(own)
    assert 0 < await own._step() <= 50
    assert holder(own) == first
    # As near its longest life: Vault renews it for less than half of what it was given at first.
    bao.done("POST", "auth/approle/role/ending", {"token_ttl": "40s"})
    await own._step()
    assert holder(own) != first
    # Changed while the first was still good: no call can have met a token that had ended.
    assert bao.call(*SELF, token=first)[0] == 200
    await own.request(*SELF)
    await peer.close()


async def test_a_revoked_token_is_noticed_by_its_first_refusal(
    tmp_path: Path, bao: OpenBao, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DOUBT_SECONDS", 0.0)
    files = write_app_role(bao, tmp_path, "revoked", token_ttl="1h")
    async with kept(bao.url, role(files)) as own:
        await until_async(lambda: own.check() is None)
        first = holder(own)
        bao.done("POST", "auth/token/revoke", {"token": first})
        with pytest.raises(RefusedError) as caught:
            await own.request(*SELF)
        assert caught.value.reason is Reason.VAULT_CREDENTIALS
        assert caught.value.reason.is_retryable
        await until_async(lambda: holder(own) != first)
        await own.request(*SELF)


async def test_a_wrong_secret_keeps_the_gate_closed_until_it_is_mended(tmp_path: Path, bao: OpenBao) -> None:
    files = write_app_role(bao, tmp_path, "mended", token_ttl="1h")
    good = files["secretId"].read_text()
    write_secret(files["secretId"], "wrong")
    async with kept(bao.url, role(files)) as own:
        await until_async(lambda: own.check() == "vault-refused")
        files["secretId"].chmod(0o644)
        await until_async(lambda: own.check() == "vault-credentials")
        with pytest.raises(RefusedError, match="required 0400"):
            await own.request(*SELF)
        write_secret(files["secretId"], good)
        await until_async(lambda: own.check() is None)


async def test_a_replaced_token_file_is_followed(tmp_path: Path, bao: OpenBao, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.05)
    write_app_role(bao, tmp_path, "any")
    made = [
        bao.done("POST", "auth/token/create", {"policies": ["any"], "ttl": "1h"})["auth"]["client_token"]
        for _ in range(2)
    ]
    file = write_secret(tmp_path / "token", f"{made[0]}\n")
    async with kept(bao.url, TokenFile(file)) as own:
        await until_async(lambda: own.check() is None)
        assert holder(own) == made[0]
        write_secret(file, made[1])
        await until_async(lambda: holder(own) == made[1])
        assert own.check() is None


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, b"{}", "vault-refused"),
        (403, b"{}", "vault-credentials"),
        (404, b"{}", "vault-no-mount"),
        (412, b"{}", "vault-behind"),
        (429, b"{}", "vault-limited"),
        (500, b"{}", "vault-error"),
        (503, b'{"errors":["Vault is sealed"]}', "vault-sealed"),
        (200, b"[]", "vault-strange"),
        (200, b"no JSON", "vault-strange"),
    ],
)
async def test_each_way_of_saying_no_has_its_code(
    tmp_path: Path, stub: tuple[Stub, str], status: int, body: bytes, reason: str
) -> None:
    server, url = stub
    server.status, server.body = status, body
    login = AppRole(write_secret(tmp_path / "role-id", "role"), write_secret(tmp_path / "secret-id", "hush"))
    async with kept(url, login) as own:
        await until_async(lambda: own.check() == reason)
        with pytest.raises(RefusedError) as caught:
            await own.request(*SELF)
        assert caught.value.reason.value == reason
        assert "hush" not in str(caught.value)


async def test_a_slow_vault_is_given_up(tmp_path: Path, stub: tuple[Stub, str]) -> None:
    server, url = stub
    server.hang = True
    login = AppRole(write_secret(tmp_path / "role-id", "role"), write_secret(tmp_path / "secret-id", "secret"))
    async with kept(url, login, seconds=0.1) as own:
        await until_async(lambda: own.check() == "vault-slow")
