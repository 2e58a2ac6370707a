"""Each check on reference values: it holds, and it fails alone when its one property is wrong."""

from __future__ import annotations

import hashlib

import pytest

from attestation.appraisal.appraise import Expectation
from attestation.appraisal.checks import CHECKS
from attestation.errors import FormatError
from attestation.report.abi import parse_report
from attestation.report.envelopes import Envelope, Evidence
from attestation.report.report_data import accepted, ascii_encoded, padded
from kbs.reference_values import REQUIRE_CRL, SOFT_CRL
from tests.attestation.reports import guest_reference

MEASUREMENT, HOST_DATA = b"m" * 48, b"h" * 32
ID_KEY, AUTHOR_KEY = b"i" * 48, b"a" * 48
TCB = {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}


def reference(**changes):
    entry = {"product": "Milan", "measurements": [MEASUREMENT.hex()], "minTcb": TCB, "policy": {}, "vmpl": 0}
    return Expectation(reference=guest_reference(entry | changes))


def tcb(**changes):
    values = TCB | changes
    return bytes([values["bootloader"], values["tee"], 0, 0, 0, 0, values["snp"], values["microcode"]])


@pytest.fixture(scope="module")
def leaf_and_key(milan):
    return milan.leaf()


@pytest.fixture(scope="module")
def appraise_own(milan, leaf_and_key):
    leaf, key = leaf_and_key

    def run(expectation=None, **bent):
        return milan.appraise(milan.report(key, **bent), leaf, expectation=expectation or reference())

    return run


def test_the_plain_guest(appraise_own):
    result = appraise_own()
    assert result.accepted, result.explain()


# id -> (what the report says, what the reference values add); with only the first of the two the check must fail,
# and with `good` beside it must hold.
REFUSED = {
    "report/version": ({"version": 2, "cpuid_fam_id": 0, "cpuid_mod_id": 0, "cpuid_step": 0}, {}),
    "report/signature-algorithm": ({"signature_algo": 2}, {}),
    "report/requester": ({"vmpl": 0xFFFFFFFF}, {}),
    "report/migration-agent": ({"report_id_ma": bytes(32)}, {}),
    "report/chip-key": ({"key_info": 2}, {}),
    "report/signing-key": ({"key_info": 7 << 2}, {}),
    "product/reference": ({}, {"product": "Genoa"}),
    "tcb/reported-current": ({"current_tcb": tcb(snp=7)}, {}),
    "tcb/committed-current": ({"committed_tcb": tcb(microcode=200)}, {}),
    "tcb/provisional": ({"current_tcb": tcb(snp=9)}, {"provisionalFirmware": False}),
    "tcb/reported-floor": ({}, {"minTcb": TCB | {"snp": 9}}),
    "tcb/committed-floor": ({"committed_tcb": tcb(bootloader=2, microcode=115)}, {}),
    "tcb/launch-floor": ({"launch_tcb": tcb(snp=7, microcode=255)}, {}),
    "firmware/current": ({"current_build": 39, "committed_build": 255}, {"minFirmware": "1.55.40"}),
    "firmware/committed": ({"committed_minor": 54, "committed_build": 255}, {"minFirmware": "1.55.40"}),
    "policy/reserved": ({"policy": 0x10000}, {}),
    "policy/debug": ({"policy": 0xB0000}, {}),
    "policy/exact": ({"policy": 0x30001}, {"policy": "0x30000"}),
    "policy/migrate-ma": ({"policy": 0x70000}, {}),
    "policy/smt": ({}, {"policy": {"smt": False}}),
    "policy/cxl": ({"policy": 0x230000}, {}),
    "policy/single-socket": ({}, {"policy": {"singleSocket": True}}),
    "policy/aes-256-xts": ({}, {"policy": {"memAes256Xts": True}}),
    "policy/rapl": ({}, {"policy": {"raplDis": True}}),
    "policy/ciphertext-hiding": ({}, {"policy": {"ciphertextHidingDram": True}}),
    "policy/page-swap": ({}, {"policy": {"pageSwapDisable": True}}),
    "policy/abi": ({"policy": 0x301FF}, {"policy": {"minAbi": "2.0"}}),
    "platform/required": ({"platform_info": 0x5}, {"platformInfo": {"require": ["ALIAS_CHECK_COMPLETE"]}}),
    "platform/forbidden": ({}, {"platformInfo": {"forbid": ["SMT_EN"]}}),
    "mitigation/launch": ({"version": 5, "launch_mit_vector": 0xA}, {"mitigations": {"launch": 0xB}}),
    "mitigation/current": ({"version": 5, "current_mit_vector": 0x3}, {"mitigations": {"current": 4}}),
    "guest/vmpl": ({"vmpl": 1}, {}),
    "guest/measurement": ({"measurement": b"x" * 48}, {}),
    "guest/host-data": ({}, {"hostData": ["00" * 32]}),
    "guest/id-key": ({"id_key_digest": AUTHOR_KEY}, {"idKeys": [ID_KEY.hex()]}),
    "guest/author-key": ({"author_key_digest": AUTHOR_KEY}, {"authorKeys": [AUTHOR_KEY.hex()]}),  # AUTHOR_KEY_EN=0
    "guest/family-id": ({}, {"familyId": "01" * 16}),
    "guest/image-id": ({}, {"imageId": "01" * 16}),
    "guest/svn": ({"guest_svn": 6}, {"minGuestSvn": 7}),
    "guest/chip-id": ({}, {"chipIds": ["01" * 64]}),
}
ACCEPTED = {
    "report/version 2": (
        {"version": 2, "cpuid_fam_id": 0, "cpuid_mod_id": 0, "cpuid_step": 0},
        {"versions": {"min": 2}},
    ),
    "report/version 4": ({"version": 4}, {}),
    "report/migration-agent": ({"report_id_ma": bytes(32), "policy": 0x70000}, {"policy": {"migrateMa": True}}),
    "tcb/provisional": ({"current_tcb": tcb(snp=9)}, {}),
    "tcb floors apart": ({"launch_tcb": tcb(snp=7)}, {"minLaunchTcb": TCB | {"snp": 7}}),
    "firmware": ({}, {"minFirmware": "1.55.40"}),
    "firmware newer": ({"current_major": 2, "current_minor": 0, "committed_major": 2}, {"minFirmware": "1.55.40"}),
    "policy/exact": ({}, {"policy": 0x30000}),
    "policy/smt": ({"policy": 0x20000}, {"policy": {"smt": False}}),
    "policy/cxl": ({"policy": 0x230000}, {"policy": {"cxlAllow": True}}),
    "policy bits": (
        {"policy": 0x3D30000},
        {
            "policy": {
                "singleSocket": True,
                "memAes256Xts": True,
                "raplDis": True,
                "ciphertextHidingDram": True,
                "pageSwapDisable": True,
            }
        },
    ),
    "policy/abi": ({"policy": 0x30200}, {"policy": {"minAbi": "1.55"}}),
    "platform": ({"platform_info": 0x65}, {"platformInfo": {"require": 0x20, "forbid": ["TSME_EN"]}}),
    "mitigations": (
        {"version": 5, "launch_mit_vector": 0xF, "current_mit_vector": 0xB},
        {"mitigations": {"launch": "0xb", "current": 0xB}},
    ),
    "vmpl": ({"vmpl": 2}, {"vmpl": [0, 2]}),
    "measurements": ({"measurement": b"x" * 48}, {"measurements": [MEASUREMENT.hex(), (b"x" * 48).hex()]}),
    "id key": (
        {"id_key_digest": ID_KEY, "measurement": b"x" * 48},
        {"measurements": [], "idKeys": [ID_KEY.hex()], "minGuestSvn": 0},
    ),
    "author key": ({"author_key_digest": AUTHOR_KEY, "key_info": 1}, {"authorKeys": [AUTHOR_KEY.hex()]}),
    "host data": ({}, {"hostData": ["00" * 32, HOST_DATA.hex()]}),
    "svn": ({"guest_svn": 7}, {"minGuestSvn": 7}),
    "masked": ({"chip_id": bytes(64)}, {"maskedChipId": True}),
}


@pytest.mark.parametrize("identifier", REFUSED)
def test_refused(appraise_own, failed, identifier):
    report, changes = REFUSED[identifier]
    reasons = failed(appraise_own(reference(**changes), **report))
    assert identifier in reasons
    also = {
        "report/requester": {"guest/vmpl"},
        "tcb/reported-current": {"tcb/committed-current"},
        "tcb/reported-floor": {"tcb/committed-floor", "tcb/launch-floor"},
        "mitigation/launch": set(),
    }
    assert set(reasons) <= {identifier} | also.get(identifier, set())


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(appraise_own, name):
    report, changes = ACCEPTED[name]
    result = appraise_own(reference(**changes), **report)
    assert result.accepted, [check.line() for check in result.checks if not check.ok]


def test_every_check_has_a_refusal_somewhere(appraise_own):
    """The others are provoked with real vectors and with chains of our own."""
    elsewhere = {
        "report/reserved", "evidence/runtime-data", "product/line", "product/certificate", "certificates/leaf",
        "certificates/intermediate", "certificates/root", "chain/anchor", "chain/root", "chain/intermediate",
        "chain/leaf", "chain/algorithms", "chain/constraints", "validity/leaf", "validity/intermediate",
        "validity/root", "crl/present", "crl/signature", "crl/fresh", "crl/intermediate", "crl/leaf", "leaf/type",
        "leaf/extensions", "leaf/key", "leaf/chip-id", "leaf/provider", "signature/encoding",
        "signature/report", "tcb/certificate", "guest/report-data", "guest/initdata",
    }  # fmt: skip
    assert {unit.id for unit in CHECKS} == elsewhere | set(REFUSED)
    assert len({unit.id for unit in CHECKS}) == len(CHECKS)


def test_a_check_comes_after_what_it_needs():
    seen = set()
    for unit in CHECKS:
        assert set(unit.needs) <= seen, unit.id
        seen.add(unit.id)


@pytest.mark.parametrize("offset", [0x4C, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F])
def test_signed_must_be_zero_bytes(appraise_own, failed, offset):
    assert failed(appraise_own(patch={offset: b"\1"})) == ["report/reserved"]


@pytest.mark.parametrize("version", [2, 3, 4])
def test_mitigation_bytes_before_version_5(appraise_own, failed, version):
    cpuid = {} if version > 2 else {"cpuid_fam_id": 0, "cpuid_mod_id": 0, "cpuid_step": 0}
    result = appraise_own(reference(versions={"min": 2}), version=version, launch_mit_vector=1, **cpuid)
    assert failed(result) == ["report/reserved"]


def test_cpuid_bytes_in_version_2(appraise_own, failed):
    assert failed(appraise_own(reference(versions={"min": 2}), version=2)) == ["report/reserved"]


def test_key_info_reserved_bits(appraise_own, failed):
    assert failed(appraise_own(key_info=1 << 5)) == ["report/reserved"]


def test_bytes_behind_the_signature(milan, leaf_and_key, failed):
    leaf, key = leaf_and_key
    for offset in (0x330, 0x49F):
        raw = bytearray(milan.report(key))
        raw[offset] = 1
        assert failed(milan.appraise(bytes(raw), leaf)) == ["report/reserved"]


def test_a_later_version_may_use_reserved_bytes(appraise_own, failed):
    """No guest entry accepts one."""
    expectation = reference()
    assert appraise_own(
        expectation._replace(reference=expectation.reference._replace(max_version=9)), version=9, patch={0x208: b"\1"}
    ).accepted
    assert failed(appraise_own(version=9)) == ["report/version"]


@pytest.mark.parametrize("key", [2, 3, 4, 5, 6, 7])
def test_other_signing_keys(appraise_own, failed, key):
    result = appraise_own(key_info=key << 2)
    assert failed(result) == ["report/signing-key"]
    states = {check.id: check.ok for check in result.checks}
    assert states["leaf/type"] is None
    assert states["signature/report"] is True


def test_masked_chip_key_leaves_the_signature_unevaluated(appraise_own, failed):
    states = {check.id: check.ok for check in appraise_own(key_info=2).checks}
    assert states["signature/report"] is None


def test_unknown_platform_bits_are_no_failure(appraise_own):
    assert appraise_own(platform_info=1 << 63 | 0x40).accepted


def test_alias_check_is_advised(appraise_own):
    advice = {check.id: check.advice for check in appraise_own(platform_info=0x1).checks}
    assert advice["platform/required"] == "ALIAS_CHECK_COMPLETE is not set"


def test_floors_are_component_wise(appraise_own, failed):
    """As one number, microcode 255 outweighs everything."""
    result = appraise_own(committed_tcb=tcb(bootloader=2, microcode=115))
    assert failed(result) == ["tcb/committed-floor"]


def test_report_data_encodings_are_these_bytes():
    digest = b"\xfb\xff\xbf" * 16
    assert padded(digest) == digest + bytes(16)
    assert ascii_encoded(digest) == b"-_-_" * 16  # base64url, not base64
    for wrong in (b"", digest[:-1], digest + b"\0"):
        with pytest.raises(FormatError, match="required 48"):
            accepted(wrong)


def test_report_data_in_both_encodings(appraise_own, failed):
    digest = hashlib.sha384(b"binding").digest()
    expectation = Expectation(reference=reference().reference, report_data=accepted(digest))
    for encoded in (padded(digest), ascii_encoded(digest)):
        assert len(encoded) == 64
        assert appraise_own(expectation, report_data=encoded).accepted
    standard = ascii_encoded(digest).replace(b"-", b"+").replace(b"_", b"/")
    others = [digest + b"\0" * 15 + b"\1", b"\0" * 16 + digest, digest.hex().encode()[:64], standard, bytes(64)]
    for other in others:
        if other != ascii_encoded(digest):
            assert failed(appraise_own(expectation, report_data=other)) == ["guest/report-data"]


def test_reference_values_decide_on_revocation_before_the_caller(milan, leaf_and_key, failed):
    leaf, key = leaf_and_key
    report = milan.report(key)

    def appraised(crl, caller):
        guest = reference(**({} if crl is None else {"crl": crl})).reference
        return milan.appraise(report, leaf, crls=(), expectation=Expectation(guest, revocation=caller))

    assert appraised("soft", REQUIRE_CRL).accepted
    assert failed(appraised("require", SOFT_CRL)) == ["crl/present"]
    assert appraised(None, SOFT_CRL).accepted
    assert failed(appraised(None, REQUIRE_CRL)) == ["crl/present"]


def test_host_data_of_caller_and_reference_must_both_agree(appraise_own, failed):
    guest = reference(hostData=[HOST_DATA.hex()]).reference
    assert appraise_own(Expectation(guest, host_data=frozenset({HOST_DATA, bytes(32)}))).accepted
    assert failed(appraise_own(Expectation(guest, host_data=frozenset({bytes(32)})))) == ["guest/host-data"]
    assert failed(appraise_own(Expectation(host_data=frozenset()))) == ["guest/host-data"]


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_document_is_the_one_that_the_guest_was_launched_with(appraise_own, failed, algorithm):
    document = b"version = 1"
    report = {"host_data": hashlib.new(algorithm, document).digest()[:32]}
    assert appraise_own(Expectation(initdata=document), **report).accepted
    assert failed(appraise_own(Expectation(initdata=document + b"\n"), **report)) == ["guest/initdata"]
    assert failed(appraise_own(Expectation(initdata=b""), host_data=bytes(32))) == ["guest/initdata"]


def test_azure_envelope_binds_its_runtime_data(milan, leaf_and_key, failed):
    leaf, key = leaf_and_key
    digest = hashlib.sha256(b"claims").digest()
    right = milan.report(key, report_data=digest + bytes(32))
    assert milan.appraise(Evidence(parse_report(right), Envelope.AZURE_HCL, (), digest), leaf).accepted
    for wrong in (digest + b"\1" + bytes(31), bytes(64)):
        evidence = Evidence(parse_report(milan.report(key, report_data=wrong)), Envelope.AZURE_HCL, (), digest)
        assert failed(milan.appraise(evidence, leaf)) == ["evidence/runtime-data"]


def test_the_result_names_the_source(milan, leaf_and_key):
    leaf, key = leaf_and_key
    evidence = Evidence(parse_report(milan.report(key)), Envelope.CONFIGFS_TSM)
    assert milan.appraise(evidence, leaf).source == "configfs-tsm"


def test_all_that_fails_is_reported(appraise_own, failed):
    result = appraise_own(measurement=b"x" * 48, vmpl=1, policy=0xB0000, current_tcb=tcb(snp=1))
    assert set(failed(result)) == {
        "guest/measurement", "guest/vmpl", "policy/debug", "tcb/reported-current", "tcb/committed-current",
    }  # fmt: skip
