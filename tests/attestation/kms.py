"""A verifier in its own confidential VM, as `/attested` shows it: answers of a simulated machine, bent at will."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from joserfc.jwk import ECKey

from attestation.report.abi import parse_report
from attestation.report.certificate_table import TableEntry, parse_certificate_table
from attestation.report.coco import write_coco_evidence
from attestation.report.report_data import padded
from attestation.simulator.device import DEFAULT_MEASUREMENT, Device
from attestation.simulator.hierarchy import TCB, Hierarchy
from kbs.attested import build_tree, statement_digest
from kbs.attested_guest import AttestedAnswer, read_attested_answer
from kbs.messages import write_json
from kbs.reference_values import GuestReference, TcbFloor
from kbs.references import References
from kbs.references_signing import signer_of, write_references
from kbs.verifier import write_attested_answer
from kbs.verifier_attest import KmsGuest, PlainReferences, SignedReferences, VerifierAttest

KMS_HOST_DATA = b"k" * 32
# The same guest as an operator writes it, for `morphisms kms references --guests`.
KMS_ENTRY: dict[str, Any] = {
    "product": "Simulated",
    "measurements": [DEFAULT_MEASUREMENT.hex()],
    "minTcb": TCB.as_dict(),
    "policy": {},
    "vmpl": 0,
    "hostData": [KMS_HOST_DATA.hex()],
    "initdata": "enforced",
}
CONFIGURATION, POLICIES = b"c" * 32, b"p" * 32
SERIAL = 7
_FLOOR = TcbFloor(TCB.bootloader, TCB.tee, TCB.snp, TCB.microcode)


@dataclass(frozen=True)
class BentDevice(Device):
    """A machine whose firmware truly signs these fields."""

    fields: dict[str, int | bytes] = field(default_factory=dict)

    def _values(self, report_data: bytes) -> dict[str, int | bytes]:
        return super()._values(report_data) | self.fields


def kms_guest(**changes: Any) -> KmsGuest:
    """Reference values that the simulated KMS meets."""
    reference = GuestReference(
        "kms",
        "Simulated",
        frozenset({DEFAULT_MEASUREMENT}),
        _FLOOR,
        _FLOOR,
        _FLOOR,
        host_data=frozenset({KMS_HOST_DATA}),
    )
    return KmsGuest(reference._replace(**changes), changes.get("host_data", True) is None)


@dataclass(frozen=True)
class Kms:
    """`spki` is the digest of the key that its TLS shows; `neighbours` are nonces that share its firmware call."""

    hierarchy: Hierarchy
    spki: bytes = b"s" * 32
    fields: dict[str, int | bytes] = field(default_factory=dict)
    host_data: bytes = KMS_HOST_DATA
    configuration: bytes = CONFIGURATION
    signer: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))
    serial: int = SERIAL
    guests: tuple[KmsGuest, ...] = (kms_guest(),)
    configurations: frozenset[bytes] = frozenset({CONFIGURATION})
    neighbours: tuple[bytes, ...] = ()

    @property
    def root(self) -> str:
        return self.hierarchy.root_path.read_text()

    @property
    def by_signer(self) -> VerifierAttest:
        """What a plan demands of it: signed reference values."""
        return VerifierAttest(SignedReferences(signer_of(self.signer), SERIAL), simulated_root=self.root)

    def by_values(self, configurations: frozenset[bytes] | None = None, **changes: Any) -> VerifierAttest:
        """What a plan demands of it: the values themselves."""
        return VerifierAttest(PlainReferences(kms_guest(**changes), configurations), simulated_root=self.root)

    def body(self, fresh: bytes, /, **members: Any) -> bytes:
        """Its answer to a fresh nonce; `members` replace those of the statement that its report binds."""
        nonces = (*self.neighbours, fresh)
        tree = build_tree(nonces)
        device = BentDevice(self.hierarchy, host_data=self.host_data, fields=self.fields)
        bound = {"nonce": tree.root, "spki": self.spki, "policies": POLICIES, "configuration": self.configuration}
        report = parse_report(device.report(padded(statement_digest(**bound | members))))
        chain = [*parse_certificate_table(device.certificate_table()), TableEntry("ARK", self.hierarchy.root.der)]
        references = References(self.serial, self.guests, self.configurations)
        return write_attested_answer(
            evidence=write_json(write_coco_evidence(report, chain)),
            path=tree.paths[-1],
            policies=POLICIES,
            configuration=self.configuration,
            references=write_references(references, self.signer),
        )

    def answer(self, fresh: bytes, /, **members: Any) -> AttestedAnswer:
        """As `body`, read by a guest."""
        return read_attested_answer(self.body(fresh, **members))
