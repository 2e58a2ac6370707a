"""Shares for the OpenBao on this machine's loopback: passed on at once, never kept, and its progress reported.

Nothing here unseals a second time by itself: an operator who seals OpenBao in an emergency has sealed it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from attestation.errors import PeerError
from attestation.verifier.peer import Answer, Peer
from attestation.verifier.provisioning.held_secrets import ProvisionRefusedError, normal_form
from attestation.verifier.untrusted_json import mapping, read_json
from kbs.provision import Outcome, ProvisionErrorType, SecretName, Unsealing
from server import logs

_PAUSE_SECONDS, _OPEN_PAUSE_SECONDS = 0.5, 5.0
_UNKNOWN = Unsealing(sealed=True, progress=0, threshold=0)


class Unsealer:
    """Follows the seal of one OpenBao while `watch` runs."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._calls: list[Callable[[], None]] = []
        self.state = _UNKNOWN
        self.was_open = False

    def when_open(self, call: Callable[[], None]) -> None:
        """Call this when OpenBao is unsealed for the first time."""
        self._calls.append(call)

    async def watch(self) -> None:
        """Ask for the seal until cancelled: others unseal and seal OpenBao too."""
        while True:
            try:
                self._saw(await self._ask("GET", "sys/seal-status", None))
            except PeerError:
                # It may be starting; `was_open` stays, and its 503s tell guests.
                self.state = _UNKNOWN
            await asyncio.sleep(_PAUSE_SECONDS if self.state.sealed else _OPEN_PAUSE_SECONDS)

    async def pass_on(self, share: str) -> Outcome:
        """Give OpenBao one share; nothing happens where it is unsealed already. Raises ProvisionRefusedError."""
        share = normal_form(SecretName.UNSEAL_SHARE, share)
        name = SecretName.UNSEAL_SHARE.value
        try:
            self._saw(await self._ask("GET", "sys/seal-status", None))
            if not self.state.sealed:
                return Outcome.UNCHANGED
            before = self.state.progress
            answer = await self._ask("POST", "sys/unseal", {"key": share})
            if answer.status == 400:
                self._saw(await self._ask("GET", "sys/seal-status", None))
                told = "OpenBao refused it" + ("; the shares before it count no more" if before else "")
                raise ProvisionRefusedError(ProvisionErrorType.UNUSABLE, f"{name}: {told}")
            self._saw(answer)
        except PeerError as error:
            raise ProvisionRefusedError(ProvisionErrorType.VAULT, f"{name}: OpenBao {error}") from None
        state = self.state
        logs.info("unseal_share", sealed=state.sealed, progress=state.progress, threshold=state.threshold)
        return Outcome.TAKEN if not state.sealed or state.progress != before else Outcome.UNCHANGED

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "X-Vault-Request": "true"}
        return await self._peer.request(method, f"/v1/{path}", body=content, headers=headers)

    def _saw(self, answer: Answer) -> None:
        self.state = _state(answer)
        if not self.state.sealed and not self.was_open:
            self.was_open = True
            for call in self._calls:
                call()


def _state(answer: Answer) -> Unsealing:
    """Raises PeerError for anything but a seal's status."""
    try:
        document = mapping(read_json(answer.body))
    except ValueError:
        document = {}
    sealed, progress, threshold = document.get("sealed"), document.get("progress"), document.get("t")
    if answer.status != 200 or not isinstance(sealed, bool):
        raise PeerError(f"answered {answer.status}")
    if not isinstance(progress, int) or not isinstance(threshold, int):
        raise PeerError("gave no progress")
    return Unsealing(sealed, progress, threshold)
