"""Endorsements (RFC 9334): the leaf that signed a report, candidates for its issuer, revocation lists.

No root: that comes from the trust anchors alone. No revocation list from the guest either: the operator's count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from attestation.errors import CertificateError
from attestation.pki.certificates import Certificate, is_signed_by, parse_certificates
from attestation.pki.crl import RevocationList
from attestation.report.abi import Report
from attestation.report.certificate_table import TableEntry
from attestation.report.envelopes import Evidence
from attestation.report.products import ProductLine, line_by_cpuid, line_by_issuer_name

_LEAVES = ("VCEK", "VLEK")
_INTERMEDIATES = ("ASK", "ASVK")
MAX_GUEST_INTERMEDIATES = 4  # one is needed; each costs a signature check


class Endorsements(NamedTuple):
    """`leaf` is a VCEK or VLEK, `intermediates` any number of ASKs and ASVKs in order of preference."""

    leaf: Certificate | None = None
    intermediates: tuple[Certificate, ...] = ()
    crls: tuple[RevocationList, ...] = ()

    def issuer_of_leaf(self) -> Certificate | None:
        """The candidate that made the leaf's signature, else one with the right name, else None.

        A revoked ASK and its successor share a name, and a guest may hand in either beside the operator's.
        """
        if self.leaf is None:
            return None
        leaf = self.leaf
        named = [candidate for candidate in self.intermediates if candidate.subject == leaf.issuer]
        signers = (candidate for candidate in named if is_signed_by(leaf.tbs, leaf.signature, candidate))
        return next(signers, named[0] if named else None)


def product_line(report: Report, endorsements: Endorsements) -> ProductLine | None:
    """CPUID's line; in version 2, which has none, the line that the leaf's issuer names. None when unknown."""
    if report.has_cpuid:
        return line_by_cpuid(report.cpuid_fam_id, report.cpuid_mod_id)
    return None if endorsements.leaf is None else line_by_issuer_name(endorsements.leaf.issuer_name)


def guest_supplied(evidence: Evidence) -> Endorsements:
    """The certificates that the guest handed in with its report."""
    return from_table(evidence.certificates)


def from_table(entries: Iterable[TableEntry]) -> Endorsements:
    """Leaf and intermediates by the kinds the table names; the unreadable is left out, roots and CRLs always."""
    leaves: list[Certificate] = []
    intermediates: list[Certificate] = []
    for entry in entries:
        target = leaves if entry.kind in _LEAVES else intermediates if entry.kind in _INTERMEDIATES else None
        if target is None:
            continue
        try:
            target.extend(parse_certificates(entry.data))
        except CertificateError:
            continue
    return Endorsements(leaves[0] if leaves else None, tuple(intermediates[:MAX_GUEST_INTERMEDIATES]))
