"""`GET` and `POST /provision`: what this process waits for, and a provisioner's secrets."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from joserfc.jwk import ECKey

from attestation.verifier.metrics import ProvisioningMetrics
from attestation.verifier.provisioning.held_secrets import HeldSecrets, ProvisionRefusedError
from attestation.verifier.provisioning.seal import Seal
from attestation.verifier.provisioning.unsealing import Unsealer
from attestation.verifier.rate_limit import RateLimiter
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.responses import new_correlation_id, refused
from attestation.verifier.session.nonces import Nonces
from kbs.messages import WireError
from kbs.provision import (
    MAX_PROVISION_SIZE,
    PROVISION_PATH,
    Outcome,
    ProvisionErrorType,
    ProvisionRequest,
    ProvisionState,
    SecretName,
    StrangerError,
    read_provision,
    write_provision_error,
    write_provision_state,
)
from server import logs
from server.messages import Intake, RequestInfo, Response
from server.peers import peer_network

# People and commands, to every address of a few replicas: more is somebody else.
_BURST, _SECONDS = 50, 0.5
_STATUS = {
    ProvisionErrorType.INVALID: 400,
    ProvisionErrorType.STRANGER: 401,
    ProvisionErrorType.VAULT: 503,
}


class ProvisionCalls:
    """Answers the calls. A stranger learns what is missing, and nothing about what is held."""

    def __init__(
        self,
        provisioners: Sequence[ECKey],
        held: HeldSecrets,
        seal: Seal,
        unsealer: Unsealer | None,
        metrics: ProvisioningMetrics,
    ) -> None:
        self._provisioners = tuple(provisioners)
        self._held = held
        self._seal = seal
        self._unsealer = unsealer
        self._nonces = Nonces(time.monotonic)
        self._limit = RateLimiter(_BURST, _SECONDS, time.monotonic)
        self._metrics = metrics

    def routes(self) -> dict[tuple[str, str], Callable[[bytes, RequestInfo], Awaitable[Response]]]:
        """(method, path) to handler."""
        return {("GET", PROVISION_PATH): self.state, ("POST", PROVISION_PATH): self.provision}

    def intakes(self) -> dict[str, Intake]:
        """The conditions of the path, which hold before the body is read."""
        return {PROVISION_PATH: Intake(body_bytes=MAX_PROVISION_SIZE, screen=self._screen)}

    async def state(self, _body: bytes, _info: RequestInfo) -> Response:
        """What is missing, and a nonce for a request on this process."""
        return Response(200, write_provision_state(self._state(nonce=self._nonces.issue())))

    async def provision(self, body: bytes, info: RequestInfo) -> Response:
        """Secrets by a provisioner."""
        identifier = new_correlation_id()
        logs.set_correlation_id(identifier)
        signer = ""
        try:
            request = self._read(body)
            signer = request.signer
            self._check(request, info)
            outcomes = self._held.take(request.secrets)
            if (share := request.secrets.get(SecretName.UNSEAL_SHARE)) is not None and self._unsealer is not None:
                outcomes[SecretName.UNSEAL_SHARE] = await self._unsealer.pass_on(share)
        except ProvisionRefusedError as error:
            logs.warning("provision_refused", problem=error.problem.value, detail=error.detail, provisioner=signer)
            self._metrics.provisioned(error.problem.value)
            answer = write_provision_error(error.problem, error.detail, identifier)
            return Response(_STATUS.get(error.problem, 409), answer)
        named = {name.value: outcome.value for name, outcome in outcomes.items()}
        logs.info("provisioned", provisioner=signer, outcomes=named)
        self._metrics.provisioned("taken")
        return Response(200, write_provision_state(self._state(outcomes=outcomes)))

    def _read(self, body: bytes) -> ProvisionRequest:
        try:
            return read_provision(body, self._provisioners)
        except StrangerError as error:
            raise ProvisionRefusedError(ProvisionErrorType.STRANGER, str(error)) from None
        except WireError as error:
            raise ProvisionRefusedError(ProvisionErrorType.INVALID, str(error)) from None

    def _check(self, request: ProvisionRequest, info: RequestInfo) -> None:
        # Of the signed text alone: a stranger's never uses a nonce up.
        if not info.spki or not hmac.compare_digest(request.spki, info.spki):
            told = "made for another certificate than this connection's"
            raise ProvisionRefusedError(ProvisionErrorType.CONNECTION, told)
        try:
            self._nonces.spend(request.nonce)
        except RefusedError as error:
            raise ProvisionRefusedError(ProvisionErrorType.NONCE, error.reason.value) from None

    def _state(self, nonce: str = "", outcomes: Mapping[SecretName, Outcome] | None = None) -> ProvisionState:
        unsealing = None if self._unsealer is None else self._unsealer.state
        return ProvisionState(self._seal.is_sealed, self._seal.missing, unsealing, nonce, outcomes or {})

    def _screen(self, info: RequestInfo) -> Response | None:
        if info.method != "POST" or self._limit.take(peer_network(info.peer)):
            return None
        return refused(Reason.SOURCE_TOO_OFTEN, new_correlation_id())
