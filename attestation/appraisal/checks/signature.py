"""The report's signature, over the bytes as received (AMD 56860, "Signature Format": R and S little-endian)."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from attestation.appraisal.check import CheckOutcome, Facts, check, required

# Order of P-384, FIPS 186-4 D.1.2.4.
P384_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973


@check("signature/encoding")
def encoding(facts: Facts) -> CheckOutcome:
    """R and S from 1 to n-1; beyond 48 bytes that includes the upper 24 bytes being zero."""
    wrong = [
        name
        for name, value in (("R", facts.report.signature_r), ("S", facts.report.signature_s))
        if not 1 <= int.from_bytes(value, "little") < P384_ORDER
    ]
    return CheckOutcome(
        not wrong, f"{' and '.join(wrong)} out of range" if wrong else "in range", "R and S in 1 to n-1"
    )


@check("signature/report", needs=("report/chip-key", "report/signature-algorithm", "signature/encoding", "leaf/key"))
def signature(facts: Facts) -> CheckOutcome:
    key = required(facts.leaf).key
    ok = isinstance(key, ec.EllipticCurvePublicKey) and is_signature(facts, key)
    return CheckOutcome(
        ok, "made by the leaf" if ok else "not made by the leaf", "made by the leaf over bytes 0x000..0x29f"
    )


def is_signature(facts: Facts, key: ec.EllipticCurvePublicKey) -> bool:
    """The key made the report's signature."""
    r, s = (int.from_bytes(value, "little") for value in (facts.report.signature_r, facts.report.signature_s))
    try:
        key.verify(encode_dss_signature(r, s), facts.report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True
