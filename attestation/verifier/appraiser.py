"""The decision on one attestation: nonce, pod token, policy, report, in that order; everything it saw is recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from attestation.appraisal.appraise import Expectation, appraise
from attestation.appraisal.reference_values import GuestReference
from attestation.appraisal.result import Assurance, Verdict
from attestation.errors import FormatError
from attestation.pki.cache import CertificateCache
from attestation.report.abi import parse_report
from attestation.report.coco import parse_coco_evidence
from attestation.report.envelopes import Envelope, Evidence
from attestation.report.products import line_by_cpuid
from attestation.report.report_data import accepted
from attestation.verifier.cluster.pod_lookup import PodReader
from attestation.verifier.cluster.pod_token import PodIdentity, PodTokens
from attestation.verifier.cluster.token_review import TokenReviewer
from attestation.verifier.policies.load import Policy, PolicySet
from attestation.verifier.rate_limit import Pace
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.bearer import Grant
from attestation.verifier.session.nonces import Nonces
from kbs.verifier import AttestRequest

_COLLATERAL_SECONDS = 8.0
# A pod starts, tries again while something is slow, and renews: more than this is none of it.
_POD_BURST, _POD_SECONDS = 10, 3.0
# Verdicts on evidence that no pod token vouches for are made for the operator's eyes, as long as they are few.
_UNVOUCHED_BURST, _UNVOUCHED_SECONDS = 50, 0.01
# What fails when certificates are not there yet; anything else that fails is a refusal.
_MISSING = frozenset({"certificates/leaf", "certificates/intermediate", "crl/present", "crl/fresh"})


@dataclass
class Case:
    """One attestation as far as it came. `as_dict` is what the operator gets to see."""

    id: str
    at: datetime
    reason: Reason = Reason.BELIEVED
    detail: str = ""
    pod: PodIdentity | None = None
    policy: Policy | None = None
    verdict: Verdict | None = None
    grant: Grant | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without tokens, nonces and evidence."""
        return {
            "id": self.id,
            "at": self.at.isoformat(),
            "call": "attest",
            "reason": self.reason.value,
            "detail": self.detail,
            "pod": None if self.pod is None else self.pod.claims(),
            "policy": None if self.policy is None else self.policy.name,
            "verdict": None if self.verdict is None else self.verdict.as_dict(),
        }


class Judge:
    """`readers`: for the clusters whose pods are read back; `reviewers`: for those that confirm tokens."""

    def __init__(
        self,
        nonces: Nonces,
        tokens: PodTokens,
        readers: Mapping[str, PodReader],
        policies: Callable[[], PolicySet],
        certificates: CertificateCache,
        reviewers: Mapping[str, TokenReviewer],
    ) -> None:
        self.nonces = nonces
        self._tokens = tokens
        self._readers = readers
        self._reviewers = reviewers
        self._policies = policies
        self._certificates = certificates
        self._pods = Pace(_POD_BURST, _POD_SECONDS, time.monotonic)
        self._unvouched = Pace(_UNVOUCHED_BURST, _UNVOUCHED_SECONDS, time.monotonic)

    async def decide(self, case: Case, request: AttestRequest) -> Grant:
        """The grant, everything seen being noted in `case`. Raises RefusedError, and nothing else of its own."""
        self.nonces.spend(request.nonce)
        evidence = _evidence(request)
        try:
            case.pod = await self._tokens.identify(request.pod_token)
            case.pod = await self._known_better(case.pod, request.pod_token)
            case.policy = self._policies().find(parse_report(evidence.report).host_data, case.pod)
        except RefusedError as error:
            # Judged all the same: the operator sees all that is wrong, and the guest's clock nothing.
            is_known = case.pod is not None and error.reason is not Reason.POD_TOO_OFTEN
            if is_known or self._unvouched.take(None):
                await self._appraise(case, request, evidence)
            raise
        await self._appraise(case, request, evidence)
        return self._granted(case, request)

    async def _known_better(self, pod: PodIdentity, token: str) -> PodIdentity:
        if not self._pods.take((pod.cluster, pod.pod_uid)):
            raise RefusedError(Reason.POD_TOO_OFTEN, f"more than {_POD_BURST} at once, or one in {_POD_SECONDS:g} s")
        if (reviewer := self._reviewers.get(pod.cluster)) is not None:
            await reviewer.confirm(token, pod)
        reader = self._readers.get(pod.cluster)
        return pod if reader is None else await reader.read(pod)

    async def _appraise(self, case: Case, request: AttestRequest, evidence: Evidence) -> None:
        policy = case.policy
        candidates = [None] if policy is None else _candidates(policy, evidence)
        hint = None if policy is None else policy.guests[0].product
        # The key service's favour is scarce: only for pods that a cluster vouches for and somebody expects.
        ask = policy is not None
        try:
            async with asyncio.timeout(_COLLATERAL_SECONDS):
                collateral = await self._certificates.collateral(evidence, case.at, ask_service=ask, line_hint=hint)
        except TimeoutError:
            raise RefusedError(Reason.CERTIFICATES_UNAVAILABLE, "AMD's key service takes its time") from None
        for reference in candidates:
            case.verdict = appraise(
                evidence,
                collateral,
                self._certificates.anchors,
                case.at,
                _expectation(request, policy, reference),
            )
            if case.verdict.believed:
                return

    def _granted(self, case: Case, request: AttestRequest) -> Grant:
        policy, pod, verdict = case.policy, case.pod, case.verdict
        if policy is None or pod is None or verdict is None:
            raise AssertionError("a case without policy, pod or verdict was not refused")
        if not verdict.believed:
            failed = {check.id for check in verdict.failed}
            if failed and failed <= _MISSING and self._certificates.service is not None:
                raise RefusedError(Reason.CERTIFICATES_UNAVAILABLE, ", ".join(sorted(failed)))
            raise RefusedError(Reason.VERDICT, ", ".join(sorted(failed)) or "nothing was evaluated")
        workload = policy.record.workload
        return Grant(
            correlation_id=case.id,
            policy=policy.digest,
            subject=workload.subject,
            nonce=request.nonce,
            tee_pubkey=request.tee_pubkey,
            claims={
                **verdict.claims,
                **pod.claims(),
                "cluster": workload.cluster,
                "namespace": workload.namespace,
                "service": workload.service,
                "service_account": workload.serviceAccount,
                "assurance": policy.record.assurance.value,
                "guest": verdict.reference or "",
                "simulated": "true" if verdict.simulated else "false",
                "correlation_id": case.id,
            },
        )


def new_case(identifier: str, now: float) -> Case:
    """A case that begins now, Unix seconds."""
    return Case(identifier, datetime.fromtimestamp(now, UTC))


def _evidence(request: AttestRequest) -> Evidence:
    try:
        report, certificates = parse_coco_evidence(request.primary_evidence)
        parse_report(report)
    except FormatError as error:
        raise RefusedError(Reason.EVIDENCE_MALFORMED, str(error)) from None
    return Evidence(report, Envelope.COCO, certificates)


def _candidates(policy: Policy, evidence: Evidence) -> list[GuestReference | None]:
    """The guests this can be, by product and measurement; the first one for the record when it is none of them."""
    report = parse_report(evidence.report)
    line = line_by_cpuid(report.cpuid_fam_id, report.cpuid_mod_id) if report.has_cpuid else None
    found: list[GuestReference | None] = [
        guest
        for guest in policy.guests
        if line in (None, guest.product) and (not guest.measurements or report.measurement in guest.measurements)
    ]
    return found or [policy.guests[0]]


def _expectation(request: AttestRequest, policy: Policy | None, reference: GuestReference | None) -> Expectation:
    report_data = accepted(request.digest)
    if policy is None:
        return Expectation(report_data=report_data)
    record = policy.record
    # An empty list is possible with assurance vm alone; with workload it would have to match nothing.
    host_data = record.host_data if record.hostData or record.assurance is Assurance.WORKLOAD else None
    return Expectation(reference, report_data, host_data, assurance=record.assurance)
