"""A client of Vault or OpenBao for every run: read secrets, revoke the token. Long-lived tokens: `session.py`."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

from kbs.messages import VaultToken
from plan import document
from sidecar.deadline import Deadline, retry_until
from sidecar.errors import SidecarError
from sidecar.http import VAULT, Answer, Client
from sidecar.log import Events
from sidecar.mounts import mount_of
from sidecar.reasons import Reason

MAX_ANSWER_SIZE: Final = 4 * 1024 * 1024  # Vault's own bound of an entry is 1 MiB, JSON escapes included in the rest


class VaultClient:
    """A client with one token, which `repr` and errors do not show."""

    def __init__(self, where: document.Vault, events: Events) -> None:
        # A value that no header can carry would fail later, and look like an outage.
        if where.namespace and not (where.namespace.isascii() and where.namespace.isprintable()):
            raise SidecarError(
                Reason.VAULT_NAMESPACE, "the plan's Vault namespace is not printable ASCII, such as team-a"
            )
        self._mounts = dict(where.mounts)
        self._namespace = where.namespace
        self._events = events
        self._client = Client(VAULT, where.url, where.ca, limit=MAX_ANSWER_SIZE)
        self._token = ""

    def use(self, token: VaultToken) -> None:
        """Use this token from now on, and trust the CA that came with it. Raises SidecarError for what cannot be used.

        The caller has seen to it that the CA is an attested verifier's word.
        """
        text = token.token
        if not text or not text.isascii() or not text.isprintable():
            raise SidecarError(Reason.VERIFIER_ANSWER, "the verifier sent a Vault token that is not printable ASCII")
        self._token = text
        if token.vault_ca:
            self._client.trust(token.vault_ca, "the verifier's")

    def read(self, deadline: Deadline, path: str, version: int | None) -> dict[str, Any]:
        """The secret at a logical path, its newest or a pinned version. Raises SidecarError.

        Below a mount that the plan does not name, reading makes credentials with a lease, which ends with the token.
        """
        target, kv = self._api_path(path, version)
        what = path if version is None else f"{path}@{version}"

        def request() -> Answer:
            deadline.check(f"{what} was read")
            with deadline.shutdown.interruptible():
                return self._client.call(deadline, "GET", target, headers=self._headers())

        return secret(retry_until(deadline, self._events, request), what, kv)

    def revoke(self, deadline: Deadline) -> None:
        """Revoke the token, if there is one and Vault can be reached. Never raises.

        The deadline knows of no request to stop: one is the usual reason to be here.
        """
        if not self._token:
            return
        try:
            answer = retry_until(
                deadline,
                self._events,
                lambda: self._client.call(deadline, "POST", "/v1/auth/token/revoke-self", b"", self._headers()),
            )
            reason = self._reason_not_revoked(answer)
        except SidecarError as error:
            reason = error.detail
        finally:
            self._token = ""
            self._client.close()
        if reason:
            self._events.warning("token_not_revoked", detail=f"{reason}; it expires with its time to live")
        else:
            self._events.info("token_revoked")

    def _reason_not_revoked(self, answer: Answer) -> str:
        """Why Vault did not revoke; empty when it did."""
        return "" if answer.status < 300 else f"HTTP {answer.status}"

    def _headers(self) -> dict[str, str]:
        headers = {"X-Vault-Token": self._token, "X-Vault-Request": "true"}
        return headers | {"X-Vault-Namespace": self._namespace} if self._namespace else headers

    def _api_path(self, path: str, version: int | None) -> tuple[str, int | None]:
        mount = mount_of(self._mounts, path)
        rest = path if mount is None else path[len(mount) + 1 :]
        if not all(part.strip(".") for part in rest.split("/")):
            raise _misconfigured(f"{path} is not a path")
        kv = None if mount is None else self._mounts[mount]
        if mount is not None and kv == 2:
            query = "" if version is None else f"?version={version}"
            return f"/v1/{quote(mount)}/data/{quote(rest)}{query}", kv
        if version is not None:
            reason = (
                "not below a KV mount of the plan" if mount is None else f"mount {mount} has no versions (KV version 1)"
            )
            raise _misconfigured(f"{path}@{version}: {reason}")
        return f"/v1/{quote(path)}", kv


def _misconfigured(detail: str) -> SidecarError:
    return SidecarError(Reason.SECRET_PATH, detail)


def secret(answer: Answer, what: str, kv: int | None) -> dict[str, Any]:
    """The keys and values in an answer; `kv` is the mount's version, None for another engine. Raises SidecarError."""
    if answer.status == 404:
        other = "" if kv else ", or is in a KV mount that vault.mounts does not name"
        raise SidecarError(Reason.SECRET_MISSING, f"{what} is not in Vault, or was deleted or destroyed{other}")
    if answer.status != 200:
        raise SidecarError(
            Reason.VAULT_REFUSED,
            f"Vault refuses {what} (HTTP {answer.status}): the token's policies do not allow it, or it was revoked",
        )
    try:
        content = json.loads(answer.body.decode())["data"]
        data = content["data"] if kv == 2 else content
    except (ValueError, KeyError, TypeError, RecursionError):
        data = None
    if not isinstance(data, dict):
        kind = f"KV version {kv} secret; see vault.mounts" if kv else "secret"
        raise SidecarError(Reason.VAULT_ANSWER, f"the answer for {what} is not a {kind}")
    return data
