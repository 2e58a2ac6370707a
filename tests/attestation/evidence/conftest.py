from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from attestation.appraisal.appraise import AUTHENTICITY_ONLY, Expectation, appraise
from attestation.appraisal.result import AttestationResult
from attestation.evidence import CollectedEvidence
from attestation.pki.certificates import parse_certificate
from attestation.pki.crl import parse_crl
from attestation.pki.endorsements import Endorsements, from_table
from attestation.pki.roots import TrustAnchors
from attestation.report.envelopes import from_raw
from attestation.simulator.device import Device
from attestation.simulator.hierarchy import Hierarchy, open_hierarchy
from tests.support.vectors import Store, store


@pytest.fixture(scope="session")
def hierarchy(tmp_path_factory: pytest.TempPathFactory) -> Hierarchy:
    """One simulated machine's keys for all tests of a process: making them takes two seconds."""
    return open_hierarchy(tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="session")
def device(hierarchy: Hierarchy) -> Device:
    return Device(hierarchy)


@pytest.fixture(scope="session")
def vectors() -> Store:
    """The real reports."""
    return store(lambda _line: None)


def appraise_own(
    evidence: CollectedEvidence,
    root: Path,
    crl: Path,
    expectation: Expectation = AUTHENTICITY_ONLY,
    *,
    now: datetime | None = None,
) -> AttestationResult:
    """The result of a verifier that trusts this simulated root and has the evidence alone."""
    given = from_table(evidence.certificates)
    return appraise(
        from_raw(evidence.report),
        Endorsements(given.leaf, given.intermediates, (parse_crl(crl.read_bytes()),)),
        TrustAnchors().with_simulated(parse_certificate(root.read_bytes())),
        datetime.now(UTC) if now is None else now,
        expectation,
        source=evidence.source,
    )
