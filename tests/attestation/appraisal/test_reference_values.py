"""Reference values: what is read, and that every mistake is named with its path."""

from __future__ import annotations

import pytest

from attestation.appraisal.reference_values import (
    REQUIRE_CRL,
    SOFT_CRL,
    Answer,
    GuestPolicyRule,
    RevocationPolicy,
    parse_guest,
    parse_guest_entry,
    parse_guests,
)
from attestation.errors import PolicyError
from attestation.report.abi import FirmwareVersion
from attestation.report.products import MILAN
from attestation.report.tcb import Tcb

TCB = {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}
GUEST = {"product": "Milan", "measurements": ["aa" * 48], "minTcb": TCB, "policy": {"smt": False}, "vmpl": 0}


def test_the_five_keys_of_the_design():
    guest = parse_guest_entry({"kata-3.21-snp": GUEST})
    assert guest.name == "kata-3.21-snp"
    assert guest.product is MILAN
    assert guest.measurements == {b"\xaa" * 48}
    assert guest.min_tcb == guest.min_committed_tcb == guest.min_launch_tcb == Tcb(3, 0, 8, 115)
    assert guest.policy == GuestPolicyRule(smt=False)
    assert guest.vmpl == {0}
    assert (guest.min_version, guest.max_version, guest.revocation) == (3, 5, None)
    with pytest.raises(AttributeError):
        guest.vmpl = frozenset({1})


def test_all_other_keys():
    guest = parse_guest(
        "g",
        GUEST
        | {
            "minLaunchTcb": TCB | {"snp": 7},
            "policy": {"minAbi": "1.51", "migrateMa": True, "debug": False},
            "vmpl": [0, 1],
            "hostData": ["01" * 32],
            "chipIds": ["02" * 64],
            "minFirmware": "1.55.40",
            "platformInfo": {"require": ["ECC_EN", "ALIAS_CHECK_COMPLETE"], "forbid": 1},
            "mitigations": {"launch": "0xb"},
            "versions": {"min": 2, "max": 6},
            "crl": {"stale": "accept"},
            "signingKeys": ["VLEK"],
        },
    )
    assert guest.min_launch_tcb.snp == 7
    assert guest.policy == GuestPolicyRule(min_abi=(1, 51), migrate_ma=True)
    assert guest.min_firmware == FirmwareVersion(1, 55, 40)
    assert (guest.platform_require, guest.platform_forbid, guest.launch_mitigations) == (0x24, 1, 0xB)
    assert guest.revocation == RevocationPolicy(stale=Answer.ACCEPT)
    assert guest.signing_keys == {"VLEK"}


def test_short_forms():
    assert parse_guest("g", GUEST | {"crl": "soft"}).revocation == SOFT_CRL
    assert parse_guest("g", GUEST | {"crl": "require"}).revocation == REQUIRE_CRL
    assert parse_guest("g", GUEST | {"policy": 0x30000}).policy.exact == 0x30000
    assert parse_guest("g", GUEST | {"policy": "0x70000"}).policy == GuestPolicyRule(exact=0x70000, migrate_ma=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"product": "Rome"}, "g.product is 'Rome', required one of Milan, Genoa, Turin, Simulated"),
        ({"product": "Venice"}, "g.product"),
        ({"product": None}, "g.product"),
        ({"measurements": []}, "g.measurements is empty"),
        ({"measurements": "aa" * 48}, "g.measurements is not a list"),
        ({"measurements": ["aa" * 47]}, r"g.measurements\[0\] is not 96"),
        ({"measurements": ["zz" * 48]}, r"g.measurements\[0\]"),
        ({"measurements": [12]}, r"g.measurements\[0\]"),
        ({"minTcb": {"snp": 8}}, "g.minTcb.bootloader is missing"),
        ({"minTcb": TCB | {"fmc": 1}}, "g.minTcb: unknown fmc"),
        ({"minTcb": TCB | {"snp": 256}}, "g.minTcb.snp is 256"),
        ({"minTcb": TCB | {"snp": True}}, "g.minTcb.snp is True"),
        ({"minTcb": 8}, "g.minTcb is not a mapping"),
        ({"policy": {"debug": True}}, "never believed"),
        ({"policy": 0xB0000}, "never believed"),
        ({"policy": 0x10000}, "bit 17"),
        ({"policy": {"smt": "yes"}}, "g.policy.smt is 'yes', required true or false"),
        ({"policy": {"SMT": True}}, "g.policy: unknown SMT; known are debug, smt"),
        ({"policy": {"minAbi": 1.51}}, "g.policy.minAbi is 1.51, required MAJOR.MINOR in quotes"),
        ({"vmpl": 4}, "g.vmpl is 4"),
        ({"vmpl": []}, "g.vmpl"),
        ({"vmpl": True}, "g.vmpl"),
        ({"hostData": []}, "g.hostData is empty; leave the key out"),
        ({"minFirmware": "1.55"}, "g.minFirmware"),
        ({"minFirmware": "1.55.999"}, "g.minFirmware"),
        ({"versions": {"min": 1}}, "g.versions is 1 to 5"),
        ({"versions": {"min": 5, "max": 3}}, "g.versions"),
        ({"versions": []}, "g.versions is not a mapping"),
        ({"platformInfo": {"require": ["FOO"]}}, "g.platformInfo.require has 'FOO'"),
        ({"platformInfo": {"require": 1, "forbid": 1}}, "requires and forbids"),
        ({"crl": "never"}, "g.crl is 'never'"),
        ({"crl": {"revoked": "accept"}}, "g.crl: unknown revoked"),
        ({"signingKeys": ["NONE"]}, "g.signingKeys"),
        ({"minTCB": TCB}, "g: unknown minTCB; known are product"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(PolicyError, match=message):
        parse_guest("g", GUEST | change)


@pytest.mark.parametrize("key", ["product", "measurements", "minTcb"])
def test_missing_keys(key):
    with pytest.raises(PolicyError, match=f"g.{key} is missing"):
        parse_guest("g", {name: value for name, value in GUEST.items() if name != key})


def test_turin_needs_an_fmc():
    with pytest.raises(PolicyError, match=r"g\.minTcb\.fmc is missing"):
        parse_guest("g", GUEST | {"product": "Turin"})
    assert parse_guest("g", GUEST | {"product": "Turin", "minTcb": TCB | {"fmc": 1}}).min_tcb.fmc == 1


def test_entries():
    assert set(parse_guests({"a": GUEST, "b": GUEST})) == {"a", "b"}
    for document in ({}, {"a": GUEST, "b": GUEST}, None, [], {1: GUEST}, {"": GUEST}, {"a": None}, "a"):
        with pytest.raises(PolicyError):
            parse_guest_entry(document)
