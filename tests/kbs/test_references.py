"""Reference values of the KMS: as JSON, as `verifier.attest` of a plan, and signed."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

from kbs.base64url import encode
from kbs.guest_values import GuestValuesError, read_guest, write_guest
from kbs.reference_values import (
    SOFT_CRL,
    GuestReference,
    RequiredGuestPolicy,
    TcbFloor,
)
from kbs.references import References, ReferencesError, read_references
from kbs.references_signing import signer_of, write_references
from kbs.verifier_attest import (
    KmsGuest,
    PlainReferences,
    SignedReferences,
    VerifierAttest,
    read_verifier_attest,
    write_verifier_attest,
)
from server.guest_entries import GuestEntry
from server.yaml.strict import validate

FLOOR = TcbFloor(3, 0, 8, 115)
PLAIN = GuestReference("kms", "Milan", frozenset({b"m" * 48}), FLOOR, FLOOR, FLOOR, host_data=frozenset({b"h" * 32}))
FULL = GuestReference(
    "kms",
    "Turin",
    frozenset({b"m" * 48, b"n" * 48}),
    TcbFloor(1, 2, 3, 4, 5),
    TcbFloor(2, 2, 3, 4, 5),
    TcbFloor(1, 2, 3, 5, 5),
    RequiredGuestPolicy(smt=False, migrate_ma=True, page_swap_disable=True, min_abi=(1, 51)),
    vmpl=frozenset({2}),
    host_data=frozenset({b"h" * 32, b"i" * 32}),
    id_keys=frozenset({b"k" * 48}),
    author_keys=frozenset({b"a" * 48}),
    family_id=b"f" * 16,
    image_id=b"i" * 16,
    min_guest_svn=7,
    chip_ids=frozenset({b"c" * 64}),
    masked_chip_id=True,
    signing_keys=frozenset({"VCEK", "VLEK"}),
    csp_ids=frozenset({"csp-1"}),
    platform_require=1 << 63 | 32,
    platform_forbid=1,
    launch_mitigations=3,
    current_mitigations=1,
    min_firmware=(1, 55, 40),
    provisional_firmware=False,
    min_version=2,
    max_version=4,
    revocation=SOFT_CRL,
)
EXACT = PLAIN._replace(policy=RequiredGuestPolicy(exact=0x30000))
KMS = write_guest(PLAIN) | {"initdata": "enforced"}
KEY = ECKey.generate_key("P-256")
ISSUE = References(3, (KmsGuest(PLAIN), KmsGuest(FULL._replace(name="kms-2"))), frozenset({b"c" * 32}))


@pytest.mark.parametrize("guest", [PLAIN, FULL, EXACT], ids=["plain", "full", "exact"])
def test_a_guest_is_read_as_it_was_written(guest: GuestReference) -> None:
    document = json.loads(json.dumps(write_guest(guest)))
    assert read_guest("kms", document) == guest
    # The form rests on no default of the type: a field that were left out of it would not come back.
    assert len(write_guest(FULL)) == 23


def test_an_operators_entry_and_what_is_made_of_it_mean_the_same() -> None:
    entry = {
        "product": "Milan",
        "measurements": ["6d" * 48],
        "minTcb": {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115},
        "policy": {"minAbi": "1.51", "smt": False},
        "vmpl": 1,
        "hostData": ["68" * 32],
        "chipIds": ["63" * 64],
        "platformInfo": {"require": ["ALIAS_CHECK_COMPLETE"]},
        "mitigations": {"launch": 3},
        "minFirmware": "1.55.40",
        "crl": "soft",
    }
    reference = validate(entry, GuestEntry, name="guest").reference("kms")
    assert read_guest("kms", write_guest(reference)) == reference


@pytest.mark.parametrize(
    ("member", "value", "problem"),
    [
        ("product", "Rome", "kms.product: not one of"),
        ("product", ["Milan"], "kms.product: not one of"),
        ("measurements", [], "kms.measurements: not a list"),
        ("measurements", ["00" * 47], "96 lower-case hexadecimal"),
        ("measurements", ["AA" * 48], "96 lower-case hexadecimal"),
        ("measurements", ["0 " * 48], "96 lower-case hexadecimal"),
        ("measurements", ["00" * 48, "00" * 48], "twice"),
        ("minTcb", {"bootloader": 0, "tee": 0, "snp": 0, "microcode": 0}, "any firmware"),
        ("minTcb", {"bootloader": 1, "tee": 0, "snp": 0}, "microcode: missing"),
        ("minTcb", {"bootloader": 1, "tee": 0, "snp": 0, "microcode": 256}, "8 bits"),
        ("minTcb", {"fmc": 1, "bootloader": 1, "tee": 0, "snp": 0, "microcode": 0}, "unknown member 'fmc'"),
        ("policy", None, "policy: not a mask"),
        ("policy", 0x30000, "policy: not a mask"),
        ("policy", "0x00030000", "policy: not a mask"),
        ("policy", "0x1" + "0" * 16, "policy: not a mask"),
        ("policy", {"debug": True}, "unknown member 'debug'"),
        ("policy", "0xb0000", "DEBUG is set"),
        ("policy", {"smt": 1}, "neither true nor false"),
        ("policy", {"minAbi": [1]}, "list of 2 numbers"),
        ("vmpl", 0, "vmpl: not a list"),
        ("vmpl", [4], "2 bits"),
        ("vmpl", [True], "2 bits"),
        ("hostData", [], "hostData: not a list"),
        ("hostData", None, "hostData: not a list"),
        ("signingKeys", ["VLEK"], "cspIds: required"),
        ("signingKeys", ["VCEK", "root"], "VCEK and VLEK"),
        ("versions", {"min": 3, "max": 6}, "from 2 to 5"),
        ("crl", "soft", "not an object"),
        ("crl", {"missing": "accept", "stale": "ignore"}, "refuse nor accept"),
        ("maskedChipID", True, "unknown member 'maskedChipID'"),
        ("x" * 500, 1, "unknown member"),
    ],
)
def test_values_that_are_not_a_guests(member: str, value: object, problem: str) -> None:
    with pytest.raises(GuestValuesError) as refused:
        read_guest("kms", write_guest(PLAIN) | {member: value})
    assert problem in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("member", ["product", "measurements", "minTcb", "policy", "vmpl"])
def test_what_a_guest_cannot_leave_out(member: str) -> None:
    with pytest.raises(GuestValuesError, match=f"kms.{member}: missing"):
        read_guest("kms", {name: value for name, value in write_guest(PLAIN).items() if name != member})


@pytest.mark.parametrize(
    "attest",
    [
        VerifierAttest(SignedReferences(signer_of(KEY), 0)),
        VerifierAttest(SignedReferences(signer_of(KEY), 3), frozenset({b"c" * 64}), "-----BEGIN"),
        VerifierAttest(PlainReferences(KmsGuest(PLAIN._replace(name="verifier")))),
        VerifierAttest(
            PlainReferences(
                KmsGuest(PLAIN._replace(name="verifier", host_data=None), whole_image=True), frozenset({b"c" * 32})
            )
        ),
        VerifierAttest(
            PlainReferences(KmsGuest(PLAIN._replace(name="verifier", product="Simulated"))), None, "-----BEGIN"
        ),
    ],
)
def test_a_plans_demand_is_read_as_it_was_written(attest: VerifierAttest) -> None:
    assert read_verifier_attest(json.loads(json.dumps(write_verifier_attest(attest)))) == attest


SIGNER: dict[str, Any] = {"kty": "EC", "crv": "P-256", "x": "x" * 43, "y": "y" * 43}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (None, "not an object"),
        ({}, "product: missing"),
        ({"signer": SIGNER}, "minSerial: missing"),
        ({"signer": SIGNER, "minSerial": -1}, "minSerial: not a whole number"),
        ({"signer": SIGNER, "minSerial": 1 << 53}, "minSerial: not a whole number"),
        ({"signer": SIGNER, "minSerial": 1.0}, "minSerial: not a whole number"),
        ({"signer": SIGNER | {"d": "d" * 43}, "minSerial": 1}, "unknown member 'd'"),
        ({"signer": SIGNER | {"alg": "none"}, "minSerial": 1}, "alg: not ES256"),
        ({"signer": SIGNER | {"crv": "P-384"}, "minSerial": 1}, "crv: not P-256"),
        ({"signer": SIGNER | {"x": "x" * 44}, "minSerial": 1}, "coordinate"),
        ({"signer": SIGNER, "minSerial": 1, "measurements": ["00" * 48]}, "unknown member 'measurements'"),
        ({"signer": SIGNER, "minSerial": 1, "chipIds": []}, "chipIds: not a list"),
        (write_guest(PLAIN._replace(host_data=None)), "wholeImage: true"),
        (write_guest(PLAIN), "initdata: enforced is required"),
        (KMS | {"hostData": ["00" * 32]}, "without initdata"),
        (KMS | {"initdata": "optional"}, "initdata: not enforced"),
        (write_guest(PLAIN._replace(host_data=None)) | {"wholeImage": True, "initdata": "enforced"}, "only with it"),
        (KMS | {"configurations": []}, "configurations: not a list"),
        (KMS | {"configurations": ["00" * 32]}, "32 bytes as base64url"),
        (KMS | {"simulatedRoot": "-----BEGIN"}, "only with it"),
        (KMS | {"product": "Simulated"}, "simulatedRoot: required"),
        (KMS | {"minSerial": 3}, "unknown member 'minSerial'"),
    ],
)
def test_a_demand_that_any_pod_of_an_image_would_meet_or_that_is_none(document: object, problem: str) -> None:
    with pytest.raises(GuestValuesError) as refused:
        read_verifier_attest(document)
    assert problem in str(refused.value)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = [*write_guest(FULL), "wholeImage", "initdata", "configurations", "simulatedRoot", "signer", "minSerial"]


@given(st.sampled_from(MEMBERS), ANY_JSON)
def test_any_other_json_is_refused_by_one_kind_of_error(member: str, value: object) -> None:
    for read in (read_verifier_attest, lambda document: read_guest("kms", document)):
        for document in (value, KMS | {member: value}, {"signer": SIGNER, "minSerial": 1} | {member: value}):
            with contextlib.suppress(GuestValuesError):
                read(document)


def test_chips_limit_the_guest_and_never_widen_it() -> None:
    own, other = b"a" * 64, b"b" * 64
    attest = VerifierAttest(SignedReferences(signer_of(KEY), 0), frozenset({own}))
    assert attest.limited(KmsGuest(PLAIN)).chip_ids == {own}
    assert attest.limited(KmsGuest(PLAIN._replace(chip_ids=frozenset({own, other})))).chip_ids == {own}
    assert attest.limited(KmsGuest(PLAIN._replace(chip_ids=frozenset({other})))).chip_ids == frozenset()
    assert attest._replace(chip_ids=None).limited(KmsGuest(PLAIN)).chip_ids is None


def test_references_are_read_as_they_were_signed() -> None:
    compact = write_references(ISSUE, KEY)
    assert read_references(compact, signer_of(KEY)) == ISSUE
    assert json.loads(jws.extract_compact(compact.encode()).payload)["context"] == "morphisms-references/v1"


def signed(document: object, key: Any = KEY, **header: object) -> str:
    return jws.serialize_compact({"alg": "ES256"} | header, rfc8785.dumps(document), key, algorithms=["ES256", "HS256"])


DOCUMENT: dict[str, Any] = {
    "context": "morphisms-references/v1",
    "serial": 3,
    "guests": {"kms": KMS},
    "configurations": [encode(b"c" * 32)],
}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"context": "morphisms-provision/v1"}, "context: not morphisms-references/v1"),
        ({"serial": -1}, "serial: not a whole number"),
        ({"serial": "3"}, "serial: not a whole number"),
        ({"guests": {}}, "guests: not an object of 1"),
        ({"guests": [KMS]}, "guests: not an object of 1"),
        ({"guests": {"": KMS}}, "a guest's name"),
        ({"guests": {"kms": write_guest(PLAIN)}}, "initdata"),
        ({"configurations": []}, "configurations: not a list"),
        ({"more": 1}, "unknown member 'more'"),
    ],
)
def test_the_signer_signed_something_else(changes: dict[str, Any], problem: str) -> None:
    assert read_references(signed(DOCUMENT), signer_of(KEY)).serial == 3
    with pytest.raises(ReferencesError, match=problem):
        read_references(signed(DOCUMENT | changes), signer_of(KEY))


def test_references_that_the_signer_did_not_sign() -> None:
    head, payload, signature = signed(DOCUMENT).split(".")
    other = ECKey.generate_key("P-256")
    later = signed(DOCUMENT | {"serial": 4}).split(".")[1]
    public = json.dumps(KEY.as_dict(private=False)).encode()
    none = encode(b'{"alg":"none"}')
    for forged in (
        "",
        "a.b",
        signed(DOCUMENT, other),
        signed(DOCUMENT, other, jwk=other.as_dict(private=False)),
        f"{head}.{later}.{signature}",
        f"{none}.{payload}.",
        f"{none}.{payload}.{signature}",
        signed(DOCUMENT, OctKey.import_key(public), alg="HS256"),
        f"{head}.{payload}.{signature}" + "A" * 20_000,
    ):
        with pytest.raises(ReferencesError):
            read_references(forged, signer_of(KEY))


def test_a_key_in_the_header_is_no_offer() -> None:
    with pytest.raises(ReferencesError, match="other members than alg"):
        read_references(signed(DOCUMENT, kid="2027"), signer_of(KEY))


def test_a_member_twice_has_no_meaning() -> None:
    text = rfc8785.dumps(DOCUMENT)[:-1] + b',"serial":9}'
    compact = jws.serialize_compact({"alg": "ES256"}, text, KEY, algorithms=["ES256"])
    with pytest.raises(ReferencesError, match="twice"):
        read_references(compact, signer_of(KEY))


@pytest.mark.parametrize(
    "issue",
    [
        ISSUE._replace(guests=()),
        ISSUE._replace(configurations=frozenset()),
        ISSUE._replace(serial=-1),
        ISSUE._replace(guests=ISSUE.guests[::-1]),
        ISSUE._replace(guests=(KmsGuest(PLAIN._replace(host_data=None)),)),
    ],
)
def test_what_no_guest_would_read_is_not_signed(issue: References) -> None:
    with pytest.raises(ReferencesError):
        write_references(issue, KEY)
