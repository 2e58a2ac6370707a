"""An attestation result is immutable, survives storage, and explains itself."""

from __future__ import annotations

import json

import pytest

from attestation.appraisal.appraise import Expectation
from attestation.appraisal.result import Assurance, CheckResult, result_from_dict
from kbs.reference_values import SOFT_CRL


@pytest.fixture
def accepted(milan):
    leaf, key = milan.leaf()
    return milan.appraise(milan.report(key), leaf, expectation=Expectation(assurance=Assurance.VM))


@pytest.fixture
def refused(milan):
    leaf, key = milan.leaf(signer="asvk")
    return milan.appraise(milan.report(key, policy=0xB0000), leaf, expectation=Expectation(revocation=SOFT_CRL))


def test_immutable(accepted):
    with pytest.raises(AttributeError):
        accepted.scope = "policy"
    with pytest.raises(TypeError):
        accepted.claims["snp_vmpl"] = "3"
    assert isinstance(accepted.checks, tuple)


def test_survives_storage(accepted, refused):
    for result in (accepted, refused):
        assert result_from_dict(json.loads(json.dumps(result.as_dict()))) == result


def test_stored_belief_counts_nothing(refused):
    document = refused.as_dict() | {"believed": True}
    assert not result_from_dict(document).accepted


def test_no_truth_value(accepted):
    with pytest.raises(TypeError, match="accepted"):
        bool(accepted)


def test_nothing_checked_is_nothing_accepted(accepted):
    assert not accepted._replace(checks=()).accepted
    unknown = CheckResult("x", None, "needs y", "")
    assert not accepted._replace(checks=(*accepted.checks, unknown)).accepted


def test_one_line_a_check(refused):
    lines = refused.explain()
    assert len(lines) == len(refused.checks)
    assert not any("\n" in line for line in lines)
    assert "policy/debug: FAILED: DEBUG=1, required DEBUG=0" in lines
    assert "chain/leaf: FAILED: leaf has another signature, required signed by SEV-Milan, RSASSA-PSS" in "\n".join(
        lines
    )
    assert any(line.startswith("crl/present: ok") for line in lines)


def test_summary_says_what_must_not_be_missed(accepted, refused):
    assert accepted.summary() == (
        "believed · SIMULATED: the root is not AMD's · authenticity only, no policy was applied · assurance vm"
    )
    assert refused.summary().endswith("failed: chain/leaf, policy/debug")


def test_claims_are_flat_strings(accepted):
    assert accepted.claims["snp_measurement"] == (b"m" * 48).hex()
    assert accepted.claims["snp_line"] == "Milan"
    assert accepted.claims["snp_reported_tcb"] == "bootloader=3 tee=0 snp=8 microcode=115"
    assert all(isinstance(value, str) for value in accepted.claims.values())
