"""Other reference values for an accepted report: the second appraisal answers as the whole one would."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attestation.appraisal.appraise import Expectation, appraise, appraise_without_certificates
from attestation.appraisal.reappraise import AttestedReport, reappraise
from attestation.errors import FormatError
from attestation.pki.endorsements import Endorsements
from attestation.report.envelopes import from_raw
from kbs.reference_values import (
    REQUIRE_CRL,
    SOFT_CRL,
    GuestReference,
    RequiredGuestPolicy,
    RevocationAction,
    RevocationPolicy,
    TcbFloor,
)
from tests.attestation.conftest import Platform

ZERO = TcbFloor(0, 0, 0, 0)
# Accepts whatever these tests report; each example makes it stricter.
WIDEST = GuestReference(
    name="guest",
    product="Milan",
    measurements=frozenset(),
    min_tcb=ZERO,
    min_committed_tcb=ZERO,
    min_launch_tcb=ZERO,
    policy=RequiredGuestPolicy(migrate_ma=True, cxl_allow=True),
    vmpl=frozenset({0, 1, 2, 3}),
    masked_chip_id=True,
    signing_keys=frozenset({"VCEK", "VLEK"}),
    csp_ids=frozenset({"CN=test"}),
    min_version=2,
    revocation=SOFT_CRL,
)


def _floors(platform: Platform) -> st.SearchStrategy[TcbFloor]:
    own = platform.tcb
    near = [st.sampled_from((0, value, value + 1)) for value in (own.bootloader, own.tee, own.snp, own.microcode)]
    return st.builds(TcbFloor, *near)


def _sets(*values: Any) -> st.SearchStrategy[frozenset[Any]]:
    return st.sets(st.sampled_from(values), min_size=1).map(frozenset)


def _edits(platform: Platform) -> st.SearchStrategy[dict[str, Any]]:
    """Any of a reference's values, near those of the reports."""
    chip = platform.chip_id.ljust(64, b"\0")
    actions = st.sampled_from(RevocationAction)
    return st.fixed_dictionaries(
        {},
        optional={
            "product": st.sampled_from(("Milan", "Genoa")),
            "measurements": st.just(frozenset()) | _sets(b"m" * 48, b"n" * 48),
            "min_tcb": _floors(platform),
            "min_committed_tcb": _floors(platform),
            "min_launch_tcb": _floors(platform),
            "policy": st.builds(
                RequiredGuestPolicy,
                exact=st.sampled_from((None, 0x30000, 0x20000)),
                **dict.fromkeys(
                    [name for name, value in RequiredGuestPolicy._field_defaults.items() if value in (True, False)],
                    st.booleans(),
                ),
                min_abi=st.sampled_from(((0, 0), (0, 1), (1, 0))),
            ),
            "vmpl": _sets(0, 1),
            "host_data": st.none() | _sets(b"h" * 32, b"i" * 32),
            "id_keys": st.none() | _sets(bytes(48), b"k" * 48),
            "author_keys": st.none() | _sets(bytes(48)),
            "family_id": st.sampled_from((None, bytes(16), b"f" * 16)),
            "image_id": st.sampled_from((None, bytes(16), b"f" * 16)),
            "min_guest_svn": st.integers(0, 3),
            "chip_ids": st.none() | _sets(chip, bytes(64)),
            "masked_chip_id": st.booleans(),
            "signing_keys": _sets("VCEK", "VLEK"),
            "csp_ids": st.just(frozenset()) | _sets("CN=test", "CN=other"),
            "platform_require": st.sampled_from((0, 1, 2, 1 << 5)),
            "platform_forbid": st.sampled_from((0, 1, 2)),
            "launch_mitigations": st.sampled_from((0, 1)),
            "current_mitigations": st.sampled_from((0, 1)),
            "min_firmware": st.sampled_from((None, (1, 55, 40), (1, 55, 41))),
            "provisional_firmware": st.booleans(),
            "min_version": st.sampled_from((2, 3, 5)),
            "max_version": st.sampled_from((3, 5)),
            "revocation": st.none() | st.builds(RevocationPolicy, actions, actions),
        },
    )


REPORTS: dict[str, dict[str, Any]] = {
    "ordinary": {},
    "second version": {"version": 2, "cpuid_fam_id": 0, "cpuid_mod_id": 0, "cpuid_step": 0},
    "with a migration agent, other bits of POLICY": {"policy": 0x1E60000, "report_id_ma": b"a" * 32, "guest_svn": 2},
    "masked": {"chip_id": bytes(64)},
    "of a VLEK": {"vlek": True},
    "less privileged": {"vmpl": 1, "id_key_digest": b"k" * 48},
}
LISTS = ("fresh", "missing", "stale")


def _evidence(platform: Platform, name: str) -> Any:
    bent = REPORTS[name]
    leaf, key = platform.leaf(vlek=bent.get("vlek", False))
    return from_raw(platform.report(key, **bent)), Endorsements(leaf, (platform.ask(), platform.asvk()))


def _crls(platform: Platform, lists: str) -> tuple[Any, ...]:
    if lists == "missing":
        return ()
    make = partial(platform.crl, since=30, until=-1) if lists == "stale" else platform.crl
    return (make(), make(vlek=True))


@pytest.mark.parametrize("lists", LISTS)
@pytest.mark.parametrize("name", REPORTS)
def test_it_fails_the_same_checks_as_the_whole_appraisal(milan: Platform, name: str, lists: str) -> None:
    evidence, endorsements = _evidence(milan, name)
    lists_given = _crls(milan, lists)
    appraised = partial(
        milan.appraise,
        evidence,
        endorsements.leaf,
        intermediates=endorsements.intermediates,
        crls=lists_given,
    )
    first = appraised(expectation=Expectation(WIDEST))
    assert first.accepted, first.failed
    attested = AttestedReport.of(evidence, endorsements, first)
    assert reappraise(attested, milan.anchors, WIDEST, None) == ()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(edits=_edits(milan), host_data=st.none() | _sets(b"h" * 32, b"i" * 32))
    def compare(edits: dict[str, Any], host_data: frozenset[bytes] | None) -> None:
        edited = WIDEST._replace(**edits)
        whole = appraised(expectation=Expectation(edited, host_data=host_data))
        again = reappraise(attested, milan.anchors, edited, host_data)
        # What was checked without certificates is not checked again, and nothing differs by that.
        wanted = Expectation(edited, host_data=host_data)
        cheap = appraise_without_certificates(evidence, milan.anchors, milan.now, wanted)
        both = appraise(
            evidence,
            Endorsements(endorsements.leaf, endorsements.intermediates, lists_given),
            milan.anchors,
            milan.now,
            wanted,
            before=cheap,
        )
        assert both == whole
        # A check that needs a failed one is spared in both, and not every need is the same.
        assert bool(again) is not whole.accepted, (again, whole.failed)
        # The second appraisal knows no more than the first: what it names, the whole one names or spares.
        assert set(again) <= {check.id for check in whole.checks if check.ok is not True}

    compare()


def test_every_value_of_a_reference_is_edited(milan: Platform) -> None:
    names: set[str] = set()

    @settings(max_examples=300, database=None)
    @given(edits=_edits(milan))
    def collect(edits: dict[str, Any]) -> None:
        names.update(edits)

    collect()
    assert names == {*GuestReference._fields} - {"name"}


def test_a_tightened_list_rule_counts_only_for_what_was_tolerated(milan: Platform) -> None:
    evidence, endorsements = _evidence(milan, "ordinary")
    for lists, tolerated in (("fresh", ()), ("missing", ("crl/present",)), ("stale", ("crl/fresh",))):
        result = milan.appraise(evidence, endorsements.leaf, crls=_crls(milan, lists), expectation=Expectation(WIDEST))
        attested = AttestedReport.of(evidence, endorsements, result)
        assert attested.tolerated == tolerated
        assert reappraise(attested, milan.anchors, WIDEST._replace(revocation=REQUIRE_CRL), None) == tolerated


def test_a_root_that_is_not_trusted_any_more_fails(milan: Platform, platform_of: Any) -> None:
    evidence, endorsements = _evidence(milan, "ordinary")
    attested = AttestedReport.of(
        evidence, endorsements, milan.appraise(evidence, endorsements.leaf, expectation=Expectation(WIDEST))
    )
    assert "product/line" in reappraise(attested, platform_of("Genoa").anchors, WIDEST, None)


def test_it_survives_storage_and_refuses_what_it_has_not_written(milan: Platform) -> None:
    for name in REPORTS:
        evidence, endorsements = _evidence(milan, name)
        result = milan.appraise(evidence, endorsements.leaf, expectation=Expectation(WIDEST))
        attested = AttestedReport.of(evidence, endorsements, result)
        stored = json.loads(json.dumps(attested.as_dict()))
        assert AttestedReport.from_dict(stored) == attested
        assert attested.report.signed == evidence.report.signed
        for spoilt in (
            {},
            stored | {"signed": "00"},
            stored | {"signed": 1},
            stored | {"serials": ["1"]},
            stored | {"serials": ["1", "x"]},
            stored | {"tolerated": None},
        ):
            with pytest.raises((KeyError, TypeError, ValueError, FormatError)):
                AttestedReport.from_dict(spoilt)


def test_a_refused_result_attests_nothing(milan: Platform) -> None:
    evidence, endorsements = _evidence(milan, "ordinary")
    result = milan.appraise(evidence, endorsements.leaf, crls=(), expectation=Expectation())
    with pytest.raises(ValueError, match="nothing was attested"):
        AttestedReport.of(evidence, endorsements, result)
