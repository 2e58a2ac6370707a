"""Secrets for another replica: it attests as a guest does, and is compared with this process's own guest."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from attestation.appraisal.appraise import Expectation, appraise, appraise_without_certificates
from attestation.appraisal.result import AttestationResult, CheckResult
from attestation.errors import FormatError
from attestation.pki.cache import CertificateCache
from attestation.report.envelopes import Evidence, from_coco_document
from attestation.report.report_data import accepted
from attestation.verifier.clock import Clock
from attestation.verifier.metrics import ProvisioningMetrics
from attestation.verifier.provisioning.held_secrets import HeldSecrets
from attestation.verifier.provisioning.own_guest import OwnGuest
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.records import RecordStore
from attestation.verifier.responses import new_correlation_id, refused
from attestation.verifier.session.nonces import Nonces
from kbs.base64url import encode
from kbs.hand_over import PROVISIONED_PATH
from kbs.reference_values import GuestReference
from kbs.verifier import AttestRequest, seal_provisioned, write_attest_answer
from server import logs
from server.messages import RequestInfo, Response

_BEARER_SECONDS, _MAX_BEARERS = 60.0, 16
_ENDORSEMENTS_SECONDS = 8.0
CONFIGURATION = "replica/configuration"


@dataclass
class _Comparison:
    """What a replica was compared with, as far as it came: the checks by the name of the reference values."""

    checks: dict[str, tuple[CheckResult, ...]] = field(default_factory=dict)
    simulated: bool | None = None

    @property
    def failed(self) -> list[tuple[str, CheckResult]]:
        """Each failed check with the name."""
        return [(name, check) for name, results in self.checks.items() for check in results if check.ok is False]

    def add(self, name: str, result: AttestationResult, *before: CheckResult) -> bool:
        """Keep a result; whether none of its checks failed."""
        self.checks[name], self.simulated = (*before, *result.checks), result.simulated
        return not any(check.ok is False for check in self.checks[name])

    def refusal(self) -> RefusedError:
        """By each guest that it was compared with."""
        by_name: dict[str, list[str]] = {}
        for name, check in self.failed:
            by_name.setdefault(name, []).append(check.id)
        return RefusedError(Reason.VERDICT, "; ".join(f"{name}: {', '.join(ids)}" for name, ids in by_name.items()))


@dataclass(frozen=True, slots=True)
class _Replica:
    nonce: str = field(repr=False)
    tee_pubkey: Mapping[str, str]
    until: float
    correlation_id: str


class HandOver:
    """Answers replicas. `nonces`: those that the first call gives out."""

    def __init__(
        self,
        nonces: Nonces,
        own: OwnGuest,
        certificates: CertificateCache,
        held: HeldSecrets,
        clock: Clock,
        records: RecordStore | None,
        metrics: ProvisioningMetrics,
    ) -> None:
        self._nonces = nonces
        self._own = own
        self._certificates = certificates
        self._held = held
        self._clock = clock
        self._records = records
        self._metrics = metrics
        self._bearers: dict[str, _Replica] = {}

    def routes(self) -> dict[tuple[str, str], Callable[[bytes, RequestInfo], Awaitable[Response]]]:
        """(method, path) to handler, of the third call alone: the others are every guest's."""
        return {("GET", PROVISIONED_PATH): self.give}

    async def attest(self, request: AttestRequest) -> Response:
        """A replica's evidence for a bearer."""
        identifier = new_correlation_id()
        logs.set_correlation_id(identifier)
        comparison = _Comparison()
        try:
            self._clock.require()
            self._nonces.spend(request.nonce)
            reference = await self._appraise(request, comparison)
        except RefusedError as error:
            self._record(identifier, error.reason, error.detail, comparison)
            return refused(error.reason, identifier)
        self._record(identifier, Reason.ACCEPTED, reference.name, comparison)
        bearer, now = secrets.token_urlsafe(32), time.monotonic()
        self._bearers = {each: replica for each, replica in self._bearers.items() if replica.until > now}
        while len(self._bearers) >= _MAX_BEARERS:
            del self._bearers[next(iter(self._bearers))]
        self._bearers[bearer] = _Replica(request.nonce, request.tee_pubkey, now + _BEARER_SECONDS, identifier)
        return Response(200, write_attest_answer(bearer, identifier))

    async def give(self, _body: bytes, info: RequestInfo) -> Response:
        """The secrets for a bearer, once, encrypted to the key that the evidence bound."""
        scheme, _, bearer = info.headers.get("Authorization", "").partition(" ")
        replica = self._bearers.pop(bearer.strip(), None) if scheme.lower() == "bearer" else None
        if replica is None or replica.until <= time.monotonic():
            self._metrics.handed_over(Reason.BEARER_INVALID.value)
            return refused(Reason.BEARER_INVALID, new_correlation_id())
        logs.set_correlation_id(replica.correlation_id)
        values = {name.value: text for name, text in self._held.hand_over().items()}
        body = seal_provisioned(values, replica.tee_pubkey, replica.nonce)
        logs.info("hand_over", reason="given", names=sorted(values))
        self._metrics.handed_over("given")
        return Response(200, body)

    async def _appraise(self, request: AttestRequest, comparison: _Comparison) -> GuestReference:
        """The reference values that the replica meets; every check goes to `comparison`. Raises RefusedError."""
        try:
            evidence = from_coco_document(request.primary_evidence)
        except FormatError as error:
            raise RefusedError(Reason.EVIDENCE_MALFORMED, str(error)) from None
        replicas, _ = await self._own.replicas()
        candidates = replicas.accepted()
        if not candidates:
            raise RefusedError(Reason.NO_POLICY, "this guest has no initdata, and no signed references are in force")
        report_data, now = accepted(request.digest), datetime.now(UTC)
        possible = []
        for reference, configurations in candidates:
            expectation = Expectation(reference, report_data)
            result = appraise_without_certificates(evidence, self._certificates.anchors, now, expectation)
            if comparison.add(reference.name, result, _configuration(request.replica, configurations)):
                possible.append((reference, expectation))
        if not possible:
            raise comparison.refusal()
        return await self._with_certificates(evidence, possible, now, comparison)

    async def _with_certificates(
        self,
        evidence: Evidence,
        possible: list[tuple[GuestReference, Expectation]],
        now: datetime,
        comparison: _Comparison,
    ) -> GuestReference:
        try:
            async with asyncio.timeout(_ENDORSEMENTS_SECONDS):
                endorsements = await self._certificates.endorsements(evidence, now, client="a replica")
        except TimeoutError:
            raise RefusedError(Reason.CERTIFICATES_UNAVAILABLE, "AMD's key service has not answered in time") from None
        for reference, expectation in possible:
            result = appraise(evidence, endorsements, self._certificates.anchors, now, expectation)
            comparison.add(reference.name, result)
            if result.accepted:
                return reference
        raise comparison.refusal()

    def _record(self, identifier: str, reason: Reason, detail: str, comparison: _Comparison) -> None:
        accepted_one = reason is Reason.ACCEPTED
        failed = [] if accepted_one else [f"{name}: {check.line()}" for name, check in comparison.failed]
        simulated = comparison.simulated
        log = logs.info if accepted_one else logs.warning
        log("hand_over", reason=reason.value, detail=detail, simulated=simulated, failed=failed)
        if not accepted_one:
            self._metrics.handed_over(reason.value)
        if self._records is not None:
            at = datetime.now(UTC).isoformat()
            record = {"id": identifier, "at": at, "call": "hand-over", "reason": reason.value, "detail": detail}
            self._records.add(record | {"simulated": simulated, "failed": failed}, vouched=accepted_one)


def _configuration(actual: bytes | None, wanted: frozenset[bytes]) -> CheckResult:
    shown = "none" if actual is None else encode(actual)
    listed = "one of " + ", ".join(sorted(map(encode, wanted)))
    return CheckResult(CONFIGURATION, actual in wanted, f"configuration {shown}", listed)
