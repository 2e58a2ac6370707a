"""The errors of this package. A refused report is not an error: it is an attestation result that is not accepted.

    AttestationError
    ├── FormatError            bytes or JSON that are not what they claim to be
    ├── CertificateError       a certificate or CRL that cannot be read
    ├── PeerError              a server that gave no usable answer
    │   └── KeyServiceError    AMD's key service did not
    ├── EvidenceError          no evidence from a source (evidence.errors)
    └── SimulatorError         a simulated machine's folder that cannot be used (simulator.hierarchy)

    RefusedError               the verifier ends one request, with a reason (verifier.reasons)

Messages name offsets, sizes and expectations, never the evidence itself, because they end up in logs.
"""

from __future__ import annotations


class AttestationError(Exception):
    """Base of everything this library raises on purpose; input of any kind raises nothing else."""


class FormatError(AttestationError):
    """Bytes or JSON that are not what they claim to be (report, envelope, certificate table)."""


class CertificateError(AttestationError):
    """A certificate or CRL that cannot be read."""


class PeerError(AttestationError):
    """No usable answer from a server. `is_slow`: it came too late. The text names neither URL nor content."""

    def __init__(self, text: str, *, is_slow: bool = False) -> None:
        super().__init__(text)
        self.is_slow = is_slow


class KeyServiceError(PeerError):
    """AMD's key service did not answer as requested."""
