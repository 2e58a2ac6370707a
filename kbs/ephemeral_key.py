"""The guest's key pair of one attestation, and the one form of JWE (RFC 7516) that it opens.

ECDH-ES+A256KW over P-256 (RFC 7518, 4.6) and A256GCM (5.3), from the primitives of `cryptography`: a JOSE library costs
every cold start more than the rest of the attestation. The verifier seals with a library, and the tests compare both.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

from kbs.base64url import decode, encode
from kbs.messages import CONTENT_ALGORITHM, CURVE, KEY_ALGORITHM, MAX_ANSWER_SIZE, WireError, read_json

_KEY_SIZE: Final = 32
_COORDINATE_SIZE: Final = 32
_IV_SIZE: Final = 12
_TAG_SIZE: Final = 16
_HEADER: Final = {"alg", "enc", "epk", "nonce", "role"}
_CANNOT_OPEN: Final = "answer cannot be decrypted with the ephemeral key"


class EphemeralKey:
    """The guest's P-256 key pair for one attestation; it never leaves the process that made it."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public(self) -> dict[str, str]:
        """The `tee-pubkey` member."""
        point = self._key.public_key().public_numbers()
        x, y = (encode(number.to_bytes(_COORDINATE_SIZE, "big")) for number in (point.x, point.y))
        return {"kty": "EC", "crv": CURVE, "alg": KEY_ALGORITHM, "x": x, "y": y}

    def decrypt(
        self, protected: str, encrypted_key: str, iv: str, ciphertext: str, tag: str
    ) -> tuple[dict[str, Any], bytes]:
        """Protected header and plaintext of a JWE, given its five parts in base64url. Raises WireError.

        The header has alg, enc, epk, nonce and role, and no other member, so that none can change what the others mean.
        """
        header = read_json(_decode(protected), MAX_ANSWER_SIZE, "protected header")
        if header.keys() != _HEADER:
            raise WireError("protected header has other members than alg, enc, epk, nonce and role")
        if (header["alg"], header["enc"]) != (KEY_ALGORITHM, CONTENT_ALGORITHM):
            raise WireError(f"protected header is not for {KEY_ALGORITHM} and {CONTENT_ALGORITHM}")
        nonce, sealed = _decode(iv, _IV_SIZE), _decode(ciphertext) + _decode(tag, _TAG_SIZE)
        wrapped = _decode(encrypted_key, _KEY_SIZE + 8)  # RFC 3394 adds one block of 64 bits
        try:
            key = aes_key_unwrap(self._agreed(header["epk"]), wrapped)
            plaintext = AESGCM(key).decrypt(nonce, sealed, protected.encode())
        except (InvalidUnwrap, InvalidTag):
            raise WireError(_CANNOT_OPEN) from None
        return header, plaintext

    def _agreed(self, epk: object) -> bytes:
        """The key that both sides derive (NIST SP 800-56A's Concat KDF as in RFC 7518, 4.6.2, without apu and apv)."""
        if not isinstance(epk, dict) or (epk.get("kty"), epk.get("crv")) != ("EC", CURVE):
            raise WireError(f"epk is not an EC key on {CURVE}")
        x, y = (int.from_bytes(_decode(epk.get(name), _COORDINATE_SIZE), "big") for name in ("x", "y"))
        try:
            point = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        except ValueError:
            raise WireError(f"epk is not a point on {CURVE}") from None
        secret = self._key.exchange(ec.ECDH(), point)
        algorithm = KEY_ALGORITHM.encode()
        other = _count(len(algorithm)) + algorithm + _count(0) + _count(0) + _count(8 * _KEY_SIZE)
        return sha256(_count(1) + secret + other).digest()


def _count(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _decode(text: object, size: int | None = None) -> bytes:
    try:
        return decode(text, size)
    except ValueError as error:
        raise WireError(f"answer is not a JWE: {error}") from None
