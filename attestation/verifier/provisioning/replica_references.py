"""Which other guest is a replica of this verifier's: what this guest's own report says, or what the KMS's signer says.

Pure. A replica has this guest's MEASUREMENT, HOST_DATA, POLICY and VMPL, or those of signed reference values; in both
cases a TCB that is not lower in any component, and a chip that the configuration lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from attestation.report.abi import Report, SigningKey
from attestation.report.products import ProductLine, line_by_cpuid
from attestation.report.tcb import decode_tcb
from kbs.reference_values import GuestReference, RequiredGuestPolicy, TcbFloor
from kbs.references import ReferencesError, read_references
from kbs.verifier_attest import KmsGuest, PlainReferences, SignedReferences, VerifierAttest

OWN_VALUES = "replica"


class _Versions(Protocol):
    """What a TCB and a floor have in common."""

    @property
    def bootloader(self) -> int: ...
    @property
    def tee(self) -> int: ...
    @property
    def snp(self) -> int: ...
    @property
    def microcode(self) -> int: ...
    @property
    def fmc(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Replicas:
    """The rule for one verifier. `configuration`: the digest of its own; `chip_ids`: of the machines it may run on.

    `signed`: whose reference values count too; `references`: those in force, compact JWS, empty for none.
    `simulated_root`: PEM, for trials.
    """

    report: Report
    configuration: bytes
    chip_ids: frozenset[bytes]
    signed: SignedReferences | None = None
    references: str = ""
    simulated_root: str = ""

    def accepted(self) -> tuple[tuple[GuestReference, frozenset[bytes]], ...]:
        """The guests that may get the secrets, each with the configurations that it may have; empty for none."""
        found = []
        if (own := self._own()) is not None:
            found.append((own, frozenset({self.configuration})))
        return (*found, *self._listed())

    def demands(self) -> tuple[VerifierAttest, ...]:
        """What this verifier demands of another one before it takes secrets of it: one of these has to hold."""
        found = []
        if (own := self._own()) is not None:
            values = PlainReferences(KmsGuest(own), frozenset({self.configuration}))
            found.append(VerifierAttest(values, self.chip_ids, self.simulated_root))
        if self.signed is not None:
            found.append(VerifierAttest(self.signed, self.chip_ids, self.simulated_root))
        return tuple(found)

    def _own(self) -> GuestReference | None:
        """None for a guest without initdata: its measurement names an image, which any pod of that image has."""
        report, line = self.report, self._line()
        if line is None or not any(report.host_data):
            return None
        reported, committed, launch = self._floors(line)
        is_vlek = report.signing_key == SigningKey.VLEK
        return GuestReference(
            OWN_VALUES,
            line.name,
            frozenset({report.measurement}),
            reported,
            committed,
            launch,
            policy=RequiredGuestPolicy(exact=report.policy),
            vmpl=frozenset({report.vmpl}),
            host_data=frozenset({report.host_data}),
            chip_ids=self.chip_ids,
            # A VLEK is its provider's; only signed values can name that one.
            signing_keys=frozenset() if is_vlek else frozenset({"VCEK"}),
        )

    def _listed(self) -> list[tuple[GuestReference, frozenset[bytes]]]:
        line = self._line()
        if self.signed is None or not self.references or line is None:
            return []
        try:
            references = read_references(self.references, self.signed.signer)
        except ReferencesError:
            return []
        if references.serial < self.signed.min_serial:
            return []
        reported, committed, launch = self._floors(line)
        return [
            (
                each.reference._replace(
                    min_tcb=_higher(each.reference.min_tcb, reported),
                    min_committed_tcb=_higher(each.reference.min_committed_tcb, committed),
                    min_launch_tcb=_higher(each.reference.min_launch_tcb, launch),
                    chip_ids=self._chips(each.reference),
                    # A replica's revocation is checked, whatever is left to guests.
                    revocation=None,
                ),
                references.configurations,
            )
            for each in references.guests
            # Versions of two product lines do not compare.
            if each.reference.product == line.name
        ]

    def _chips(self, reference: GuestReference) -> frozenset[bytes]:
        return self.chip_ids if reference.chip_ids is None else self.chip_ids & reference.chip_ids

    def _line(self) -> ProductLine | None:
        report = self.report
        return line_by_cpuid(report.cpuid_fam_id, report.cpuid_mod_id) if report.has_cpuid else None

    def _floors(self, line: ProductLine) -> Sequence[TcbFloor]:
        report = self.report
        raw = (report.reported_tcb, report.committed_tcb, report.launch_tcb)
        tcbs = [decode_tcb(each, line.tcb_layout) for each in raw]
        return [TcbFloor(tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode, tcb.fmc) for tcb in tcbs]


def _higher(one: _Versions, other: _Versions) -> TcbFloor:
    return TcbFloor(
        max(one.bootloader, other.bootloader),
        max(one.tee, other.tee),
        max(one.snp, other.snp),
        max(one.microcode, other.microcode),
        None if one.fmc is None or other.fmc is None else max(one.fmc, other.fmc),
    )
