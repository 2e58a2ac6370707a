"""The Vault token by way of the guest's own data hub (`coco-cdh`), where no evidence can be had over HTTP.

`GET /cdh/resource/vault/token/ROLE` on loopback (guest-components, api-server-rest/src/router.rs): the data hub lets
the guest's attestation agent attest to the verifier of its own configuration, `aa.toml` and `cdh.toml` of the initdata
document, fetches the answer and decrypts it. No pod token takes part, and any container of the pod can do the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from attestation.evidence import EvidenceError, Kind
from attestation.evidence.endpoint import get, parse_address, require_loopback
from attestation.evidence.errors import Code
from kbs import guest, messages
from plan.document import DATA_HUB, Plan
from sidecar.deadline import Deadline, retry_until
from sidecar.errors import SidecarError
from sidecar.log import Events
from sidecar.reasons import Reason, evidence_reason

_RESOURCE: Final = "/cdh/resource/vault/token"
_INFO_SIZE: Final = 16 * 1024
_FAILED: Final = (
    "the guest's data hub got no Vault token: the verifier refused this guest, or does not answer. It gives no reason;"
    " the verifier's log has a line for each attempt, with this guest's HOST_DATA in its record"
)


class DataHubLogin:
    """Gets Vault tokens for one plan whose only source is the data hub."""

    def __init__(self, plan: Plan, events: Events) -> None:
        self._events = events
        self._role = plan.verifier.role or messages.DEFAULT_ROLE
        self.correlation_id = ""
        """Always empty: the data hub keeps the verifier's answer to itself."""
        if not guest.is_role(self._role):
            raise SidecarError(Reason.VERIFIER_ROLE, "the plan's Vault role is not a name, such as payments")
        try:
            self._address = parse_address(DATA_HUB, plan.data_hub)
            require_loopback(DATA_HUB, self._address)
        except EvidenceError as error:
            raise SidecarError(Reason.EVIDENCE_BAD_ADDRESS, f"{error.source}: {error.detail}") from None

    def log_in(self, deadline: Deadline, keep: Callable[[messages.VaultToken], None]) -> None:
        """Hand the token to `keep` before anything can interrupt. Raises SidecarError."""
        retry_until(deadline, self._events, lambda: keep(self._fetch(deadline)))
        self._events.info("attested", source=DATA_HUB)

    def features(self, deadline: Deadline) -> str:
        """What the guest's server says that it serves, such as `resource`. Raises SidecarError."""
        body = self._get("/info", deadline, _INFO_SIZE)
        try:
            return str(json.loads(body)["feature"])
        except (ValueError, KeyError, TypeError):
            raise SidecarError(Reason.EVIDENCE_MALFORMED, f"{DATA_HUB}: /info names no feature") from None

    def _fetch(self, deadline: Deadline) -> messages.VaultToken:
        deadline.shutdown.check()
        # Not interruptible: once the verifier has logged in to Vault there is a token, which only we can revoke.
        body = self._get(f"{_RESOURCE}/{self._role}", deadline, messages.MAX_ANSWER_SIZE)
        try:
            return guest.read_delivered_token(body)
        except messages.WireError as error:
            raise SidecarError(Reason.VERIFIER_ANSWER, f"the data hub brought something else: {error}") from None

    def _get(self, target: str, deadline: Deadline, limit: int) -> bytes:
        try:
            return get(
                DATA_HUB, self._address, target, timeout=deadline.remaining(), limit=limit, on_404=Code.NOT_ENABLED
            )
        except EvidenceError as error:
            if error.code is Code.AGENT_ERROR:
                raise SidecarError(Reason.VERIFIER_DATA_HUB, _FAILED, retryable=True) from None
            raise SidecarError(
                evidence_reason(error.code),
                f"{error.source}: {error.detail}",
                retryable=error.kind is Kind.BUSY,
            ) from None
