"""Every real vector, positive and negative, appraised with the expected result. tests/support/vectors.py has them."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from attestation.appraisal.appraise import Expectation
from attestation.pki.certificates import is_signed_by, parse_certificate
from attestation.pki.endorsements import Endorsements, guest_supplied
from attestation.report.abi import SIGNED_SIZE, encode_report, parse_report
from attestation.report.envelopes import Envelope, from_coco, from_configfs, from_ioctl
from attestation.report.products import MILAN, TURIN
from attestation.report.tcb import decode_tcb
from kbs.reference_values import REQUIRE_CRL, SOFT_CRL
from tests.attestation.reports import field_values, guest_reference
from tests.support.vectors import PACKAGES, check

# id -> line, version, POLICY, PLATFORM_INFO, VMPL, CURRENT, COMMITTED, LAUNCH, REPORTED, firmware.
TABLE = {
    "genoa-v2-vmpl1-sevattesttool": ("Genoa", 2, 0x30000, 0x1, 1, *["0700000000000b3e"] * 4, "1.54.6"),
    "genoa-v3-coco-aa-json-trustee": ("Genoa", 3, 0x30000, 0x25, 0, *["0a00000000001719"] * 4, "1.55.40"),
    "genoa-v3-configfs-tsm-veraison": ("Genoa", 3, 0x30000, 0x25, 0, *["0a00000000001754"] * 4, "1.55.40"),
    "genoa-v3-routex": ("Genoa", 3, 0x30000, 0x25, 0, *["0900000000001748"] * 4, "1.55.39"),
    "genoa-v5-routex": ("Genoa", 5, 0x30000, 0x25, 0, *["0a00000000001b58"] * 4, "1.55.49"),
    "milan-v2-aci-hostdata-skr": ("Milan", 2, 0x3001F, 0x1, 0, *["0300000000000873"] * 4, "1.52.4"),
    "milan-v2-azure-trustee": (
        "Milan", 2, 0x3001F, 0x1, 0, "03000000000008ce", *["0300000000000873"] * 3, "1.52.4",
    ),
    "milan-v2-debug-gosevguest": ("Milan", 2, 0xB0000, 0x1, 0, *["0200000000000544"] * 4, "1.49.3"),
    "milan-v2-idblock-authorkey-steward": ("Milan", 2, 0x30133, 0x1, 0, *["020000000000065d"] * 4, "1.51.3"),
    "milan-v2-virtee": ("Milan", 2, 0x30000, 0x1, 0, *["0300000000000873"] * 4, "1.52.4"),
    "milan-v3-routex": ("Milan", 3, 0x30000, 0x25, 0, *["04000000000018db"] * 4, "1.55.29"),
    "milan-v3-vlek-aws-trustee": (
        "Milan", 3, 0x30000, 0x27, 1, "04000000000018dc", "04000000000018db", "04000000000018db", "04000000000018d9",
        "1.55.29",
    ),
    "turin-v5-routex": ("Turin", 5, 0x30000, 0x67, 0, *["0001000200000047"] * 4, "1.55.61"),
}  # fmt: skip
# The newest report of each line, then the one of a public package.
ONE_PER_LINE = {
    "Milan": ("milan-v3-routex", "milan-v2-virtee"),
    "Genoa": ("genoa-v5-routex", "genoa-v2-vmpl1-sevattesttool"),
    "Turin": ("turin-v5-routex",),
}
DEBUG = "milan-v2-debug-gosevguest"
VLEK = "milan-v3-vlek-aws-trustee"
AZURE = "milan-v2-azure-trustee"
VMPL_1 = "genoa-v2-vmpl1-sevattesttool"
TURIN_LEAF = "turin-leaf-virtee"
# Reports beside a host's certificate table: ARK, ASK and VCEK in PEM.
WITH_TABLE = ("genoa-v3-configfs-tsm-veraison", "milan-v2-virtee")


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_package_with_other_content_is_refused(package):
    check(package, package.checksum)
    with pytest.raises(ValueError, match="has checksum 0000, required"):
        check(package, "0000")


@pytest.mark.parametrize("identifier", TABLE)
def test_reads_as_the_tables_say(vectors, identifier):
    raw = vectors.report(identifier)
    line, version, policy, platform, vmpl, current, committed, launch, reported, firmware = TABLE[identifier]
    report = parse_report(raw)
    assert (report.version, report.policy, report.platform_info, report.vmpl) == (version, policy, platform, vmpl)
    tcbs = (report.current_tcb, report.committed_tcb, report.launch_tcb, report.reported_tcb)
    assert [tcb.hex() for tcb in tcbs] == [current, committed, launch, reported]
    assert str(report.current_firmware) == firmware
    assert encode_report(field_values(report)) == raw
    assert report.signed == raw[:SIGNED_SIZE]
    assert vectors.appraise(raw, vectors.leaf(identifier)).product == line


@pytest.mark.parametrize("identifier", [name for name in TABLE if name != DEBUG])
def test_authentic(vectors, identifier):
    result = vectors.appraise(vectors.report(identifier), vectors.leaf(identifier))
    assert result.accepted, result.explain()
    assert not result.simulated
    assert "authenticity only" in result.summary()


def test_debug_guest_is_refused_for_nothing_else(vectors, failed):
    assert failed(vectors.appraise(vectors.report(DEBUG), vectors.leaf(DEBUG))) == ["policy/debug"]


def test_turin_tcb_components(vectors):
    report = parse_report(vectors.report("turin-v5-routex"))
    assert decode_tcb(report.reported_tcb, "turin").as_dict() == {
        "fmc": 0, "bootloader": 1, "tee": 0, "snp": 2, "microcode": 0x47,
    }  # fmt: skip


def test_mitigation_vectors_of_version_5(vectors):
    report = parse_report(vectors.report("genoa-v5-routex"))
    assert (report.launch_mit_vector, report.current_mit_vector) == (0xB, 0xB)


def test_without_its_certificate(vectors, failed):
    result = vectors.appraise(vectors.report(vectors.first("genoa-v2-novcek-routex", VMPL_1)), None)
    assert "certificates/leaf" in failed(result)
    states = {check.id: check.ok for check in result.checks}
    assert states["signature/report"] is None
    assert states["policy/debug"] is True


def test_ioctl_response(vectors):
    evidence = from_ioctl(vectors.read("reports/ioctl-snp_report_resp-lit/snp_report_resp.bin"))
    report = evidence.report
    assert (str(report.current_firmware), str(report.committed_firmware)) == ("1.51.3", "1.49.6")
    assert decode_tcb(report.current_tcb, "milan").snp > decode_tcb(report.committed_tcb, "milan").snp
    assert evidence.envelope is Envelope.IOCTL


def test_coco_json_is_the_signed_bytes(vectors):
    evidence = from_coco(vectors.read("reports/genoa-v3-coco-aa-json-trustee/evidence.json"))
    assert evidence.report.raw == vectors.report("genoa-v3-coco-aa-json-trustee")
    given = guest_supplied(evidence)
    assert given.leaf == vectors.leaf("genoa-v3-coco-aa-json-trustee")
    assert vectors.appraise(evidence, given.leaf).accepted


def test_json_of_the_sev_crate_is_the_signed_bytes(vectors):
    written = json.loads(vectors.read(f"reports/{VMPL_1}/report.json"))
    evidence = from_coco(json.dumps({"attestation_report": written}).encode())
    assert evidence.report.raw == vectors.report(VMPL_1)
    assert vectors.appraise(evidence, vectors.leaf(VMPL_1)).accepted


def test_configfs_table_holds_pem_and_its_root_is_ignored(vectors):
    name = vectors.first(*WITH_TABLE)
    evidence = from_configfs(vectors.report(name), vectors.read(f"reports/{name}/auxblob.bin"))
    assert [entry.kind for entry in evidence.certificates] == ["ARK", "ASK", "VCEK"]
    given = guest_supplied(evidence)
    assert given.leaf == vectors.leaf(name)
    assert [certificate.subject_name for certificate in given.intermediates] == [f"SEV-{TABLE[name][0]}"]
    assert vectors.appraise(evidence, given.leaf, certificates=given.intermediates).accepted


def test_host_data_preimage(vectors):
    name = "milan-v2-aci-hostdata-skr"
    digest = hashlib.sha256(base64.b64decode(vectors.read(f"reports/{name}/host_data_preimage.base64"))).digest()
    expectation = Expectation(host_data=frozenset({digest}), revocation=SOFT_CRL)
    assert vectors.appraise(vectors.report(name), vectors.leaf(name), expectation=expectation).accepted


@pytest.mark.parametrize("name", ["legacy.der", "new.der"])
def test_synthetic_certificates_parse_and_are_refused(vectors, failed, name):
    leaf = vectors.leaf("synthetic-leaves", name)
    assert leaf.vek.hwid == bytes(range(64))
    reasons = failed(vectors.appraise(vectors.report(vectors.first(AZURE, "milan-v2-virtee")), leaf))
    assert {"chain/leaf", "signature/report", "leaf/chip-id"} <= set(reasons)
    for issuer in vectors.certificates:
        assert not is_signed_by(leaf.tbs, leaf.signature, issuer)


@pytest.mark.parametrize("identifier", TABLE)
def test_every_other_leaf_is_refused(vectors, failed, identifier):
    report = vectors.report(identifier)
    others = [name for name in (*TABLE, TURIN_LEAF) if name != identifier and vectors.store.has(f"reports/{name}")]
    for other in others:
        assert "signature/report" in failed(vectors.appraise(report, vectors.leaf(other)))


def test_a_genuine_leaf_of_another_chip_is_refused(vectors, failed):
    name = "milan-v2-azure-hcl"
    result = vectors.appraise(vectors.report(name), vectors.leaf(name, "foreign.der"))
    assert failed(result) == ["leaf/chip-id", "signature/report"]


@pytest.mark.parametrize("identifier", [*TABLE, TURIN_LEAF])
def test_a_leaf_has_one_issuer(vectors, identifier):
    leaf = vectors.leaf(identifier)
    signers = {c.sha256 for c in vectors.certificates if is_signed_by(leaf.tbs, leaf.signature, c)}
    assert len(signers) == 1


def test_old_genoa_ask_is_genuine_and_revoked(vectors):
    revoked = parse_certificate(vectors.read("roots/genoa_ask_serial131073_revoked.der"))
    crl = vectors.crl("genoa_vcek.crl.der")
    ark = vectors.anchors.certificates["Genoa"]
    assert is_signed_by(revoked.tbs, revoked.signature, ark)
    assert revoked.serial in crl.serials
    assert is_signed_by(crl.tbs, crl.signature, ark)
    today = next(c for c in vectors.certificates if c.serial == 131074)
    assert not is_signed_by(crl.tbs, crl.signature, today)
    assert today.serial not in crl.serials


def test_revoked_ask_and_its_successor_share_a_name(vectors):
    leaf = vectors.leaf("genoa-v3-routex")
    revoked = parse_certificate(vectors.read("roots/genoa_ask_serial131073_revoked.der"))
    for order in ((revoked, *vectors.certificates), (*vectors.certificates, revoked)):
        assert Endorsements(leaf, order).issuer_of_leaf().serial == 131074
    result = vectors.appraise(
        vectors.report("genoa-v3-routex"), leaf, certificates=(revoked,), crls=(vectors.crl("genoa_vcek.crl.der"),)
    )
    states = {check.id: check.ok for check in result.checks}
    assert states["crl/intermediate"] is False
    assert states["chain/intermediate"] is True
    assert states["chain/leaf"] is False


@pytest.mark.parametrize(("line", "name"), [("genoa-v3-routex", "genoa_vcek"), ("milan-v3-routex", "milan_vcek")])
def test_real_crl_then_and_now(vectors, failed, line, name):
    crl = vectors.crl(f"{name}.crl.der")
    required = Expectation(revocation=REQUIRE_CRL)
    stale = vectors.appraise(vectors.report(line), vectors.leaf(line), crls=(crl,), expectation=required)
    assert failed(stale) == ["crl/fresh"]
    then = vectors.appraise(
        vectors.report(line),
        vectors.leaf(line),
        crls=(crl,),
        expectation=required,
        now=crl.this_update + timedelta(days=1),
    )
    assert failed(then) == ["validity/leaf"]  # the leaf was made later
    assert failed(vectors.appraise(vectors.report(line), vectors.leaf(line), expectation=required)) == ["crl/present"]


def test_expired_vlek(vectors, failed):
    now = datetime(2025, 12, 11, tzinfo=UTC)
    assert failed(vectors.appraise(vectors.report(VLEK), vectors.leaf(VLEK), now=now)) == ["validity/leaf"]


def test_swapped_root_is_refused(vectors, milan, failed):
    name = vectors.first(*ONE_PER_LINE["Milan"])
    anchors = type(vectors.anchors)(certificates={**vectors.anchors.certificates, "Milan": milan.ark})
    result = vectors.appraise(vectors.report(name), vectors.leaf(name), anchors=anchors)
    assert "chain/anchor" in failed(result)
    assert not result.simulated


def test_a_self_made_chain_is_refused_under_amds_pins(vectors, milan, failed):
    leaf, key = milan.leaf()
    anchors = type(vectors.anchors)(certificates={"Milan": milan.ark})
    result = milan.appraise(milan.report(key), leaf, anchors=anchors)
    assert failed(result) == ["chain/anchor"]


def test_turin_tcb_in_the_milan_layout_is_another_tcb(vectors):
    leaf, report = vectors.leaf("turin-v5-routex"), parse_report(vectors.report("turin-v5-routex"))
    assert leaf.vek.tcb(MILAN) is None
    assert leaf.vek.tcb(TURIN) != decode_tcb(report.reported_tcb, "milan")
    assert decode_tcb(report.reported_tcb, "milan").snp == 0


@pytest.mark.parametrize("identifier", ["turin-v5-routex", TURIN_LEAF])
def test_a_turin_leaf_names_eight_bytes_of_its_chip_and_an_fmc_version(vectors, identifier):
    leaf = vectors.leaf(identifier)
    assert len(leaf.vek.hwid) == 8
    assert leaf.vek.tcb(MILAN) is None
    assert leaf.vek.tcb(TURIN).fmc is not None


def test_turin_hwid_has_eight_bytes(vectors):
    leaf, report = vectors.leaf("turin-v5-routex"), parse_report(vectors.report("turin-v5-routex"))
    assert len(leaf.vek.hwid) == 8
    assert report.chip_id == leaf.vek.hwid + bytes(56)
    check = {c.id: c for c in vectors.appraise(report.raw, leaf).checks}["leaf/chip-id"]
    assert check.ok
    assert "8 bytes" in check.required


@pytest.mark.parametrize("offset", range(0x1F8, 0x208))
def test_mitigation_bytes_are_signed(vectors, failed, offset):
    name = vectors.first("genoa-v5-routex", VMPL_1)
    raw = bytearray(vectors.report(name))
    raw[offset] ^= 1
    # Before version 5 they are reserved as well.
    also = [] if TABLE[name][1] == 5 else ["report/reserved"]
    assert failed(vectors.appraise(bytes(raw), vectors.leaf(name))) == [*also, "signature/report"]


def test_vlek_presented_as_vcek(vectors, failed):
    raw = bytearray(vectors.report(VLEK))
    raw[0x48] &= ~0b11100  # SIGNING_KEY = VCEK
    assert set(failed(vectors.appraise(bytes(raw), vectors.leaf(VLEK)))) == {
        "leaf/type", "leaf/extensions", "signature/report",
    }  # fmt: skip


@pytest.mark.parametrize("identifier", TABLE)
def test_one_bit_of_report_data(vectors, failed, identifier):
    raw = bytearray(vectors.report(identifier))
    raw[0x50] ^= 1
    assert "signature/report" in failed(vectors.appraise(bytes(raw), vectors.leaf(identifier)))


@pytest.mark.parametrize("line", ONE_PER_LINE)
def test_every_bit_of_the_signed_part(vectors, line):
    """All 5,376 flips against the signature itself; the appraisal as a whole on one bit of each byte, below."""
    identifier = vectors.first(*ONE_PER_LINE[line])
    report, key = parse_report(vectors.report(identifier)), vectors.leaf(identifier).key
    values = (int.from_bytes(value, "little") for value in (report.signature_r, report.signature_s))
    signature, algorithm = encode_dss_signature(*values), ec.ECDSA(hashes.SHA384())
    key.verify(signature, report.signed, algorithm)
    for bit in range(8 * SIGNED_SIZE):
        changed = bytearray(report.signed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidSignature):
            key.verify(signature, bytes(changed), algorithm)


@pytest.mark.parametrize("line", ONE_PER_LINE)
def test_one_bit_of_every_byte_through_the_appraisal(vectors, line):
    identifier = vectors.first(*ONE_PER_LINE[line])
    raw, leaf = vectors.report(identifier), vectors.leaf(identifier)
    for offset in range(SIGNED_SIZE):
        changed = bytearray(raw)
        changed[offset] ^= 1 << offset % 8
        if changed[0] < 2 and not any(changed[1:4]):
            continue  # a version that cannot be parsed, covered with the parser
        result = vectors.appraise(bytes(changed), leaf)
        assert not result.accepted, hex(offset)
        assert {check.id: check.ok for check in result.checks}["signature/report"] is not True, hex(offset)


@pytest.mark.parametrize("line", ONE_PER_LINE)
def test_every_byte_of_the_signature(vectors, line):
    identifier = vectors.first(*ONE_PER_LINE[line])
    raw, leaf = vectors.report(identifier), vectors.leaf(identifier)
    for offset in range(SIGNED_SIZE, len(raw)):
        changed = bytearray(raw)
        changed[offset] ^= 0x10
        assert not vectors.appraise(bytes(changed), leaf).accepted, hex(offset)


# What a policy has to say for these to pass.
OLD_REPORTS = {"milan-v2-virtee": {"versions": {"min": 2}}, VMPL_1: {"versions": {"min": 2}, "vmpl": 1}}


def policy(vectors, identifier, **changes):
    report = parse_report(vectors.report(identifier))
    line = TABLE[identifier][0]
    layout = "turin" if line == "Turin" else "milan"
    entry = {
        "product": line,
        "measurements": [report.measurement.hex()],
        "minTcb": decode_tcb(report.reported_tcb, layout).as_dict(),
        "policy": {"smt": True},
        "vmpl": 0,
        "crl": "soft",
    }
    return Expectation(reference=guest_reference(entry | changes))


@pytest.mark.parametrize(
    "name", ["milan-v3-routex", "genoa-v5-routex", "turin-v5-routex", "genoa-v3-coco-aa-json-trustee", VMPL_1]
)
def test_accepted_under_a_policy(vectors, name):
    expectation = policy(vectors, name, **OLD_REPORTS.get(name, {}))
    result = vectors.appraise(vectors.report(name), vectors.leaf(name), expectation=expectation)
    assert result.accepted, result.explain()
    assert result.reference == "guest"


@pytest.mark.parametrize("name", [name for name in TABLE if TABLE[name][1] == 2 and name != DEBUG])
def test_version_2_needs_to_be_asked_for(vectors, failed, name):
    arguments = (vectors.report(name), vectors.leaf(name))
    vmpl = TABLE[name][4]
    assert failed(vectors.appraise(*arguments, expectation=policy(vectors, name, vmpl=vmpl))) == ["report/version"]
    allowed = policy(vectors, name, vmpl=vmpl, versions={"min": 2})
    assert vectors.appraise(*arguments, expectation=allowed).accepted


def test_vmpl_1_needs_a_policy_that_allows_it(vectors, failed):
    arguments = (vectors.report(VMPL_1), vectors.leaf(VMPL_1))
    version = {"versions": {"min": 2}}
    assert failed(vectors.appraise(*arguments, expectation=policy(vectors, VMPL_1, **version))) == ["guest/vmpl"]
    assert vectors.appraise(*arguments, expectation=policy(vectors, VMPL_1, vmpl=[0, 1], **version)).accepted


def test_vlek_of_vmpl_1(vectors, failed):
    arguments = (vectors.report(VLEK), vectors.leaf(VLEK))
    aws = {"signingKeys": ["VLEK"], "cspIds": ["CN=cc-us-east-2.amazonaws.com"]}
    assert failed(vectors.appraise(*arguments, expectation=policy(vectors, VLEK, **aws))) == ["guest/vmpl"]
    assert vectors.appraise(*arguments, expectation=policy(vectors, VLEK, vmpl=[0, 1], **aws)).accepted
    other = policy(vectors, VLEK, vmpl=1, **(aws | {"cspIds": ["CN=another.example"]}))
    assert failed(vectors.appraise(*arguments, expectation=other)) == ["leaf/provider"]
    vcek_only = policy(vectors, VLEK, vmpl=1, signingKeys=["VCEK"])
    assert "report/signing-key" in failed(vectors.appraise(*arguments, expectation=vcek_only))


def test_provisional_firmware_on_azure(vectors, failed):
    arguments = (vectors.report(AZURE), vectors.leaf(AZURE))
    strict = policy(vectors, AZURE, versions={"min": 2}, provisionalFirmware=False)
    assert failed(vectors.appraise(*arguments, expectation=strict)) == ["tcb/provisional"]
    assert vectors.appraise(*arguments, expectation=policy(vectors, AZURE, versions={"min": 2})).accepted


def test_author_key(vectors, failed):
    name = "milan-v2-idblock-authorkey-steward"
    report = parse_report(vectors.report(name))
    keys = {"idKeys": [report.id_key_digest.hex()], "authorKeys": [report.author_key_digest.hex()]}
    arguments = (report.raw, vectors.leaf(name))
    expectation = policy(
        vectors, name, versions={"min": 2}, measurements=[], minGuestSvn=0, policy={"minAbi": "1.51"}, **keys
    )
    assert vectors.appraise(*arguments, expectation=expectation).accepted
    other = policy(vectors, name, versions={"min": 2}, policy={"minAbi": "1.52"}, authorKeys=["00" * 48])
    assert failed(vectors.appraise(*arguments, expectation=other)) == ["policy/abi", "guest/author-key"]


@pytest.mark.parametrize("line", ONE_PER_LINE)
def test_every_component_of_the_floor(vectors, failed, line):
    identifier = vectors.first(*ONE_PER_LINE[line])
    layout = "turin" if identifier.startswith("turin") else "milan"
    tcb = decode_tcb(parse_report(vectors.report(identifier)).reported_tcb, layout).as_dict()
    for component in tcb:
        floor = tcb | {component: tcb[component] + 1}
        result = vectors.appraise(
            vectors.report(identifier),
            vectors.leaf(identifier),
            expectation=policy(vectors, identifier, minTcb=floor, **OLD_REPORTS.get(identifier, {})),
        )
        assert failed(result) == ["tcb/reported-floor", "tcb/committed-floor", "tcb/launch-floor"]
