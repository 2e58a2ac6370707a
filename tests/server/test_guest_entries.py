"""Guest entries: what is read, and that every mistake is refused by its key, without repeating a value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from attestation.report.abi import NEWEST_VERSION, OLDEST_VERSION
from attestation.report.abi import PLATFORM_INFO_BITS as ABI_BITS
from attestation.report.products import LINES
from attestation.report.tcb import components
from kbs.reference_values import (
    NEWEST_REPORT_VERSION,
    OLDEST_REPORT_VERSION,
    PLATFORM_INFO_BITS,
    REQUIRE_CRL,
    SOFT_CRL,
    TCB_COMPONENTS,
    RequiredGuestPolicy,
    RevocationAction,
    RevocationPolicy,
    TcbFloor,
)
from server.guest_entries import GuestFile, load_guests
from server.yaml.strict import ConfigurationError, validate
from tests.attestation.reports import guest_reference
from tests.support.paths import ROOT

TCB = {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}
GUEST: dict[str, Any] = {
    "product": "Milan",
    "measurements": ["aa" * 48],
    "minTcb": TCB,
    "policy": {"smt": False},
    "vmpl": 0,
}


def refusal(entry: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        guest_reference(entry, "g")
    return "\n".join(caught.value.problems)


def test_the_vocabulary_is_that_of_reports() -> None:
    assert {line.name: components(line.tcb_layout) for line in LINES if line.supported} == TCB_COMPONENTS
    assert ABI_BITS == PLATFORM_INFO_BITS
    assert (OLDEST_VERSION, NEWEST_VERSION) == (OLDEST_REPORT_VERSION, NEWEST_REPORT_VERSION)


def test_an_entry_with_five_keys() -> None:
    guest = guest_reference(GUEST, "kata-3.21-snp")
    assert guest.name == "kata-3.21-snp"
    assert guest.product == "Milan"
    assert guest.measurements == {b"\xaa" * 48}
    assert guest.min_tcb == guest.min_committed_tcb == guest.min_launch_tcb == TcbFloor(3, 0, 8, 115)
    assert guest.policy == RequiredGuestPolicy(smt=False)
    assert guest.vmpl == {0}
    assert (guest.min_version, guest.max_version, guest.revocation) == (3, 5, None)
    with pytest.raises(AttributeError):
        guest.vmpl = frozenset({1})  # type: ignore[misc]


def test_all_other_keys() -> None:
    guest = guest_reference(
        GUEST
        | {
            "minLaunchTcb": TCB | {"snp": 7},
            "minCommittedTcb": TCB | {"snp": "0x6"},
            "policy": {"minAbi": "1.51", "migrateMa": True, "debug": False},
            "vmpl": [0, 1],
            "hostData": ["01" * 32],
            "idKeys": ["03" * 48],
            "authorKeys": ["Af" * 48],
            "familyId": "04" * 16,
            "imageId": "05" * 16,
            "minGuestSvn": 2,
            "chipIds": ["02" * 64],
            "maskedChipId": True,
            "minFirmware": "1.55.40",
            "provisionalFirmware": False,
            "platformInfo": {"require": ["ECC_EN", "ALIAS_CHECK_COMPLETE"], "forbid": 1},
            "mitigations": {"launch": "0xb", "current": 1},
            "versions": {"min": 2, "max": 4},
            "crl": {"stale": "accept"},
            "signingKeys": ["VLEK"],
            "cspIds": ["CN=cc-us-east-2.amazonaws.com"],
        }
    )
    assert (guest.min_launch_tcb.snp, guest.min_committed_tcb.snp) == (7, 6)
    assert guest.policy == RequiredGuestPolicy(min_abi=(1, 51), migrate_ma=True)
    assert (guest.host_data, guest.chip_ids) == ({b"\x01" * 32}, {b"\x02" * 64})
    assert (guest.id_keys, guest.author_keys) == ({b"\x03" * 48}, {b"\xaf" * 48})
    assert (guest.family_id, guest.image_id) == (b"\x04" * 16, b"\x05" * 16)
    assert (guest.min_guest_svn, guest.masked_chip_id, guest.provisional_firmware) == (2, True, False)
    assert guest.min_firmware == (1, 55, 40)
    assert (guest.platform_require, guest.platform_forbid) == (0x24, 1)
    assert (guest.launch_mitigations, guest.current_mitigations) == (0xB, 1)
    assert (guest.min_version, guest.max_version) == (2, 4)
    assert guest.revocation == RevocationPolicy(stale=RevocationAction.ACCEPT)
    assert guest.signing_keys == {"VLEK"}
    assert guest.csp_ids == {"CN=cc-us-east-2.amazonaws.com"}


def test_one_measurement_per_number_of_vcpus_is_as_good_as_a_list() -> None:
    guest = guest_reference(GUEST | {"measurements": {"1": "aa" * 48, "2": "bb" * 48}})
    assert guest == guest_reference(GUEST | {"measurements": ["bb" * 48, "aa" * 48]})


def test_short_forms() -> None:
    assert guest_reference(GUEST | {"crl": "soft"}).revocation == SOFT_CRL
    assert guest_reference(GUEST | {"crl": "require"}).revocation == REQUIRE_CRL
    assert guest_reference(GUEST | {"policy": 0x30000}).policy.exact == 0x30000
    assert guest_reference(GUEST | {"policy": "0x70000"}).policy == RequiredGuestPolicy(exact=0x70000, migrate_ma=True)
    assert guest_reference(GUEST | {"platformInfo": {"require": "0X20"}}).platform_require == 0x20
    assert (
        guest_reference(GUEST | {"measurements": [], "idKeys": ["01" * 48], "minGuestSvn": 1}).measurements
        == frozenset()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # What accepts more than any operator can mean.
        ({"minTcb": dict.fromkeys(TCB, 0)}, "g.minTcb: every component is 0, so any firmware would do"),
        ({"measurements": [], "idKeys": ["01" * 48]}, "g: minGuestSvn is missing: without measurements any old image"),
        ({"measurements": [], "authorKeys": ["01" * 48]}, "g: minGuestSvn is missing"),
        ({"versions": {"max": 6}}, "g.versions: required max of at most 5, the newest version whose reserved bytes"),
        ({"signingKeys": ["VLEK"]}, "g: signingKeys and cspIds do not agree: VLEK needs the providers that count"),
        ({"signingKeys": ["VCEK", "VLEK"]}, "g: signingKeys and cspIds do not agree"),
        ({"cspIds": ["CN=example"]}, "g: signingKeys and cspIds do not agree"),
        ({"signingKeys": ["VLEK"], "cspIds": []}, "g.cspIds: the list is empty"),
        ({"signingKeys": ["VLEK"], "cspIds": "CN=example"}, "g.cspIds: required a list"),
        ({"signingKeys": ["VLEK"], "cspIds": [""]}, "g.cspIds[0]"),
        ({"product": "Rome"}, "g.product: input should be 'Milan', 'Genoa', 'Turin' or 'Simulated'"),
        ({"product": "Venice"}, "g.product"),
        ({"product": None}, "g: product has no value"),
        ({"measurements": []}, "g: measurements is empty, required at least one digest, or idKeys or authorKeys"),
        ({"measurements": "aa" * 48}, "g.measurements: required a list"),
        ({"measurements": ["aa" * 47]}, 'g.measurements[0]: required 96 hexadecimal digits in quotes, such as "0a1b…"'),
        ({"measurements": ["zz" * 48]}, "g.measurements[0]"),
        ({"measurements": ["aa" * 48, " a" * 48]}, "g.measurements[1]"),
        ({"measurements": [12]}, "g.measurements[0]"),
        ({"measurements": {}}, "g: measurements is empty, required at least one digest, or idKeys or authorKeys"),
        ({"measurements": {"1": "aa" * 47}}, "g.measurements.1: required 96 hexadecimal digits in quotes"),
        ({"measurements": {"1": ["aa" * 48]}}, "g.measurements.1: required 96 hexadecimal digits"),
        ({"measurements": {"one": "aa" * 48}}, "g.measurements.one: a key is not a number of vCPUs in quotes, such as"),
        ({"measurements": {"0": "aa" * 48}}, "g.measurements.0: a key is not a number of vCPUs"),
        ({"measurements": {"01": "aa" * 48}}, "g.measurements.01: a key is not a number of vCPUs"),
        ({"measurements": {"1\n": "aa" * 48}}, "a key is not a number of vCPUs"),
        ({"measurements": {"1": "aa" * 48, "2": "AA" * 48}}, "g.measurements: two numbers of vCPUs have one digest"),
        ({"minTcb": {"snp": 8}}, "g.minTcb.bootloader: field required"),
        ({"minTcb": TCB | {"fmc": 1}}, "g.minTcb: unknown key fmc: the TCB of Milan has bootloader, tee"),
        ({"minTcb": TCB | {"fmc": None}}, "g.minTcb.fmc: required a whole number"),
        ({"minLaunchTcb": TCB | {"fmc": 1}}, "g.minLaunchTcb: unknown key fmc"),
        ({"minCommittedTcb": {}}, "g.minCommittedTcb.bootloader: field required"),
        ({"minTcb": TCB | {"snp": 256}}, 'g.minTcb.snp: required a whole number of at most 8 bits, such as 3 or "0x3"'),
        ({"minTcb": TCB | {"snp": True}}, "g.minTcb.snp"),
        ({"minTcb": TCB | {"snp": "8"}}, "g.minTcb.snp"),
        ({"minTcb": TCB | {"snp": 8.0}}, "g.minTcb.snp"),
        ({"minTcb": TCB | {"snp": "0xzz"}}, "g.minTcb.snp"),
        ({"minTcb": TCB | {"snp": "0x1_0"}}, "g.minTcb.snp"),
        ({"minTcb": TCB | {"snp": "0x3 "}}, "g.minTcb.snp"),
        ({"minTcb": TCB | {"snp": "0x3\n"}}, "g.minTcb.snp"),
        ({"minTcb": TCB | {"snp": "0x٣"}}, "g.minTcb.snp"),
        ({"mitigations": {"launch": "0x" + "f" * 5000}}, "g.mitigations.launch"),
        ({"minTcb": TCB | {"snp": -1}}, "g.minTcb.snp"),
        ({"minTcb": TCB | {"smp": 1}}, "g.minTcb.smp: unknown key smp, did you mean snp?"),
        ({"minTcb": 8}, "g.minTcb: "),
        (
            {"policy": {"debug": True}},
            "g.policy.debug: is true: a guest whose memory the host may read is never accepted",
        ),
        ({"policy": 0xB0000}, "g.policy: has DEBUG set"),
        ({"policy": 0x10000}, "g.policy: required bit 17 one"),
        ({"policy": 0x30000 | 1 << 26}, "bits 63:26 zero"),
        ({"policy": "198608"}, "g.policy: required a whole number"),
        ({"policy": {"smt": "yes"}}, "g.policy.smt: required true or false"),
        ({"policy": {"smt": 1}}, "g.policy.smt"),
        ({"policy": {"SMT": True}}, "g.policy.SMT: unknown key SMT"),
        ({"policy": {"migrateMA": True}}, "g.policy.migrateMA: unknown key migrateMA, did you mean migrateMa?"),
        (
            {"policy": {"minAbi": 1.51}},
            'g.policy.minAbi: required MAJOR.MINOR in quotes, each from 0 to 255, such as "1',
        ),
        ({"policy": {"minAbi": None}}, "g.policy.minAbi"),
        ({"policy": None}, "g: policy has no value"),
        ({"policy": []}, "g.policy"),
        ({"vmpl": 4}, "g.vmpl: required a number from 0 to 3, or a list of them, such as [0, 1]"),
        ({"vmpl": []}, "g.vmpl"),
        ({"vmpl": True}, "g.vmpl"),
        ({"vmpl": "0"}, "g.vmpl"),
        ({"hostData": []}, "g.hostData: the list is empty, so no guest would match; leave the key out"),
        ({"hostData": None}, "g: hostData has no value; write one, or leave the key out"),
        ({"hostData": ["aa" * 48]}, "g.hostData[0]: required 64 hexadecimal digits"),
        ({"chipIds": ["aa" * 8]}, "g.chipIds[0]: required 128 hexadecimal digits"),
        ({"familyId": ["aa" * 16]}, "g.familyId: required 32 hexadecimal digits"),
        ({"minGuestSvn": 1 << 32}, "g.minGuestSvn"),
        ({"maskedChipId": "true"}, "g.maskedChipId"),
        ({"minFirmware": "1.55"}, "g.minFirmware: required MAJOR.MINOR.BUILD"),
        ({"minFirmware": "1.55.999"}, "g.minFirmware"),
        ({"minFirmware": "1.55.٣"}, "g.minFirmware"),
        ({"versions": {"min": 1}}, "g.versions: required min from 2 to max, such as {min: 3, max: 5}"),
        ({"versions": {"min": 5, "max": 3}}, "g.versions"),
        ({"versions": []}, "g.versions: "),
        (
            {"platformInfo": {"require": ["FOO"]}},
            "g.platformInfo.require: required a mask, or a list of SMT_EN, TSME_EN",
        ),
        ({"platformInfo": {"require": [["SMT_EN"]]}}, "g.platformInfo.require"),
        ({"platformInfo": {"require": 1, "forbid": 1}}, "g.platformInfo: requires and forbids the same bit"),
        ({"crl": "never"}, "g.crl: input should be 'require' or 'soft'"),
        ({"crl": None}, "g: crl has no value"),
        ({"crl": {"revoked": "accept"}}, "g.crl.revoked: unknown key revoked"),
        ({"crl": {"stale": "ignore"}}, "g.crl.stale: input should be 'refuse' or 'accept'"),
        ({"signingKeys": ["NONE"]}, "g.signingKeys: required a list of VCEK and VLEK, such as [VCEK]"),
        ({"signingKeys": []}, "g.signingKeys"),
        ({"signingKeys": [["VCEK"]]}, "g.signingKeys"),
        ({"minTCB": TCB}, "g.minTCB: unknown key minTCB, did you mean minTcb?"),
    ],
)
def test_a_mistake_is_refused_by_its_key(change: dict[str, Any], message: str) -> None:
    assert message in refusal(GUEST | change)


@pytest.mark.parametrize("key", ["product", "measurements", "minTcb"])
def test_a_missing_key_is_named(key: str) -> None:
    assert f"g.{key}: field required" in refusal({name: value for name, value in GUEST.items() if name != key})


def test_turin_needs_an_fmc() -> None:
    assert "g.minTcb: fmc is missing: the TCB of Turin has fmc, bootloader" in refusal(GUEST | {"product": "Turin"})
    turin = guest_reference(GUEST | {"product": "Turin", "minTcb": TCB | {"fmc": 1}})
    assert turin.min_tcb.fmc == 1


@pytest.mark.parametrize("document", [None, [], {"": GUEST}, {"a": None}, {"a": 1}, {"a": []}, "a", {1: GUEST}])
def test_a_document_is_named_entries(document: Any) -> None:
    with pytest.raises(ConfigurationError):
        validate(document, GuestFile, name="guests")


def test_a_problem_repeats_no_value() -> None:
    secret = "hvs.not-for-the-log"
    for key in (*GUEST, "hostData", "familyId", "crl", "minFirmware", "signingKeys", "platformInfo"):
        for value in (secret, [secret], {"require": secret, "smt": secret, "min": secret}):
            assert secret not in refusal(GUEST | {key: value})


def test_a_file_is_read_with_lines_and_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "guests.yaml"
    path.write_text(yaml.safe_dump({"a": GUEST, "b": GUEST}))
    assert {name: guest.name for name, guest in load_guests(path).items()} == {"a": "a", "b": "b"}
    path.write_text(yaml.safe_dump({"a": GUEST}) + "  vmpl: 3\n")
    with pytest.raises(ConfigurationError, match=r"guests.yaml:\d+: a.vmpl: key given twice, first on line \d+"):
        load_guests(path)


def test_an_entry_keeps_what_was_written() -> None:
    """A policy's digest covers it, so that a guest's change is a change of its policies."""
    assert validate({"g": GUEST}, GuestFile, name="guests").root["g"].written == GUEST


def test_a_key_that_is_left_out_accepts_no_vlek() -> None:
    assert guest_reference(GUEST).signing_keys == {"VCEK"}
    assert guest_reference(GUEST).csp_ids == frozenset()


def _described(document: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key of a guest entry in the schema, with the keys of the mappings in it."""
    for key, value in document["$defs"][name]["properties"].items():
        yield f"{name}.{key}", value
        for section in re.findall(r"#/\$defs/(\w+Section)", json.dumps(value)):
            yield from _described(document, section)


def test_every_key_is_documented_in_page_and_schema() -> None:
    document = json.loads((ROOT / "docs" / "guest.schema.json").read_text())
    page = (ROOT / "docs" / "verifier.md").read_text().partition("## Define what to trust")[2].partition("\n## ")[0]
    found = dict(_described(document, "GuestEntry"))
    assert len(found) > 40
    assert [key for key, value in found.items() if not value.get("description")] == []
    rows = re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert {key.partition(".")[2] for key in found if key.startswith("GuestEntry.")} <= named
