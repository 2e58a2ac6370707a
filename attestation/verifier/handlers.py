"""The verifier's three calls over HTTPS, and its public keys."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from attestation.verifier.appraiser import Appraiser, Attestation
from attestation.verifier.clock import Clock
from attestation.verifier.cluster.pod_token import PodIdentity
from attestation.verifier.metrics import VerifierMetrics
from attestation.verifier.provisioning.hand_over import HandOver
from attestation.verifier.rate_limit import RateLimiter
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.records import RecordStore
from attestation.verifier.responses import invalid, new_correlation_id, refused, unavailable
from attestation.verifier.session.basis import InForce
from attestation.verifier.session.bearer import Bearers, Claimed
from attestation.verifier.session.entitlement import Entitlement, entitlement
from attestation.verifier.session.login_bound import LoginBound
from attestation.verifier.session.nonces import Nonces
from attestation.verifier.source_pace import SourcePace
from attestation.verifier.vault.login import JwtAuth, Login
from attestation.verifier.vault.signing import Signer
from attestation.verifier.withdrawal import LiveLogin, Withdrawals
from kbs.hand_over import PROVISIONED_PATH
from kbs.messages import (
    ATTEST_PATH,
    AUTH_PATH,
    DEFAULT_ROLE,
    MAX_ATTEST_SIZE,
    MAX_ATTEST_WITH_INITDATA_SIZE,
    MAX_AUTH_SIZE,
    NONCE_HEADER,
    SESSION_COOKIE,
    TOKEN_PATH,
    WIRE_HEADER,
    WIRE_VERSION,
    VaultToken,
    WireError,
)
from kbs.verifier import read_attest, read_auth, seal_token, write_attest_answer, write_auth_answer
from server import logs
from server.messages import Intake, RequestInfo, Response

JWKS_PATH = "/.well-known/jwks.json"
_TOKEN_ROUTE = f"{TOKEN_PATH}/*"
_WARNING_SECONDS = 60.0
_KBS_PATH = "/kbs/v0"
# Logins of one pod: as often as it may attest, and its retries while Vault is sealed.
_POD_BURST, _POD_SECONDS = 20, 2.0


class Handlers:
    """Answers the calls. To a guest, all refusals look the same; the log line and the stored record do not.

    `keys` gives those in force at the time of the call, `vault_ca` the CA by which Vault is trusted.
    """

    def __init__(
        self,
        *,
        nonces: Nonces,
        appraiser: Appraiser,
        bearers: Bearers,
        in_force: InForce,
        vault: JwtAuth,
        records: RecordStore | None,
        withdrawals: Withdrawals,
        metrics: VerifierMetrics,
        keys: Callable[[], Signer],
        pace: SourcePace,
        clock: Clock,
        vault_ca: Callable[[], str],
        hand_over: HandOver | None = None,
    ) -> None:
        self._hand_over = hand_over
        self._vault_ca = vault_ca
        self._clock = clock
        self._nonces = nonces
        self._appraiser = appraiser
        self._bearers = bearers
        self._in_force = in_force
        self._vault = vault
        self._records = records
        self._withdrawals = withdrawals
        self._metrics = metrics
        self._keys = keys
        self._pace = pace
        self._pod_limit = RateLimiter(_POD_BURST, _POD_SECONDS, time.monotonic)
        self._login_bound = LoginBound(time.monotonic)
        self._warning_limit = RateLimiter(1, _WARNING_SECONDS, time.monotonic)

    def routes(self) -> dict[tuple[str, str], Callable[[bytes, RequestInfo], Awaitable[Response]]]:
        """(method, path) to handler."""
        return {
            ("POST", AUTH_PATH): self.auth,
            ("POST", ATTEST_PATH): self.attest,
            ("GET", _TOKEN_ROUTE): self.token,
            ("GET", JWKS_PATH): self.jwks,
            ("HEAD", JWKS_PATH): self.jwks,
        } | ({} if self._hand_over is None else self._hand_over.routes())

    def intakes(self) -> dict[str, Intake]:
        """The conditions of each path: they hold before a body is read."""
        paced = self._pace.screen
        return {
            AUTH_PATH: Intake(body_bytes=MAX_AUTH_SIZE, screen=paced("auth", MAX_AUTH_SIZE)),
            ATTEST_PATH: Intake(
                body_bytes=MAX_ATTEST_SIZE,
                vouched_body_bytes=MAX_ATTEST_WITH_INITDATA_SIZE,
                screen=paced("attest", MAX_ATTEST_SIZE),
                is_vouched=self._brings_a_nonce,
            ),
            _TOKEN_ROUTE: Intake(screen=paced("token", MAX_AUTH_SIZE)),
            JWKS_PATH: Intake(screen=paced("jwks", MAX_AUTH_SIZE)),
            PROVISIONED_PATH: Intake(screen=paced("provisioned", MAX_AUTH_SIZE)),
        }

    async def auth(self, body: bytes, _info: RequestInfo) -> Response:
        """A nonce."""
        try:
            read_auth(body)
        except WireError as error:
            return invalid("auth", error)
        try:
            self._clock.require()
        except RefusedError as error:
            return self._clock_off(error)
        nonce = self._nonces.issue()
        cookie = {"Set-Cookie": f"{SESSION_COOKIE}={nonce}; Path={_KBS_PATH}; Secure; HttpOnly"}
        return Response(200, write_auth_answer(nonce), headers=cookie)

    async def attest(self, body: bytes, info: RequestInfo) -> Response:
        """Evidence for a bearer."""
        try:
            request = read_attest(body)
        except WireError as error:
            return invalid("attest", error)
        if info.headers.get(NONCE_HEADER, request.nonce) != request.nonce:
            return invalid("attest", WireError(f"{NONCE_HEADER} is not the nonce of runtime-data"))
        if request.replica is not None:
            if self._hand_over is None:
                return invalid("attest", WireError("this verifier hands nothing over"))
            return await self._hand_over.attest(request)
        attestation = Attestation.begin(new_correlation_id(), time.time())
        logs.set_correlation_id(attestation.id)
        started = time.perf_counter()
        bearer = ""
        try:
            self._clock.require()
            bearer = self._bearers.issue(await self._appraiser.decide(attestation, request))
        except RefusedError as error:
            attestation.reason, attestation.detail = error.reason, error.detail
        seconds = time.perf_counter() - started
        if attestation.reason is Reason.POD_TOO_OFTEN:
            self._pod_too_often(attestation, seconds)
        else:
            self._record(attestation, seconds)
        if not bearer:
            return refused(attestation.reason, attestation.id)
        return Response(200, write_attest_answer(bearer, attestation.id))

    def _brings_a_nonce(self, info: RequestInfo) -> bool:
        nonce = info.headers.get(NONCE_HEADER) or _cookie(info.headers)
        return nonce is not None and self._nonces.is_unspent(nonce)

    async def token(self, _body: bytes, info: RequestInfo) -> Response:
        """A bearer for a Vault token, encrypted to the key that the evidence bound."""
        identifier = new_correlation_id()
        logs.set_correlation_id(identifier)
        claimed: Claimed | None = None
        started = time.perf_counter()
        try:
            self._clock.require()
            claimed = self._bearers.take(_bearer(info.headers))
            grant = claimed.grant
            # One id from the evidence to the login.
            identifier = grant.correlation_id
            logs.set_correlation_id(identifier)
            pod = grant.basis.pod
            if not self._pod_limit.take((pod.cluster, pod.pod_uid)):
                raise RefusedError(Reason.POD_TOO_OFTEN, "logins of one pod")
            policy = self._in_force.policy_for(grant.basis, grant.granted_by)
            entitled = entitlement(grant, policy)
            if info.tail not in (DEFAULT_ROLE, entitled.vault.role):
                raise RefusedError(Reason.ROLE_NOT_ALLOWED, f"{entitled.subject} has {entitled.vault.role}")
            login = await self._bounded_login(pod, entitled)
            if not info.is_connected():
                self._vault.revoke(login, entitled)
                raise RefusedError(Reason.CALLER_GONE, f"before the answer; accessor {login.accessor}")
        except RefusedError as error:
            if claimed is not None and error.reason.is_retryable:
                self._bearers.give_back(claimed)
            self._record_login(identifier, claimed, error.reason, error.detail, "", time.perf_counter() - started)
            return refused(error.reason, identifier)
        live = LiveLogin(login.accessor, time.time(), identifier, grant.basis, policy.digest, entitled.vault)
        self._withdrawals.add(live)
        self._record_login(
            identifier, claimed, Reason.ACCEPTED, "", login.accessor, time.perf_counter() - started, live
        )
        token = VaultToken(
            token=login.token,
            lease_seconds=login.lease_seconds,
            renewable=login.renewable,
            assurance=grant.basis.assurance.value,
            simulated=grant.simulated,
            vault_ca=self._vault_ca() if info.headers.get(WIRE_HEADER) == WIRE_VERSION else "",
        )
        return Response(200, seal_token(token, grant.tee_pubkey, grant.nonce, info.tail))

    async def _bounded_login(self, pod: PodIdentity, entitled: Entitlement) -> Login:
        if not pod.without_token:
            return await self._vault.log_in(entitled)
        self._login_bound.take(pod.pod_uid)
        try:
            return await self._vault.log_in(entitled)
        except RefusedError as error:
            if error.reason.is_retryable:
                self._login_bound.give_back(pod.pod_uid)
            raise

    async def jwks(self, _body: bytes, _info: RequestInfo) -> Response:
        """The public signing keys (RFC 7517)."""
        try:
            return Response(200, self._keys().jwks)
        except RefusedError:
            return unavailable(new_correlation_id(), 503)

    def _clock_off(self, error: RefusedError) -> Response:
        if self._warning_limit.take(error.reason):
            logs.warning("clock", reason=error.reason.value, detail=error.detail)
        return refused(error.reason, new_correlation_id())

    def _pod_too_often(self, attestation: Attestation, seconds: float) -> None:
        """Count it and warn now and then, but keep no record: one pod's flood must not push others' records out."""
        self._metrics.attested(attestation.reason, seconds)
        if self._warning_limit.take((attestation.reason, attestation.detail)):
            logs.warning("pod_too_often", reason=attestation.reason.value, detail=attestation.detail)

    def _record(self, attestation: Attestation, seconds: float) -> None:
        result, vouched = attestation.result, attestation.pod is not None
        record = None if self._records is None else self._records.add(attestation.as_dict(), vouched=vouched)
        log = logs.info if attestation.reason is Reason.ACCEPTED else logs.warning
        log(
            "attestation",
            reason=attestation.reason.value,
            detail=attestation.detail,
            policy=None if attestation.policy is None else attestation.policy.name,
            assurance=None if attestation.policy is None else attestation.policy.record.assurance.value,
            pod=None if attestation.pod is None else attestation.pod.claims(),
            guest=None if result is None else result.reference,
            product=None if result is None else result.product,
            simulated=None if result is None else result.simulated,
            # A stranger's evidence says what the stranger likes, and must not fill the log with it.
            failed=[] if result is None else [check.line() if vouched else check.id for check in result.failed],
            record=record,
            milliseconds=round(seconds * 1000, 1),
        )
        self._metrics.attested(attestation.reason, seconds)

    def _record_login(
        self,
        identifier: str,
        claimed: Claimed | None,
        reason: Reason,
        detail: str,
        accessor: str,
        seconds: float,
        live: LiveLogin | None = None,
    ) -> None:
        log = logs.info if reason is Reason.ACCEPTED else logs.warning
        subject = None if claimed is None else claimed.grant.basis.workload.subject
        simulated = None if claimed is None else claimed.grant.simulated
        fields: dict[str, Any] = {
            "reason": reason.value,
            "detail": detail,
            "subject": subject,
            "simulated": simulated,
            "accessor": accessor,
        }
        kept = None
        if self._records is not None:
            made = {} if live is None else {"login": live.as_dict()}
            at = datetime.fromtimestamp(time.time(), UTC).isoformat()
            record = {"id": identifier, "at": at, "call": "token"} | fields | made
            kept = self._records.add(record, vouched=claimed is not None)
        log("login", **fields, record=kept, milliseconds=round(seconds * 1000, 1))
        self._metrics.logged_in(reason, seconds)


def _cookie(headers: Mapping[str, str]) -> str | None:
    for pair in headers.get("Cookie", "").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == SESSION_COOKIE:
            return value
    return None


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise RefusedError(Reason.BEARER_INVALID, "none given")
    return token.strip()
