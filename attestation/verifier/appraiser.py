"""The decision on one attestation, the cheap steps first; every step is recorded.

Nonce, pod token with the keys at hand and the pod's pace, what the report says by itself, the policy, what the report
says against the policy's reference values; a token whose key has to be fetched waits for what the report says by
itself. Then the cluster (token review, pod look-up); then certificates, which may cost a request to AMD's key service;
then the whole appraisal. A step that fails spares all after it, and the record says that their checks were not
evaluated. Timing may tell a guest that a cheap check has failed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from attestation.appraisal.appraise import Expectation, appraise, appraise_without_certificates
from attestation.appraisal.reappraise import AttestedReport
from attestation.appraisal.result import AttestationResult
from attestation.errors import FormatError
from attestation.pki.cache import CertificateCache
from attestation.pki.endorsements import Endorsements
from attestation.report.envelopes import Evidence, from_coco_document
from attestation.report.products import line_by_cpuid, line_by_name
from attestation.report.report_data import accepted
from attestation.verifier.cluster.node_chips import NodeChips, check_chip
from attestation.verifier.cluster.pod_lookup import PodLookup
from attestation.verifier.cluster.pod_token import PodIdentity, PodTokens
from attestation.verifier.cluster.token_review import TokenReviewer
from attestation.verifier.policies.model import Policy, PolicySet
from attestation.verifier.rate_limit import RateLimiter
from attestation.verifier.reasons import Reason, RefusedError
from attestation.verifier.session.basis import Basis
from attestation.verifier.session.bearer import Grant
from attestation.verifier.session.nonces import Nonces
from kbs.reference_values import GuestReference
from kbs.verifier import AttestRequest

_ENDORSEMENTS_SECONDS = 8.0
# A pod starts, retries while something is slow, and renews: none of that needs more.
_POD_BURST, _POD_SECONDS = 10, 3.0
# These checks fail when endorsements are not available yet; any other failed check is a refusal.
_MISSING = frozenset({"certificates/leaf", "certificates/intermediate", "crl/present", "crl/fresh"})


@dataclass
class Attestation:
    """One attestation as far as it came. `as_dict` is what the operator gets to see."""

    id: str
    at: datetime
    reason: Reason = Reason.ACCEPTED
    detail: str = ""
    pod: PodIdentity | None = None
    policy: Policy | None = None
    reference: GuestReference | None = None
    result: AttestationResult | None = None

    @classmethod
    def begin(cls, identifier: str, now: float) -> Attestation:
        """An attestation that begins at `now`, Unix seconds."""
        return cls(identifier, datetime.fromtimestamp(now, UTC))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without tokens, nonces and evidence. The result's key is "verdict": stored records have it."""
        return {
            "id": self.id,
            "at": self.at.isoformat(),
            "call": "attest",
            "reason": self.reason.value,
            "detail": self.detail,
            "pod": None if self.pod is None else self.pod.claims(),
            "policy": None if self.policy is None else self.policy.name,
            "verdict": None if self.result is None else self.result.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A guest that the checks without certificates leave possible, and what they have shown."""

    reference: GuestReference
    expectation: Expectation
    result: AttestationResult


class Appraiser:
    """`lookups`: for the clusters whose pods are looked up; `reviewers`: for those that confirm tokens.

    `nodes`: for the clusters whose nodes' chips the operator lists; each gives the list in force.
    `saw_lists`: gets thisUpdate of the revocation lists that an accepted report rested on.
    """

    def __init__(
        self,
        nonces: Nonces,
        tokens: PodTokens,
        lookups: Mapping[str, PodLookup],
        policies: Callable[[], PolicySet],
        certificates: CertificateCache,
        reviewers: Mapping[str, TokenReviewer],
        nodes: Mapping[str, Callable[[], NodeChips]],
        saw_lists: Callable[[Iterable[datetime]], None],
    ) -> None:
        self._saw_lists = saw_lists
        self.nonces = nonces
        self._tokens = tokens
        self._lookups = lookups
        self._reviewers = reviewers
        self._nodes = nodes
        self._policies = policies
        self._certificates = certificates
        self._pod_limit = RateLimiter(_POD_BURST, _POD_SECONDS, time.monotonic)

    async def decide(self, attestation: Attestation, request: AttestRequest) -> Grant:
        """The grant; records each step in `attestation`. Raises RefusedError, and nothing else of its own."""
        self.nonces.spend(request.nonce)
        if not request.pod_token:
            return await self._decide_without_token(attestation, request)
        refusal: RefusedError | None = None
        if self._tokens.needs_no_request(request.pod_token):
            try:
                attestation.pod = await self._identified(request)
            except RefusedError as error:
                if error.reason is Reason.POD_TOO_OFTEN:
                    raise
                refusal = error  # the record says all the same what the evidence is worth
        evidence = _evidence(request)
        wanted = Expectation(report_data=accepted(request.digest), initdata=request.initdata)
        if attestation.pod is None:
            self._check_cheaply(attestation, wanted, evidence, ())
            if refusal is not None:
                raise refusal
            attestation.pod = await self._identified(request)
        try:
            possible = self._policies().possible(evidence.report.host_data, attestation.pod)
        except RefusedError:
            self._check_cheaply(attestation, wanted, evidence, ())
            raise
        if len(possible) == 1:
            (attestation.policy,) = possible
        candidates = self._check_cheaply(attestation, wanted, evidence, possible)
        attestation.pod = await self._enrich_identity(attestation.pod, request.pod_token)
        self._check_node(attestation.pod, evidence)
        attestation.policy = self._policies().find(evidence.report.host_data, attestation.pod)
        # The one policy that was possible has been compared already, unless it was edited meanwhile.
        if possible != (attestation.policy,):
            candidates = self._check_cheaply(attestation, wanted, evidence, (attestation.policy,))
        endorsements = await self._appraise(attestation, evidence, attestation.policy, candidates)
        return self._granted(attestation, request, evidence, endorsements, attestation.pod)

    async def _decide_without_token(self, attestation: Attestation, request: AttestRequest) -> Grant:
        """As `decide`, where HOST_DATA alone finds the record.

        Certificates are looked for, and AMD's key service asked, only for a report that names a record and one of its
        guests' measurements: nothing else stands between a stranger and that service.
        """
        evidence = _evidence(request)
        report = evidence.report
        wanted = Expectation(report_data=accepted(request.digest), initdata=request.initdata)
        try:
            policy = self._policies().find_without_token(report.host_data)
            if not any(report.measurement in guest.measurements for guest in policy.guests):
                raise RefusedError(Reason.NO_POLICY, f"{policy.name} has no guest of this MEASUREMENT")
        except RefusedError:
            self._check_cheaply(attestation, wanted, evidence, ())
            raise
        attestation.policy = policy
        workload = policy.record.workload
        pod = PodIdentity(
            workload.cluster,
            workload.namespace,
            workload.serviceAccount,
            pod_name="",
            pod_uid=report.report_id.hex(),
            without_token=True,
        )
        candidates = [
            candidate
            for candidate in self._check_cheaply(attestation, wanted, evidence, (policy,))
            if report.measurement in candidate.reference.measurements
        ]
        if not candidates:
            raise RefusedError(Reason.NO_POLICY, f"{policy.name}: the guest of this MEASUREMENT is another one")
        self._check_node(pod, evidence)
        endorsements = await self._appraise(attestation, evidence, policy, candidates)
        if attestation.result is not None and attestation.result.accepted:
            # Named only now: the record of a report that no hardware has made must not push others' records out.
            attestation.pod = pod
        return self._granted(attestation, request, evidence, endorsements, pod)

    async def _identified(self, request: AttestRequest) -> PodIdentity:
        pod = await self._tokens.identify(request.pod_token)
        if not self._pod_limit.take((pod.cluster, pod.pod_uid)):
            name = f"{pod.cluster}/{pod.namespace}/{pod.pod_name}"
            pace = f"more than {_POD_BURST} at once, or one in {_POD_SECONDS:g} s"
            raise RefusedError(Reason.POD_TOO_OFTEN, f"{name}: {pace}")
        return pod

    async def _enrich_identity(self, pod: PodIdentity, token: str) -> PodIdentity:
        """The identity as the pod's cluster confirms and completes it, where it is configured to."""
        if (reviewer := self._reviewers.get(pod.cluster)) is not None:
            await reviewer.confirm(token, pod)
        lookup = self._lookups.get(pod.cluster)
        return pod if lookup is None else await lookup.look_up(pod)

    def _check_node(self, pod: PodIdentity, evidence: Evidence) -> None:
        if (chips := self._nodes.get(pod.cluster)) is not None:
            check_chip(chips(), pod, evidence.report.chip_id)

    def _check_cheaply(
        self, attestation: Attestation, wanted: Expectation, evidence: Evidence, policies: Sequence[Policy]
    ) -> list[_Candidate]:
        """What needs no certificate, against each guest of the policies; the guests that are still possible.

        Without a policy, what the report says by itself. Raises RefusedError when no guest is possible.
        """
        expectations = [
            wanted._replace(
                reference=reference,
                host_data=policy.record.accepted_host_data,
                assurance=policy.record.assurance,
            )
            for policy in policies
            for reference in _candidates(policy, evidence)
        ] or [wanted]
        results = [
            appraise_without_certificates(evidence, self._certificates.anchors, attestation.at, expectation)
            for expectation in expectations
        ]
        failed = [result.failed for result in results]
        best = next((place for place, each in enumerate(failed) if not each), -1)
        attestation.result = results[best]
        if failed[best]:
            raise RefusedError(Reason.VERDICT, ", ".join(sorted(check.id for check in failed[best])))
        return [
            _Candidate(expectation.reference, expectation, result)
            for expectation, result, each in zip(expectations, results, failed, strict=True)
            if expectation.reference is not None and not each
        ]

    async def _appraise(
        self,
        attestation: Attestation,
        evidence: Evidence,
        policy: Policy,
        candidates: Sequence[_Candidate],
    ) -> Endorsements:
        """The result goes into `attestation`. Returns what it was reached with. Raises RefusedError."""
        try:
            async with asyncio.timeout(_ENDORSEMENTS_SECONDS):
                endorsements = await self._certificates.endorsements(
                    evidence,
                    attestation.at,
                    client=policy.record.workload.subject,
                    line_hint=line_by_name(candidates[0].reference.product),
                )
        except TimeoutError:
            raise RefusedError(Reason.CERTIFICATES_UNAVAILABLE, "AMD's key service has not answered in time") from None
        for candidate in candidates:
            attestation.reference = candidate.reference
            attestation.result = appraise(
                evidence,
                endorsements,
                self._certificates.anchors,
                attestation.at,
                candidate.expectation,
                before=candidate.result,
            )
            if attestation.result.accepted:
                self._saw_lists(crl.this_update for crl in endorsements.crls)
                break
        return endorsements

    def _granted(
        self,
        attestation: Attestation,
        request: AttestRequest,
        evidence: Evidence,
        endorsements: Endorsements,
        pod: PodIdentity,
    ) -> Grant:
        policy, reference, result = attestation.policy, attestation.reference, attestation.result
        if policy is None or result is None or reference is None:
            raise AssertionError("an attestation without policy, reference or result was not refused")
        if not result.accepted:
            failed = {check.id for check in result.failed}
            if failed and failed <= _MISSING and self._certificates.service is not None:
                raise RefusedError(Reason.CERTIFICATES_UNAVAILABLE, ", ".join(sorted(failed)))
            raise RefusedError(Reason.VERDICT, ", ".join(sorted(failed)) or "nothing was evaluated")
        return Grant(
            correlation_id=attestation.id,
            basis=Basis(
                workload=policy.record.workload,
                assurance=policy.record.assurance,
                guest=reference.name,
                attested=AttestedReport.of(evidence, endorsements, result),
                pod=pod,
            ),
            granted_by=policy.digest,
            nonce=request.nonce,
            tee_pubkey=request.tee_pubkey,
            claims=result.claims,
            simulated=result.simulated,
        )


def _evidence(request: AttestRequest) -> Evidence:
    try:
        return from_coco_document(request.primary_evidence)
    except FormatError as error:
        raise RefusedError(Reason.EVIDENCE_MALFORMED, str(error)) from None


def _candidates(policy: Policy, evidence: Evidence) -> list[GuestReference]:
    """The guests that match by product and measurement; without a match the first one, for the record."""
    report = evidence.report
    line = line_by_cpuid(report.cpuid_fam_id, report.cpuid_mod_id) if report.has_cpuid else None
    found = [
        guest
        for guest in policy.guests
        if (line is None or line.name == guest.product)
        and (not guest.measurements or report.measurement in guest.measurements)
    ]
    return found or [policy.guests[0]]
