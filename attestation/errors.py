"""What can go wrong before a verdict exists. A refused report is not an error: it is a verdict that says no.

Messages name offsets, sizes and expectations, never the evidence itself: they end up in logs.
"""

from __future__ import annotations


class AttestationError(Exception):
    """Base of everything this library raises on purpose; input of any kind raises nothing else."""


class FormatError(AttestationError):
    """Bytes or JSON that are not what they claim to be (report, envelope, certificate table)."""


class CertificateError(AttestationError):
    """A certificate or CRL that cannot be read."""


class PolicyError(AttestationError):
    """Reference values that cannot be used; the message carries the path of the wrong key."""


class KeyServiceError(AttestationError):
    """AMD's key service did not give what was asked for."""
