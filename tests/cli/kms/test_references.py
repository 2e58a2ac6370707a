"""`morphisms kms references`: what an operator signs is what a guest reads, and never an older issue."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from attestation.verifier.configuration import Provisioner
from kbs.base64url import encode
from kbs.references import ReferencesError, read_references
from kbs.verifier_attest import SignedReferences, SignerKey
from server.verifier_attest import AttestFile
from tests.cli.recorded import Command, Result

CONFIGURATION = encode(bytes(range(32)))
OTHER = encode(bytes(range(1, 33)))
GUEST: dict[str, Any] = {
    "product": "Genoa",
    "measurements": ["ab" * 48],
    "minTcb": {"bootloader": 10, "tee": 0, "snp": 23, "microcode": 84},
    "policy": "0x30000",
    "vmpl": 0,
    "hostData": ["cd" * 32],
    "initdata": "enforced",
    "chipIds": ["ef" * 64],
}


class Desk:
    """The operator's folder."""

    def __init__(self, folder: Path, command: Command) -> None:
        self.folder = folder
        self.output = folder / "references.jws"
        self.key = folder / "signer.pem"
        self._command = command
        self.write({"kms-1": GUEST})

    def write(self, guests: dict[str, Any]) -> None:
        (self.folder / "guests.yaml").write_text(yaml.safe_dump(guests))

    def sign(self, serial: int, *more: str, configuration: str = CONFIGURATION) -> Result:
        fixed = ("--guests", str(self.folder / "guests.yaml"), "--configuration", configuration)
        where = ("--key", str(self.key), "--serial", str(serial), "--output", str(self.output))
        return self._command("references", *fixed, *where, *more)


@pytest.fixture
def desk(tmp_path: Path, kms: Command) -> Desk:
    return Desk(tmp_path, kms)


def _signer(output: str) -> SignerKey:
    document = json.loads(next(line for line in output.splitlines() if line.startswith("signer: "))[8:])
    return SignerKey(document["x"], document["y"])


def test_what_is_signed_is_what_a_guest_reads(desk: Desk) -> None:
    result = desk.sign(3, "--new-key", "--configuration", OTHER)
    assert (result.code, result.err) == (0, "")
    references = read_references(desk.output.read_text().strip(), _signer(result.out))
    assert references.serial == 3
    assert {encode(each) for each in references.configurations} == {CONFIGURATION, OTHER}
    (guest,) = references.guests
    assert guest.reference.name == "kms-1"
    assert set(guest.reference.host_data or ()) == {bytes.fromhex("cd" * 32)}
    assert guest.reference.policy.exact == 0x30000


def test_what_it_prints_is_the_policy_that_trusts_what_it_signed(desk: Desk, tmp_path: Path) -> None:
    policy = AttestFile.model_validate(yaml.safe_load(desk.sign(3, "--new-key").out)).root.plain()
    assert isinstance(policy.references, SignedReferences)
    assert policy.references.min_serial == 3
    read_references(desk.output.read_text().strip(), policy.references.signer)


def test_the_new_key_is_the_operators_alone_and_is_never_replaced(desk: Desk) -> None:
    desk.sign(1, "--new-key")
    assert stat.S_IMODE(desk.key.stat().st_mode) == 0o400
    assert desk.key.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    again = desk.sign(2, "--new-key")
    assert again.code == 2
    assert "exists already; leave --new-key out" in again.err


def test_a_key_that_others_can_read_signs_nothing(desk: Desk) -> None:
    desk.sign(1, "--new-key")
    desk.output.unlink()
    desk.key.chmod(0o440)
    result = desk.sign(2)
    assert result.code == 2
    assert "required 0400" in result.err
    assert not desk.output.exists()


@pytest.mark.parametrize("serial", [1, 2, 3])
def test_a_serial_that_does_not_grow_is_refused(desk: Desk, serial: int) -> None:
    desk.sign(3, "--new-key")
    before = desk.output.read_text()
    result = desk.sign(serial)
    assert result.code == 2
    assert "write --serial 4" in result.err
    assert desk.output.read_text() == before
    assert desk.sign(4).code == 0


def test_the_previous_issue_may_lie_elsewhere(desk: Desk) -> None:
    desk.sign(7, "--new-key")
    kept = desk.folder / "kept.jws"
    desk.output.rename(kept)
    assert desk.sign(7, "--previous", str(kept)).code == 2
    assert desk.sign(8, "--previous", str(kept)).code == 0


def test_an_issue_by_another_key_is_no_previous_one(desk: Desk) -> None:
    desk.sign(7, "--new-key")
    desk.key = desk.folder / "other.pem"
    result = desk.sign(8, "--new-key")
    assert result.code == 2
    assert "if the key is a new one, write to another file" in result.err
    with pytest.raises(ReferencesError):
        read_references(desk.output.read_text().strip(), SignerKey("A" * 43, "A" * 43))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"hostData": None, "initdata": None}, "measurements alone name an image, which any pod of that image has"),
        ({"initdata": None}, "hostData counts with initdata: enforced"),
        ({"hostData": ["00" * 32]}, "all zeros, which is a guest without initdata"),
        ({"policy": None}, "policy: field required"),
        ({"measurements": []}, "measurements"),
        ({"policy": "0xb0000"}, "DEBUG"),
    ],
)
def test_values_that_any_pod_could_meet_are_never_signed(desk: Desk, change: dict[str, Any], problem: str) -> None:
    guest = {key: value for key, value in (GUEST | change).items() if value is not None}
    desk.write({"kms-1": guest})
    result = desk.sign(1, "--new-key")
    assert result.code == 2
    assert problem in result.err
    assert not desk.output.exists()


@pytest.mark.parametrize("word", ["verifier.yaml", "A" * 42])
def test_a_configuration_that_is_neither_a_file_nor_a_digest_signs_nothing(desk: Desk, word: str) -> None:
    result = desk.sign(1, "--new-key", configuration=word)
    assert result.code == 2
    assert f"{word}: cannot be read" in result.err
    assert not desk.key.exists()


def test_a_provisioners_key_prints_what_the_configuration_lists(kms: Command, tmp_path: Path) -> None:
    made = kms("key", str(tmp_path / "ann.pem"), "--new-key")
    assert (made.code, made.err) == (0, "")
    assert Provisioner.model_validate(json.loads(made.out)).key().thumbprint()
    assert kms("key", str(tmp_path / "ann.pem")).out == made.out
    assert kms("key", str(tmp_path / "ann.pem"), "--new-key").code == 2


def test_a_key_made_by_openssl_serves_too(kms: Command, tmp_path: Path) -> None:
    """As docs/kms.md has it."""
    path = tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path], check=True
    )
    path.chmod(0o400)
    assert kms("key", str(path)).code == 0
