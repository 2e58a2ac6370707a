"""Chains of our own, for what no real vector covers. Their root is injected as anchor: all results are `simulated`."""

from __future__ import annotations

import warnings
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.utils import CryptographyDeprecationWarning

from attestation.appraisal.appraise import Expectation
from attestation.errors import CertificateError
from attestation.pki.certificates import parse_certificate
from attestation.pki.endorsements import guest_supplied
from attestation.pki.roots import TrustAnchors, amd_trust_anchors
from attestation.report.abi import parse_report
from attestation.report.certificate_table import TableEntry
from attestation.report.envelopes import Envelope, Evidence, from_raw
from attestation.report.products import MILAN, SIMULATED
from kbs.reference_values import REQUIRE_CRL, SOFT_CRL, GuestReference, RevocationAction, RevocationPolicy, TcbFloor

LINES = ["Milan", "Genoa", "Turin"]


@pytest.mark.parametrize("line", [*LINES, "Simulated"])
@pytest.mark.parametrize("vlek", [False, True])
def test_both_kinds_of_leaf_on_each_line(platform_of, line, vlek):
    platform = platform_of(line)
    leaf, key = platform.leaf(vlek=vlek)
    result = platform.appraise(platform.report(key, vlek=vlek), leaf)
    assert result.accepted, result.explain()
    assert result.product == line
    assert result.simulated
    assert "SIMULATED" in result.summary()


@pytest.mark.parametrize("line", LINES)
def test_leaf_kind_and_signing_key_must_agree(platform_of, failed, line):
    platform = platform_of(line)
    vcek, vcek_key = platform.leaf()
    vlek, vlek_key = platform.leaf(vlek=True)
    as_vlek = platform.appraise(platform.report(vcek_key, vlek=True), vcek)
    assert set(failed(as_vlek)) == {"leaf/type", "leaf/extensions"}
    chip = {"chip_id": platform.chip_id.ljust(64, b"\0")}
    as_vcek = platform.appraise(platform.report(vlek_key, **chip), vlek)
    assert set(failed(as_vcek)) == {"leaf/type", "leaf/extensions"}


def test_vcek_made_by_the_asvk_and_the_reverse(milan, failed):
    """Swapped intermediates: once by name, once by key."""
    leaf, key = milan.leaf(issuer="SEV-VLEK-Milan", signer="asvk")
    assert failed(milan.appraise(milan.report(key), leaf)) == ["leaf/type"]
    leaf, key = milan.leaf(signer="asvk")
    assert failed(milan.appraise(milan.report(key), leaf)) == ["chain/leaf"]
    leaf, key = milan.leaf(vlek=True, issuer="SEV-Milan", signer="ask")
    assert failed(milan.appraise(milan.report(key, vlek=True), leaf)) == ["leaf/type"]
    leaf, key = milan.leaf()
    swapped = milan.authority("SEV-Milan", "ARK-Milan", "asvk", "ark", 65793)
    assert failed(milan.appraise(milan.report(key), leaf, intermediates=(swapped,))) == ["chain/leaf"]
    missing = milan.appraise(milan.report(key), leaf, intermediates=(milan.asvk(),))
    assert failed(missing) == ["certificates/intermediate"]


def test_intermediate_of_another_root(milan, failed):
    leaf, key = milan.leaf()
    stranger = milan.authority("SEV-Milan", "ARK-Milan", "ask", "stranger", 65537)
    assert failed(milan.appraise(milan.report(key), leaf, intermediates=(stranger,))) == ["chain/intermediate"]


def test_leaf_of_another_line(platform_of, milan, failed):
    genoa = platform_of("Genoa")
    leaf, key = genoa.leaf()
    both = TrustAnchors(
        {**milan.anchors.pins, **genoa.anchors.pins}, {**milan.anchors.certificates, **genoa.anchors.certificates}
    )
    result = milan.appraise(milan.report(key), leaf, intermediates=(genoa.ask(), milan.ask()), anchors=both)
    assert {"product/certificate", "leaf/type", "chain/intermediate"} <= set(failed(result))


@pytest.mark.parametrize("product", ["Genoa", "Turin", "", "Milan2"])
def test_product_name_must_agree(milan, failed, product):
    leaf, key = milan.leaf(product=product)
    assert failed(milan.appraise(milan.report(key), leaf)) == ["product/certificate"]


def test_product_stepping_does_not_matter(milan):
    leaf, key = milan.leaf(product="Milan-B0")
    assert milan.appraise(milan.report(key), leaf).accepted


@pytest.mark.parametrize("cpuid", [(0x19, 0x20), (0x1A, 0x50), (0x1A, 0x12), (0x17, 0x31), (0, 0), (0xFF, 0xFF)])
def test_unknown_and_unsupported_processors(milan, failed, cpuid):
    leaf, key = milan.leaf()
    report = milan.report(key, cpuid_fam_id=cpuid[0], cpuid_mod_id=cpuid[1])
    result = milan.appraise(report, leaf)
    assert failed(result)[0] == "product/line"
    assert not result.simulated


def test_venice_is_refused_by_default(platform_of, failed):
    turin = platform_of("Turin")
    leaf, key = turin.leaf(issuer="SEV-Venice", product="Venice")
    anchors = TrustAnchors(
        {**turin.anchors.pins, "Venice": turin.ark.sha256}, {"Venice": turin.ark, "Turin": turin.ark}
    )
    result = turin.appraise(turin.report(key, cpuid_mod_id=0x50), leaf, anchors=anchors)
    assert "product/line" in failed(result)


@pytest.mark.parametrize(("line", "model"), [("Milan", 0x0F), ("Genoa", 0xA0), ("Genoa", 0xAF), ("Turin", 0x11)])
def test_models_of_a_line(platform_of, line, model):
    platform = platform_of(line)
    leaf, key = platform.leaf()
    assert platform.appraise(platform.report(key, cpuid_mod_id=model), leaf).accepted


@pytest.mark.parametrize("salt", [0, 32, 47, 64])
def test_wrong_pss_salt(milan, failed, salt):
    leaf, key = milan.leaf(salt=salt)
    assert set(failed(milan.appraise(milan.report(key), leaf))) == {"chain/leaf", "chain/algorithms"}
    leaf, key = milan.leaf()
    bent = milan.ask(salt=salt)
    result = milan.appraise(milan.report(key), leaf, intermediates=(bent,))
    assert set(failed(result)) == {"chain/intermediate", "chain/algorithms"}
    crl = milan.crl(salt=salt)
    assert "crl/signature" in failed(milan.appraise(milan.report(key), leaf, crls=(crl,)))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()])
def test_wrong_curve(milan, failed, curve):
    leaf, key = milan.leaf(curve=curve)
    result = milan.appraise(milan.report(key), leaf)
    assert "leaf/key" in failed(result)
    assert {check.id: check.ok for check in result.checks}["signature/report"] is None


def test_serial_0_is_read(milan):
    """Canary: every VEK has serial number 0, and the library says that it will stop reading such certificates."""
    leaf, key = milan.leaf()
    assert leaf.serial == 0
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        parse_certificate(milan.leaf()[0].der)
        x509.load_der_x509_certificate(leaf.der)
    assert all(issubclass(each.category, CryptographyDeprecationWarning) for each in seen)
    assert milan.appraise(milan.report(key), leaf).accepted


def test_leaf_with_another_serial(milan):
    leaf, key = milan.leaf(serial=7)
    assert leaf.serial == 7
    assert milan.appraise(milan.report(key), leaf).accepted


def test_revoked_leaf(milan, failed):
    leaf, key = milan.leaf(serial=7)
    assert failed(milan.appraise(milan.report(key), leaf, crls=(milan.crl([7]),))) == ["crl/leaf"]


@pytest.mark.parametrize("policy", [REQUIRE_CRL, SOFT_CRL])
def test_revoked_intermediate_under_any_policy(milan, failed, policy):
    leaf, key = milan.leaf()
    expectation = Expectation(revocation=policy)
    result = milan.appraise(milan.report(key), leaf, crls=(milan.crl([65537]),), expectation=expectation)
    assert failed(result) == ["crl/intermediate"]
    # Once on a list, always: also when a newer list forgets it.
    lists = (milan.crl([65537], since=20), milan.crl())
    assert failed(milan.appraise(milan.report(key), leaf, crls=lists, expectation=expectation)) == ["crl/intermediate"]


def test_revoked_asvk_concerns_vleks_alone(milan, failed):
    leaf, key = milan.leaf(vlek=True)
    crls = (milan.crl(), milan.crl([65793], vlek=True))
    assert failed(milan.appraise(milan.report(key, vlek=True), leaf, crls=crls)) == ["crl/intermediate"]
    leaf, key = milan.leaf()
    assert milan.appraise(milan.report(key), leaf, crls=crls).accepted


@pytest.mark.parametrize("vlek", [False, True])
def test_the_other_kinds_list_says_nothing_about_this_leaf(milan, failed, vlek):
    """Both are the root's. A mirror that withholds one and serves the other twice must not hide a revocation."""
    leaf, key = milan.leaf(vlek=vlek)
    report, other, own = milan.report(key, vlek=vlek), milan.crl(vlek=not vlek), milan.crl(vlek=vlek)
    assert failed(milan.appraise(report, leaf, crls=(other,))) == ["crl/present"]
    assert failed(milan.appraise(report, leaf, crls=(other, milan.crl(since=30, until=-1, vlek=vlek)))) == ["crl/fresh"]
    assert milan.appraise(report, leaf, crls=(other, own)).accepted
    # A revocation counts on whichever list it stands.
    revoked = milan.crl([65793 if vlek else 65537], vlek=not vlek)
    assert failed(milan.appraise(report, leaf, crls=(revoked, own))) == ["crl/intermediate"]


@pytest.mark.parametrize(
    ("providers", "refusal"), [({"CN=test"}, []), ({"CN=other"}, ["leaf/provider"]), (set(), ["leaf/provider"])]
)
def test_a_vlek_of_any_provider_is_not_enough(milan, providers, refusal):
    leaf, key = milan.leaf(vlek=True)
    floor = TcbFloor(3, 0, 8, 115)
    guest = GuestReference("g", "Milan", frozenset({b"m" * 48}), floor, floor, floor)
    guest = guest._replace(signing_keys=frozenset({"VLEK"}), csp_ids=frozenset(providers))
    result = milan.appraise(milan.report(key, vlek=True), leaf, expectation=Expectation(guest))
    assert [check.id for check in result.failed] == refusal
    assert result.claims["snp_csp_id"] == "CN=test"
    vcek, vcek_key = milan.leaf()
    expectation = Expectation(guest._replace(signing_keys=frozenset({"VCEK"})))
    result = milan.appraise(milan.report(vcek_key), vcek, expectation=expectation)
    assert result.accepted
    assert "snp_csp_id" not in result.claims


def test_a_result_says_whether_revocation_was_checked(milan):
    leaf, key = milan.leaf()
    soft = Expectation(revocation=SOFT_CRL)
    for crls, said in (
        ((milan.crl(),), "checked"),
        ((), "unchecked"),
        ((milan.crl(vlek=True),), "unchecked"),
        ((milan.crl(since=30, until=-1),), "unchecked"),
    ):
        result = milan.appraise(milan.report(key), leaf, crls=crls, expectation=soft)
        assert result.accepted
        assert (result.revocation, result.claims["snp_revocation"], result.as_dict()["revocation"]) == (said,) * 3
        assert ("revocation unchecked" in result.summary()) == (said == "unchecked")


def test_stale_and_early_crl(milan, failed):
    leaf, key = milan.leaf()
    soft = Expectation(revocation=RevocationPolicy(stale=RevocationAction.ACCEPT))
    for crl in (milan.crl(since=30, until=-1), milan.crl(since=-1)):
        assert failed(milan.appraise(milan.report(key), leaf, crls=(crl,))) == ["crl/fresh"]
        result = milan.appraise(milan.report(key), leaf, crls=(crl,), expectation=soft)
        assert result.accepted
        assert any(check.advice for check in result.checks)


def test_missing_crl(milan, failed):
    leaf, key = milan.leaf()
    assert failed(milan.appraise(milan.report(key), leaf, crls=())) == ["crl/present"]
    soft = Expectation(revocation=RevocationPolicy(missing=RevocationAction.ACCEPT))
    assert milan.appraise(milan.report(key), leaf, crls=(), expectation=soft).accepted
    foreign = milan.crl(issuer="ARK-Genoa")
    assert failed(milan.appraise(milan.report(key), leaf, crls=(foreign,))) == ["crl/present"]


def test_crl_made_by_the_ask(milan, failed):
    leaf, key = milan.leaf()
    assert failed(milan.appraise(milan.report(key), leaf, crls=(milan.crl(signer="ask"),))) == ["crl/signature"]
    # A forged list beside a good one is not overlooked, and not under the soft policy either.
    both = (milan.crl(), milan.crl(signer="ask"))
    soft = Expectation(revocation=SOFT_CRL)
    assert failed(milan.appraise(milan.report(key), leaf, crls=both, expectation=soft)) == ["crl/signature"]


@pytest.mark.parametrize(
    ("which", "days", "check"),
    [
        ("leaf", 101, "validity/leaf"),
        ("leaf", -101, "validity/leaf"),
        ("ask", 20, "validity/intermediate"),
        ("ask", -20, "validity/intermediate"),
    ],
)
def test_validity(milan, failed, which, days, check):
    leaf, key = milan.leaf()
    ask = milan.ask(since=10, until=10) if which == "ask" else milan.ask()
    soft = Expectation(revocation=SOFT_CRL)
    result = milan.appraise(
        milan.report(key), leaf, intermediates=(ask,), crls=(), now=milan.now + timedelta(days=days), expectation=soft
    )
    assert failed(result) == [check]


@pytest.mark.parametrize("bent", [{"ca": False, "path_length": None}, {"path_length": 1}, {"path_length": None}])
def test_intermediate_constraints(milan, failed, bent):
    leaf, key = milan.leaf()
    assert failed(milan.appraise(milan.report(key), leaf, intermediates=(milan.ask(**bent),))) == ["chain/constraints"]


def test_a_leaf_that_may_issue(milan, failed):
    key = "leaf-that-is-a-ca"
    leaf = milan.authority("SEV-VCEK", "SEV-Milan", key, "ask", 1, path_length=None)
    assert {"chain/constraints", "leaf/key", "leaf/extensions"} <= set(
        failed(milan.appraise(milan.report(milan.leaf()[1]), leaf))
    )


def rooted(milan, root):
    """A genuine guest under another root that is pinned, by the same key."""
    leaf, key = milan.leaf()
    anchors = TrustAnchors({"Milan": root.sha256}, {"Milan": root})
    return milan.appraise(milan.report(key), leaf, anchors=anchors)


def test_root_must_be_self_signed(milan, failed):
    assert failed(rooted(milan, milan.authority("ARK-Milan", "ARK-Milan", "ark", "stranger", 65536))) == ["chain/root"]
    other = milan.authority("ARK-Milan", "ARK-Genoa", "ark", "ark", 65536, path_length=None)
    assert set(failed(rooted(milan, other))) == {"chain/root", "crl/signature"}  # made without cRLSign


def test_root_must_be_valid_and_a_ca(milan, failed):
    expired = milan.authority("ARK-Milan", "ARK-Milan", "ark", "ark", 65536, until=-1)
    assert failed(rooted(milan, expired)) == ["validity/root"]
    no_ca = milan.authority("ARK-Milan", "ARK-Milan", "ark", "ark", 65536, ca=False)
    assert failed(rooted(milan, no_ca)) == ["chain/constraints"]


def test_root_of_another_line(milan, platform_of, failed):
    genoa = platform_of("Genoa")
    leaf, key = milan.leaf()
    anchors = TrustAnchors({"Milan": genoa.ark.sha256}, {"Milan": genoa.ark})
    result = milan.appraise(milan.report(key), leaf, anchors=anchors)
    assert failed(result) == ["certificates/root"]


def test_short_intermediate_key(milan, failed):
    leaf, key = milan.leaf()
    short = rsa.generate_private_key(65537, 2048).public_key()
    result = milan.appraise(milan.report(key), leaf, intermediates=(milan.ask(public_key=short),))
    assert set(failed(result)) == {"chain/leaf", "chain/constraints"}


@pytest.mark.parametrize("line", LINES)
def test_another_chip(platform_of, failed, line):
    platform = platform_of(line)
    leaf, key = platform.leaf()
    for chip in (platform.chip_id[:-1] + b"\xff", b"\xff" + platform.chip_id[1:]):
        assert failed(platform.appraise(platform.report(key, chip_id=chip.ljust(64, b"\0")), leaf)) == ["leaf/chip-id"]


def test_turin_chip_id_beyond_eight_bytes(platform_of, failed):
    turin = platform_of("Turin")
    leaf, key = turin.leaf()
    report = turin.report(key, chip_id=turin.chip_id + bytes(55) + b"\1")
    assert failed(turin.appraise(report, leaf)) == ["leaf/chip-id"]


def test_eight_byte_hwid_on_milan(milan, failed):
    leaf, key = milan.leaf(hwid=b"12345678")
    assert failed(milan.appraise(milan.report(key, chip_id=b"12345678" + bytes(56)), leaf)) == ["leaf/chip-id"]


def test_hwid_as_octet_string(milan):
    leaf, key = milan.leaf(hwid=b"\x04\x40" + milan.chip_id)
    assert milan.appraise(milan.report(key), leaf).accepted


def test_masked_chip_id(milan, failed):
    leaf, key = milan.leaf()
    assert failed(milan.appraise(milan.report(key, chip_id=bytes(64)), leaf)) == ["leaf/chip-id"]


def test_vcek_with_a_csp_and_vlek_with_a_chip(milan, failed):
    leaf, key = milan.leaf(csp=True)
    assert failed(milan.appraise(milan.report(key), leaf)) == ["leaf/extensions"]
    leaf, key = milan.leaf(vlek=True, hwid=milan.chip_id)
    assert failed(milan.appraise(milan.report(key, vlek=True), leaf)) == ["leaf/extensions"]


@pytest.mark.parametrize("subject", ["VCEK", "SEV-VLEK", "SEV-VCEK ", ""])
def test_leaf_name_is_exact(milan, failed, subject):
    if not subject:
        with pytest.raises(ValueError):  # the library writes no empty name
            milan.leaf(subject=subject)
        return
    leaf, key = milan.leaf(subject=subject)
    assert failed(milan.appraise(milan.report(key), leaf)) == ["leaf/type"]


@pytest.mark.parametrize("line", LINES)
def test_certificate_tcb_is_the_reported_one(platform_of, failed, line):
    platform = platform_of(line)
    for component, version in platform.tcb.as_dict().items():
        other = type(platform.tcb)(**(platform.tcb.as_dict() | {component: version + 1}))
        leaf, key = platform.leaf(tcb=other)
        assert failed(platform.appraise(platform.report(key), leaf)) == ["tcb/certificate"]


def test_components_of_another_layout(platform_of, failed):
    milan, turin = platform_of("Milan"), platform_of("Turin")
    leaf, key = milan.leaf(spl={"fmc": 0})
    assert failed(milan.appraise(milan.report(key), leaf)) == ["tcb/certificate"]
    leaf, key = turin.leaf(tcb=milan.tcb)
    assert failed(turin.appraise(turin.report(key), leaf)) == ["tcb/certificate"]
    leaf, key = milan.leaf(spl={"spl5": 1})
    assert failed(milan.appraise(milan.report(key), leaf)) == ["tcb/certificate"]


@pytest.mark.parametrize("value", [0, (1 << 384) - 1, 1 << 384, 1 << 570])
@pytest.mark.parametrize("offset", [0x2A0, 0x2E8])
def test_signature_range(milan, failed, value, offset):
    leaf, key = milan.leaf()
    raw = bytearray(milan.report(key))
    raw[offset : offset + 72] = value.to_bytes(72, "little")
    assert failed(milan.appraise(bytes(raw), leaf)) == ["signature/encoding"]


def test_signature_plus_order_is_no_second_signature(milan, failed):
    from attestation.appraisal.checks.signature import P384_ORDER

    leaf, key = milan.leaf()
    raw = bytearray(milan.report(key))
    s = int.from_bytes(raw[0x2E8:0x330], "little") + P384_ORDER
    raw[0x2E8:0x330] = s.to_bytes(72, "little")
    assert failed(milan.appraise(bytes(raw), leaf)) == ["signature/encoding"]


def test_only_the_operator_names_a_root(milan):
    evidence = Evidence(
        parse_report(bytes([3]) + bytes(1183)),
        Envelope.CONFIGFS_TSM,
        (TableEntry("ARK", milan.ark.der), TableEntry("CRL", milan.crl().der)),
    )
    given = guest_supplied(evidence)
    assert (given.leaf, given.intermediates, given.crls) == (None, (), ())


def test_simulated_line_needs_to_be_trusted(platform_of, failed):
    simulated = platform_of("Simulated")
    leaf, key = simulated.leaf()
    report = simulated.report(key)
    intermediates = (simulated.ask(),)
    soft = Expectation(revocation=SOFT_CRL)
    amd = amd_trust_anchors([])
    result = simulated.appraise(report, leaf, intermediates=intermediates, anchors=amd, expectation=soft)
    assert failed(result)[0] == "product/line"
    told = amd.with_simulated(simulated.ark)
    result = simulated.appraise(report, leaf, intermediates=intermediates, anchors=told, crls=(), expectation=soft)
    assert result.accepted, result.explain()
    assert result.simulated
    assert result.product == SIMULATED.name


def test_simulated_root_cannot_pose_as_amds(milan, platform_of, failed):
    with pytest.raises(CertificateError, match="ARK-Simulated"):
        amd_trust_anchors([]).with_simulated(milan.ark)
    told = amd_trust_anchors([milan.ark]).with_simulated(platform_of("Simulated").ark)
    leaf, key = milan.leaf()
    result = milan.appraise(milan.report(key), leaf, anchors=told)
    assert failed(result) == ["chain/anchor"]
    assert told.pins[MILAN.name] == TrustAnchors().pins[MILAN.name]


def test_naive_time_is_a_mistake_of_the_caller(milan):
    leaf, key = milan.leaf()
    with pytest.raises(ValueError, match="time zone"):
        milan.appraise(from_raw(milan.report(key)), leaf, now=milan.now.replace(tzinfo=None))


def test_names_cannot_forge_log_lines_or_terminal_codes(milan, failed):
    leaf, key = milan.leaf(subject="SEV-VCEK\x1b[32m\nok")
    result = milan.appraise(milan.report(key), leaf)
    assert failed(result) == ["leaf/type"]
    assert all(line.isprintable() for line in result.explain())
    with pytest.raises(CertificateError, match="printable"):
        milan.leaf(product="Mil\x1ban")
