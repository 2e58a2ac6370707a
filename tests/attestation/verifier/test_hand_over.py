"""Secrets from one replica to another: three real processes that prove themselves, and those who pose as one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from attestation.report.products import SIMULATED
from attestation.report.tcb import encode_tcb
from attestation.simulator.device import Device, Tamper
from attestation.simulator.hierarchy import TCB, Hierarchy
from attestation.verifier.handlers import JWKS_PATH
from kbs.attested import ATTESTED_PATH
from kbs.ephemeral_key import EphemeralKey
from kbs.guest import (
    open_sealed,
    read_attest_answer,
    read_auth_answer,
    write_additional_evidence,
    write_attest,
    write_auth,
)
from kbs.hand_over import PROVISIONED_PATH, PROVISIONED_ROLE, write_replica_evidence
from kbs.messages import ATTEST_PATH, AUTH_PATH, binding
from kbs.provision import SecretName
from kbs.reference_values import TcbFloor
from kbs.references import References
from kbs.references_signing import write_references
from tests.attestation.kms import BentDevice, kms_guest
from tests.attestation.verifier.attesting import digest_of, make_attesting_site
from tests.attestation.verifier.guest import Answer, document
from tests.attestation.verifier.process import Site, Verifier, verifier
from tests.attestation.verifier.provisioner import Provisioner, jwk, provisioning
from tests.attestation.verifier.test_provisioning import authority, text_of
from tests.attestation.verifier.tokens import Issuer
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.processes import morphisms
from tests.support.simulated_machine import simulated_machine
from tests.support.until import until

HOST_DATA = b"k" * 32
NEEDS = [SecretName.SIGNING_KEY, SecretName.TLS_CA_KEY]
PROVISIONER = ECKey.generate_key("P-256")
REFERENCES_SIGNER = ECKey.generate_key("P-256")
SIGNING = ECKey.generate_key("P-256")


def secrets_of() -> dict[SecretName, str]:
    pem = SIGNING.as_pem(private=True).decode()
    return {SecretName.SIGNING_KEY: pem, SecretName.TLS_CA_KEY: text_of(authority())}


@dataclass
class Replicas:
    """Folders of replicas: they differ in their port alone, so their configuration has one digest."""

    folder: Path
    hierarchy: Hierarchy
    issuer: Issuer
    machine: str
    ports: list[int]

    @property
    def chip(self) -> str:
        return (self.hierarchy.vcek.vek.hwid or b"").hex()

    def site(self, name: str, port: int = 0, **changes: Any) -> Site:
        """`changes`: of the section `provisioning`."""
        folder = self.folder / name
        folder.mkdir()
        site = make_attesting_site(folder, self.hierarchy, self.issuer, self.machine)
        peers = [f"https://127.0.0.1:{each}" for each in self.ports]
        section = provisioning(PROVISIONER, needs=NEEDS, peers=peers, chipIds=[self.chip])
        site.settings["provisioning"] = section | changes
        site.settings["signing"] = {"provisioned": True}
        site.port = port
        return site


@pytest.fixture(scope="module")
def machine(hierarchy: Hierarchy) -> Iterator[str]:
    """All replicas run on one chip, as guests of one image and initdata."""
    with simulated_machine(hierarchy, HOST_DATA) as address:
        yield address


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory, hierarchy: Hierarchy, issuer: Issuer, machine: str) -> Replicas:
    return Replicas(tmp_path_factory.mktemp("replicas"), hierarchy, issuer, machine, [free_port() for _ in range(3)])


@pytest.fixture(scope="module")
def giver(replicas: Replicas) -> Iterator[Verifier]:
    """The first replica, which a person has provisioned. Its references list a guest of other HOST_DATA."""
    signed_by = {"signer": jwk(REFERENCES_SIGNER), "minSerial": 3}
    site = replicas.site("giver", replicas.ports[0], references=signed_by)
    site.settings["attest"]["references"] = "references.jws"
    lowest = TcbFloor(1, 0, 1, 1)
    floors = {"min_tcb": lowest, "min_committed_tcb": lowest, "min_launch_tcb": lowest}
    other = kms_guest(host_data=frozenset({b"n" * 32}), **floors)
    references = References(3, (other,), frozenset({b"o" * 32}))
    (site.folder / "references.jws").write_text(write_references(references, REFERENCES_SIGNER))
    with verifier(site) as process:
        person = Provisioner(process.port, PROVISIONER)
        assert not person.provision(secrets_of()).sealed
        person.close()
        yield process


class Poser:
    """Speaks as a replica does, with the evidence that it has; it is right in everything that is not changed."""

    def __init__(self, giver: Verifier, device: Device, configuration: bytes) -> None:
        self.connection = Provisioner(giver.port, PROVISIONER)
        self.device = device
        self.key = EphemeralKey()
        self.additional = write_replica_evidence(configuration)
        self.nonce = read_auth_answer(self.connection.call("POST", AUTH_PATH, write_auth()).body)

    def body(self) -> bytes:
        digest = binding(self.nonce, self.key.public, self.additional)
        return write_attest(self.nonce, self.key.public, document(self.device, digest), self.additional)

    def attest(self) -> Answer:
        return self.connection.call("POST", ATTEST_PATH, self.body())

    def take(self, bearer: str) -> Answer:
        return self.connection.call("GET", PROVISIONED_PATH, None, {"Authorization": f"Bearer {bearer}"})


def test_two_sealed_replicas_get_what_a_person_gave_the_first(replicas: Replicas, tmp_path: Path) -> None:
    own = Replicas(tmp_path, replicas.hierarchy, replicas.issuer, replicas.machine, [free_port() for _ in range(3)])
    sites = [own.site(f"replica-{number}", port) for number, port in enumerate(own.ports)]
    assert len({digest_of(site) for site in sites}) == 1
    values = secrets_of()
    with verifier(sites[0]) as first, verifier(sites[1]) as second:
        until(lambda: any("sealed too" in line["detail"] for line in second.events("not_taken_over")))
        person = Provisioner(first.port, PROVISIONER)
        person.provision(values)
        with verifier(sites[2]) as third:
            for replica in (second, third):
                caller = Provisioner(replica.port, PROVISIONER)
                until(lambda caller=caller: caller.call("GET", "/readyz").status == 200)  # type: ignore[misc]
                (listed,) = json.loads(caller.call("GET", JWKS_PATH).body)["keys"]
                assert listed["kid"] == SIGNING.thumbprint()
                below = Provisioner(
                    replica.port, PROVISIONER, values[SecretName.TLS_CA_KEY].partition("-----BEGIN PR")[0]
                )
                assert below.spki != person.spki, "the CA's key travels, a leaf's never does"
                assert caller.state().sealed is False
            said = "".join(each.log_path.read_text() for each in (first, second, third))
            said += "".join(json.dumps(site.records()) for site in sites)
            said += person.call("GET", "/metrics").body.decode()
    assert said.count('"taken_over"') == 2
    for pem in values.values():
        for line in pem.splitlines():
            assert len(line) < 20 or "BEGIN" in line or "END" in line or line not in said


FIELDS: dict[str, dict[str, Any]] = {
    "guest/measurement": {"measurement": b"m" * 48},
    "guest/host-data": {"host_data": b"w" * 32},
    "guest/vmpl": {"vmpl": 1},
    "policy/exact": {"policy": 0x20000},
    "policy/debug": {"policy": 0x30000 | 1 << 19},
    "guest/chip-id": {"chip_id": b"c" * 64},
    "tcb/launch-floor": {"launch_tcb": b""},
    "tcb/committed-floor": {"committed_tcb": b""},
    "tcb/reported-floor": {"reported_tcb": b""},
}


@pytest.mark.parametrize("check", FIELDS)
def test_a_guest_that_differs_in_one_field_gets_nothing(giver: Verifier, hierarchy: Hierarchy, check: str) -> None:
    """Truly signed by the same chip: another image, another document, a debugger, older firmware."""
    fields = {name: value or _older() for name, value in FIELDS[check].items()}
    device = BentDevice(hierarchy, host_data=HOST_DATA, fields=fields)
    refuses(giver, Poser(giver, device, digest_of(giver.site)), check)


@pytest.mark.parametrize(
    ("tamper", "check"),
    [
        (Tamper.SIGNATURE, "signature/report"),
        (Tamper.MEASUREMENT, "guest/measurement"),
        (Tamper.TCB, "tcb/reported-floor"),
    ],
)
def test_a_report_that_no_firmware_signed_gets_nothing(
    giver: Verifier, hierarchy: Hierarchy, tamper: Tamper, check: str
) -> None:
    device = Device(hierarchy, host_data=HOST_DATA, tamper=tamper)
    refuses(giver, Poser(giver, device, digest_of(giver.site)), check)


def test_the_operator_reads_why_a_replica_was_refused(giver: Verifier, hierarchy: Hierarchy) -> None:
    answer = Poser(giver, Device(hierarchy, host_data=b"w" * 32), digest_of(giver.site)).attest()
    told = explained(giver.site, answer.error.correlation_id)
    assert "replica: guest/host-data: FAILED: HOST_DATA" in told
    assert "SIMULATED" in told


def test_a_replica_whose_host_wrote_another_configuration_gets_nothing(giver: Verifier, hierarchy: Hierarchy) -> None:
    """With a Vault of the host's own it would send the credential there."""
    device = Device(hierarchy, host_data=HOST_DATA)
    refuses(giver, Poser(giver, device, b"h" * 32), "replica/configuration")


def test_evidence_for_a_pods_login_is_none_for_a_hand_over(giver: Verifier, hierarchy: Hierarchy) -> None:
    """Any process in the guest can have a report over a value of its choice; the two uses do not share values."""
    poser = Poser(giver, Device(hierarchy, host_data=HOST_DATA), digest_of(giver.site))
    asked = poser.additional
    poser.additional = write_additional_evidence("a.b.c")
    evidence = json.loads(poser.body())["tee-evidence"]["primary_evidence"]
    body = write_attest(poser.nonce, poser.key.public, evidence, asked)
    answer = poser.connection.call("POST", ATTEST_PATH, body)
    assert answer.status == 401
    assert failed(giver, answer)["replica"] == ["guest/report-data"]


def test_another_connections_key_and_a_used_nonce_get_nothing(giver: Verifier, hierarchy: Hierarchy) -> None:
    poser = Poser(giver, Device(hierarchy, host_data=HOST_DATA), digest_of(giver.site))
    body = poser.body()
    bearer = read_attest_answer(poser.connection.call("POST", ATTEST_PATH, body).body)
    assert poser.connection.call("POST", ATTEST_PATH, body).status == 401, "the nonce was good once"
    relayed = json.loads(poser.body())
    relayed["runtime-data"]["tee-pubkey"] = EphemeralKey().public
    assert poser.connection.call("POST", ATTEST_PATH, json.dumps(relayed).encode()).status == 401
    assert poser.take("x" * 43).status == 401
    answer = poser.take(bearer)
    assert set(open_sealed(answer.body, poser.key, poser.nonce, PROVISIONED_ROLE)) == {each.value for each in NEEDS}
    assert poser.take(bearer).status == 401, "the bearer was good once"


def test_signed_references_name_a_replica_with_its_own_configuration_alone(
    giver: Verifier, hierarchy: Hierarchy
) -> None:
    """As during an update: the next initdata, listed by the KMS's signer, beside the next configuration."""
    listed = Device(hierarchy, host_data=b"n" * 32)
    assert Poser(giver, listed, b"o" * 32).attest().status == 200
    refuses(giver, Poser(giver, listed, digest_of(giver.site)), "replica/configuration", "kms")
    refuses(giver, Poser(giver, Device(hierarchy, host_data=HOST_DATA), b"o" * 32), "replica/configuration")
    older = BentDevice(hierarchy, host_data=b"n" * 32, fields={"launch_tcb": _older()})
    refuses(giver, Poser(giver, older, b"o" * 32), "tcb/launch-floor", "kms")
    elsewhere = BentDevice(hierarchy, host_data=b"n" * 32, fields={"chip_id": b"c" * 64})
    refuses(giver, Poser(giver, elsewhere, b"o" * 32), "guest/chip-id", "kms")


def test_a_sealed_replica_takes_nothing_from_who_is_none(
    replicas: Replicas, hierarchy: Hierarchy, tmp_path: Path
) -> None:
    """The host runs a verifier of its own, with its own initdata and keys, at a peer's address."""
    own = Replicas(tmp_path, hierarchy, replicas.issuer, replicas.machine, [free_port()])
    with simulated_machine(hierarchy, b"e" * 32) as elsewhere:
        # It looks for no peers itself, because it would find itself, and hand over to itself.
        poser = replace(own, machine=elsewhere).site("poser", own.ports[0], peers=[])
        with verifier(poser) as evil, verifier(own.site("victim")) as victim:
            Provisioner(evil.port, PROVISIONER).provision(secrets_of())
            until(lambda: any("not a replica" in line["detail"] for line in victim.events("not_taken_over")))
            lines = [line["detail"] for line in victim.events("not_taken_over")]
            told, *_ = [line for line in lines if "not a replica" in line]
            assert "guest/host-data" in told
            assert Provisioner(victim.port, PROVISIONER).state().sealed
            assert not evil.events("hand_over"), "it learned nothing about the replica either"


def test_a_guest_without_initdata_is_no_replica_by_its_measurement_alone(
    replicas: Replicas, hierarchy: Hierarchy, tmp_path: Path
) -> None:
    with simulated_machine(hierarchy, bytes(32)) as machine:
        own = Replicas(tmp_path, hierarchy, replicas.issuer, machine, [free_port()])
        with verifier(own.site("open")) as process:
            Provisioner(process.port, PROVISIONER).provision(secrets_of())
            poser = Poser(process, Device(hierarchy, host_data=bytes(32)), digest_of(process.site))
            assert poser.attest().status == 401
            (line,) = process.events("hand_over")
            assert "no initdata" in line["detail"]
            told = explained(process.site, line["correlation_id"])
            assert "hand-over  REFUSED: no-policy" in told


def test_a_sealed_replica_hands_nothing_over_and_attests_itself(replicas: Replicas, tmp_path: Path) -> None:
    """Also one that cannot read its policies before it has the credential for Vault."""
    own = Replicas(tmp_path, replicas.hierarchy, replicas.issuer, replicas.machine, [])
    needs = [name.value for name in (*NEEDS, SecretName.VAULT_ROLE_ID, SecretName.VAULT_SECRET_ID)]
    site = own.site("sealed", peers=[], needs=needs)
    site.settings["vault"]["login"] = {"provisioned": {}}
    site.settings["policyVault"] = {"path": "verifier/policies"}
    del site.settings["policies"], site.settings["guests"]
    with verifier(site) as process:
        caller = Provisioner(process.port, PROVISIONER)
        assert caller.call("POST", AUTH_PATH, write_auth()).status == 503
        assert caller.call("GET", PROVISIONED_PATH).status == 503
        nonce = json.dumps({"nonce": "A" * 43}).encode()
        assert caller.call("POST", ATTESTED_PATH, nonce).status == 200


def refuses(giver: Verifier, poser: Poser, check: str, compared_with: str = "replica") -> None:
    """`compared_with`: the reference values that it fails by this check; "replica" is the giver's own report."""
    answer = poser.attest()
    assert answer.status == 401
    assert check in failed(giver, answer)[compared_with]
    assert b"tcb" not in answer.body
    poser.connection.close()


def failed(giver: Verifier, answer: Answer) -> dict[str, list[str]]:
    """The failed checks by reference values, as the log names them."""
    (line,) = giver.events("hand_over", answer.error.correlation_id)
    assert line["simulated"] is True
    parts = [part.partition(": ") for part in line["detail"].split("; ")]
    return {name: ids.split(", ") for name, _, ids in parts}


def explained(site: Site, correlation_id: str) -> str:
    """What `morphisms explain` prints of it."""
    words = morphisms("explain", correlation_id, "--config", site.folder / "verifier.yaml")
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True).stdout


def _older() -> bytes:
    return encode_tcb(TCB._replace(snp=TCB.snp - 1), SIMULATED.tcb_layout)
