"""`verifier.attest` as operators write it: what names less than one verifier does not load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from attestation.simulator.hierarchy import Hierarchy
from kbs.base64url import encode
from kbs.references_signing import signer_of
from kbs.verifier_attest import PlainReferences, SignedReferences, read_verifier_attest, write_signer
from server.verifier_attest import AttestFile, KmsGuestEntry
from server.yaml.strict import ConfigurationError, load, validate

SIGNER = signer_of(ECKey.generate_key("P-256"))
SIGNED: dict[str, Any] = {"signer": write_signer(SIGNER), "minSerial": 3}
VALUES: dict[str, Any] = {
    "product": "Genoa",
    "measurements": ["ab" * 48],
    "minTcb": {"bootloader": 10, "tee": 0, "snp": 23, "microcode": 84},
    "policy": {"smt": False},
    "vmpl": 0,
    "hostData": ["01" * 32],
    "initdata": "enforced",
}


def read(document: dict[str, Any]) -> AttestFile:
    return validate(document, AttestFile, name="attest.yaml")


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in VALUES.items() if key != name}


def test_a_signer_and_the_least_serial_are_enough() -> None:
    assert read(SIGNED).root.plain().references == SignedReferences(SIGNER, 3)


def test_the_values_themselves_say_which_guest_the_verifier_runs_in() -> None:
    plain = read(VALUES | {"configurations": [encode(b"c" * 32)], "chipIds": ["0a" * 64]}).root.plain()
    assert isinstance(plain.references, PlainReferences)
    assert plain.references.guest.reference.host_data == {b"\x01" * 32}
    assert plain.references.configurations == {b"c" * 32}
    assert plain.chip_ids == {b"\x0a" * 64}


def test_an_image_that_is_nothing_but_the_verifier_needs_no_initdata() -> None:
    entry = {key: value for key, value in VALUES.items() if key not in ("hostData", "initdata")} | {"wholeImage": True}
    plain = read(entry).root.plain()
    assert isinstance(plain.references, PlainReferences)
    assert plain.references.guest.whole_image


@pytest.mark.parametrize("document", [SIGNED, VALUES], ids=["signer", "values"])
def test_a_guest_reads_what_was_written_and_so_does_this_form_again(document: dict[str, Any]) -> None:
    found = read(document)
    assert read_verifier_attest(found.root.document()) == found.root.plain()
    assert read(found.model_dump(mode="json")).root.plain() == found.root.plain()


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (without("measurements"), "measurements: field required"),
        (VALUES | {"measurements": []}, "measurements is empty"),
        (VALUES | {"measurements": [], "idKeys": ["ab" * 48], "minGuestSvn": 1}, "measurements: not a list of 1"),
        (without("minTcb"), "minTcb: field required"),
        (without("policy"), "policy: field required"),
        (without("vmpl"), "vmpl: field required"),
        (without("initdata"), "hostData and initdata do not agree"),
        (without("hostData"), "hostData and initdata do not agree"),
        (VALUES | {"initdata": "hoped-for"}, "initdata"),
        (VALUES | {"hostData": ["00" * 32]}, "hostData: all zeros, which is a guest without initdata"),
        (
            {key: value for key, value in VALUES.items() if key not in ("hostData", "initdata")},
            "measurements alone name an image",
        ),
        (VALUES | {"policy": {"debug": True}}, "debug: is true"),
        (VALUES | {"chipIds": []}, "the list is empty"),
        (VALUES | {"configurations": ["deadbeef"]}, "43 characters of base64url"),
        (VALUES | {"product": "Simulated"}, "simulatedRoot: required with product Simulated"),
        (VALUES | {"surprise": 1}, "unknown key surprise"),
        ({"minSerial": 3}, "signer: field required"),
        ({"signer": SIGNED["signer"]}, "minSerial: field required"),
        (SIGNED | {"minSerial": -1}, "minSerial"),
        (SIGNED | {"minSerial": 2**53}, "minSerial"),
        (SIGNED | {"signer": SIGNED["signer"] | {"crv": "P-384"}}, "signer.crv"),
        (SIGNED | {"signer": SIGNED["signer"] | {"d": SIGNED["signer"]["x"]}}, "signer.d: unknown key d"),
        (SIGNED | {"measurements": ["ab" * 48]}, "unknown key measurements"),
    ],
)
def test_what_names_less_than_one_verifier_is_refused(document: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        read(document)
    assert problem in str(error.value)


def test_what_would_fill_every_pods_plan_is_refused() -> None:
    chips = [number.to_bytes(64).hex() for number in range(200)]
    with pytest.raises(ConfigurationError, match="bytes as JSON, at most 16384 are allowed"):
        read(VALUES | {"chipIds": chips})
    read(VALUES | {"chipIds": chips[:100]})


def test_real_values_beside_a_simulated_root_are_refused(hierarchy: Hierarchy) -> None:
    with pytest.raises(ConfigurationError, match="simulatedRoot: required with product Simulated, and only with it"):
        read(VALUES | {"simulatedRoot": hierarchy.root_path.read_text()})
    assert read(SIGNED | {"simulatedRoot": hierarchy.root_path.read_text()}).root.plain().simulated_root


def test_a_file_holds_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "attest.yaml"
    path.write_text(f"signer: {SIGNED['signer']}\nminSerial: 3\n")
    assert load(path, AttestFile).value.root.plain().references == SignedReferences(SIGNER, 3)


def test_a_guest_of_the_kms_is_an_entry_of_its_own() -> None:
    assert validate(VALUES, KmsGuestEntry, name="guests.yaml").kms_guest("kms-1").reference.name == "kms-1"
