"""Trust anchors: the SHA-256 of each product line's root is pinned here, the files come from the operator.

A root from a guest's certificate table is never looked at. Trust anchors are an argument everywhere: a caller that
trusts another root (the simulated one, a test's own) has to pass it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from attestation.errors import CertificateError
from attestation.pki.certificates import Certificate
from attestation.report.products import LINES, SIMULATED

# Product line -> SHA-256 of the ARK's DER, as AMD's key service serves it (equal in five projects' copies).
AMD_ARKS: Mapping[str, str] = MappingProxyType(
    {
        "Milan": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
        "Genoa": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
        "Turin": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
    }
)


class TrustAnchors(NamedTuple):
    """`pins`: product line -> SHA-256 of its root. `certificates`: product line -> the operator's file for it.

    A file whose digest is not the pinned one stays in: the check `chain/anchor` refuses it and says what it saw.
    """

    pins: Mapping[str, str] = AMD_ARKS
    certificates: Mapping[str, Certificate] = MappingProxyType({})

    def is_foreign(self, line: str) -> bool:
        """This line rests on a root that is not AMD's; every result under it is a simulated one."""
        return line in self.pins and self.pins[line] != AMD_ARKS.get(line)

    def with_simulated(self, root: Certificate) -> TrustAnchors:
        """Also trust the root of one `morphisms simulated-hardware`; every result under it says so.

        Raises CertificateError for a root that carries another product line's name.
        """
        if root.subject_name != SIMULATED.ark_name:
            raise CertificateError(f"simulated root is named {root.subject_name!r}, required {SIMULATED.ark_name!r}")
        return TrustAnchors(
            {**self.pins, SIMULATED.name: root.sha256},
            {**self.certificates, SIMULATED.name: root},
        )


def amd_trust_anchors(certificates: Iterable[Certificate]) -> TrustAnchors:
    """Trust anchors from the operator's files: those named ARK-{Line}, the pinned one first if a line has two."""
    by_name = {line.ark_name: line.name for line in LINES if not line.simulated}
    found: dict[str, Certificate] = {}
    for certificate in certificates:
        line = by_name.get(certificate.subject_name)
        if line is not None and (line not in found or certificate.sha256 == AMD_ARKS.get(line)):
            found[line] = certificate
    return TrustAnchors(AMD_ARKS, found)
