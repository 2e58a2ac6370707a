"""This process's own guest: its reports, and what other guests are compared with."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from attestation.appraisal.appraise import appraise
from attestation.evidence import CollectedEvidence, ConfiguredSource, EvidenceError, collect_first
from attestation.pki.cache import CertificateCache
from attestation.pki.crl import RevocationList
from attestation.report.abi import Report, parse_report
from attestation.report.envelopes import Envelope, Evidence
from attestation.report.report_data import DIGEST_SIZE
from attestation.verifier.provisioning.replica_references import Replicas
from attestation.verifier.reasons import Reason, RefusedError
from kbs.verifier_attest import SignedReferences

_COLLECT_SECONDS: Final = 10.0
_KEEP_SECONDS: Final = 60.0  # a firmware update raises the TCB while the guest runs


@dataclass(frozen=True, slots=True)
class ReplicaRule:
    """What the configuration says of replicas. `configuration`, `references`: in force at the time of the call."""

    chip_ids: frozenset[bytes]
    signed: SignedReferences | None
    simulated_root: str
    configuration: Callable[[], bytes]
    references: Callable[[], str]


class OwnGuest:
    """Reports by `sources`; their certificates and revocation lists come from `certificates`."""

    def __init__(self, sources: Sequence[ConfiguredSource], certificates: CertificateCache, rule: ReplicaRule) -> None:
        self._sources = tuple(sources)
        self._certificates = certificates
        self._rule = rule
        self._known: tuple[Report, tuple[RevocationList, ...]] | None = None
        self._until = 0.0

    def collect(self, digest: bytes) -> CollectedEvidence:
        """Evidence that binds the digest; waits for firmware. Raises EvidenceError."""
        return collect_first(self._sources, digest, timeout=_COLLECT_SECONDS)

    @property
    def configuration(self) -> bytes:
        """The digest of the whole configuration."""
        return self._rule.configuration()

    async def replicas(self) -> tuple[Replicas, tuple[RevocationList, ...]]:
        """Who is a replica, and the revocation lists of this guest's product line. Raises RefusedError."""
        report, crls = await self._facts()
        rule = self._rule
        replicas = Replicas(
            report, rule.configuration(), rule.chip_ids, rule.signed, rule.references(), rule.simulated_root
        )
        return replicas, crls

    async def _facts(self) -> tuple[Report, tuple[RevocationList, ...]]:
        if self._known is not None and time.monotonic() < self._until:
            return self._known
        try:
            found = await asyncio.to_thread(self.collect, secrets.token_bytes(DIGEST_SIZE))
            report = parse_report(found.report)
        except EvidenceError as error:
            raise RefusedError(Reason.NO_EVIDENCE, str(error)) from None
        evidence, now = Evidence(report, Envelope.RAW, found.certificates), datetime.now(UTC)
        endorsements = await self._certificates.endorsements(evidence, now, client="the verifier itself")
        result = appraise(evidence, endorsements, self._certificates.anchors, now)
        if not result.accepted:
            failed = ", ".join(check.id for check in result.failed)
            raise RefusedError(Reason.NO_EVIDENCE, f"this guest's own report: {failed}")
        self._known, self._until = (report, endorsements.crls), time.monotonic() + _KEEP_SECONDS
        return self._known
