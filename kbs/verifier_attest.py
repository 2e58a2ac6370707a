"""`verifier.attest`: what a guest demands of the verifier before it sends anything about itself; as data and as JSON.

    {"signer": {"kty": "EC", "crv": "P-256", "x": …, "y": …}, "minSerial": 3}

names the key that signs the KMS's reference values (`kbs.references`), and the least serial of them. Or the values
themselves, the members of a guest (`kbs.guest_values`) and these:

    {"product": "Genoa", "measurements": […], "minTcb": {…}, "policy": {…}, "vmpl": [0],
     "hostData": […], "initdata": "enforced",        or "wholeImage": true
     "configurations": […]}                          optional: digests of the verifier's whole configuration

A measurement alone names a guest *image*, which any pod of that image has. So `hostData` with `initdata: enforced` is
required, or `wholeImage: true`, which states that the image itself runs the verifier and nothing else.

Both forms may hold `chipIds`, to which the KMS is limited, and `simulatedRoot`, the PEM of `morphisms
simulated-hardware`'s root, which makes every result of this worthless but for trials.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from kbs.attested import DIGEST_SIZE
from kbs.base64url import decode, encode
from kbs.guest_values import (
    GuestValuesError,
    Members,
    Reader,
    boolean,
    digests,
    filled_list,
    is_guest_name,
    number,
    read_guest_members,
    write_guest,
)
from kbs.reference_values import GuestReference

MAX_SERIAL: Final = (1 << 53) - 1  # a number that every reader of JSON has exactly
MAX_ROOT_SIZE: Final = 8 * 1024
ENFORCED: Final = "enforced"
SIMULATED: Final = "Simulated"
VALUES_NAME: Final = "verifier.attest"
_COORDINATE: Final = re.compile("[A-Za-z0-9_-]{43}")
_ALGORITHM: Final = "ES256"


class SignerKey(NamedTuple):
    """A public P-256 key that signs references: the coordinates of a JWK, base64url. Its point is not checked yet."""

    x: str
    y: str


class KmsGuest(NamedTuple):
    """Reference values of a guest that runs the verifier. `host_data` is not None, or `whole_image` is true."""

    reference: GuestReference
    whole_image: bool = False


class SignedReferences(NamedTuple):
    """The values come with the verifier's answer, signed by this key, with this serial or a later one."""

    signer: SignerKey
    min_serial: int


class PlainReferences(NamedTuple):
    """The values. `configurations`: accepted digests, 32 bytes each; None accepts any."""

    guest: KmsGuest
    configurations: frozenset[bytes] | None = None


class VerifierAttest(NamedTuple):
    """The whole demand. `chip_ids` None does not limit the chips. `simulated_root`: PEM, empty for AMD's roots."""

    references: SignedReferences | PlainReferences
    chip_ids: frozenset[bytes] | None = None
    simulated_root: str = ""

    def limited(self, guest: KmsGuest) -> GuestReference:
        """The guest's values, limited to `chip_ids` as well."""
        own = guest.reference.chip_ids
        if self.chip_ids is None:
            return guest.reference
        return guest.reference._replace(chip_ids=self.chip_ids if own is None else self.chip_ids & own)


def read_verifier_attest(value: object) -> VerifierAttest:
    """Raises GuestValuesError."""
    members = Members(value, VALUES_NAME)
    root = members.get("simulatedRoot", _root, "")
    chip_ids = members.get("chipIds", _optional_digests(64), None)
    references: SignedReferences | PlainReferences
    if isinstance(value, dict) and "signer" in value:
        references = SignedReferences(members.take("signer", read_signer), members.take("minSerial", serial_number))
    else:
        configurations = members.get("configurations", _optional_configurations, None)
        references = PlainReferences(_kms_guest("verifier", members), configurations)
        if (references.guest.reference.product == SIMULATED) != bool(root):
            raise GuestValuesError(f"{VALUES_NAME}.simulatedRoot: required with product {SIMULATED}, and only with it")
    members.end()
    return VerifierAttest(references, chip_ids, root)


def write_verifier_attest(attest: VerifierAttest) -> dict[str, Any]:
    """JSON-ready; `read_verifier_attest` reads it back."""
    references = attest.references
    if isinstance(references, SignedReferences):
        written: dict[str, Any] = {"signer": write_signer(references.signer), "minSerial": references.min_serial}
    else:
        written = write_kms_guest(references.guest)
        if references.configurations is not None:
            written["configurations"] = write_configurations(references.configurations)
    if attest.chip_ids is not None:
        written["chipIds"] = sorted(each.hex() for each in attest.chip_ids)
    if attest.simulated_root:
        written["simulatedRoot"] = attest.simulated_root
    return written


def read_kms_guest(name: str, value: object) -> KmsGuest:
    """The guest of this name. Raises GuestValuesError."""
    if not is_guest_name(name):
        raise GuestValuesError("a guest's name is not 1 to 63 letters, digits, . _ -, such as kms-1")
    members = Members(value, name)
    guest = _kms_guest(name, members)
    members.end()
    return guest


def write_kms_guest(guest: KmsGuest) -> dict[str, Any]:
    """JSON-ready; `read_kms_guest` reads it back."""
    written = write_guest(guest.reference)
    if guest.reference.host_data is not None:
        written["initdata"] = ENFORCED
    if guest.whole_image:
        written["wholeImage"] = True
    return written


def read_signer(value: object, where: str = "signer") -> SignerKey:
    """From a JWK with the members kty, crv, x, y and, as one likes, alg. Raises GuestValuesError."""
    members = Members(value, where)
    members.take("kty", _exactly("EC"))
    members.take("crv", _exactly("P-256"))
    members.get("alg", _exactly(_ALGORITHM), _ALGORITHM)
    key = SignerKey(members.take("x", _coordinate), members.take("y", _coordinate))
    members.end()
    return key


def write_signer(key: SignerKey) -> dict[str, str]:
    """As a JWK."""
    return {"kty": "EC", "crv": "P-256", "x": key.x, "y": key.y}


def serial_number(value: object, where: str) -> int:
    """Reads a serial. Raises GuestValuesError."""
    return number(53)(value, where)


def read_configurations(value: object, where: str) -> frozenset[bytes]:
    """Reads a list of at least one digest of a configuration, 32 bytes in base64url. Raises GuestValuesError."""
    try:
        return frozenset(decode(each, DIGEST_SIZE) for each in filled_list(value, where))
    except GuestValuesError:
        raise
    except ValueError as error:
        raise GuestValuesError(f"{where}: {error}") from None


def write_configurations(configurations: frozenset[bytes]) -> list[str]:
    """JSON-ready; `read_configurations` reads it back."""
    return sorted(map(encode, configurations))


def _kms_guest(name: str, members: Members) -> KmsGuest:
    initdata = members.get("initdata", _exactly(ENFORCED), "")
    whole_image = members.get("wholeImage", boolean, False)
    reference = read_guest_members(name, members)
    has_host_data = reference.host_data is not None
    if has_host_data and bytes(32) in (reference.host_data or ()):
        raise GuestValuesError(f"{name}.hostData: all zeros, which is a guest without initdata")
    if has_host_data != bool(initdata):
        raise GuestValuesError(f"{name}.initdata: {ENFORCED} is required with hostData, and only with it")
    if not has_host_data and not whole_image:
        raise GuestValuesError(
            f"{name}: measurements alone name an image, which any pod of that image has; hostData with initdata:"
            f" {ENFORCED} is required, or wholeImage: true"
        )
    return KmsGuest(reference, whole_image)


def _exactly(text: str) -> Reader[str]:
    def read(value: object, where: str) -> str:
        if value != text:
            raise GuestValuesError(f"{where}: not {text}")
        return text

    return read


def _coordinate(value: object, where: str) -> str:
    if not isinstance(value, str) or not _COORDINATE.fullmatch(value):
        raise GuestValuesError(f"{where}: not a coordinate of P-256, 43 characters of base64url")
    return value


def _root(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.isascii() or not 0 < len(value) <= MAX_ROOT_SIZE:
        raise GuestValuesError(f"{where}: not PEM text of at most {MAX_ROOT_SIZE} characters")
    return value


def _optional_digests(size: int) -> Reader[frozenset[bytes] | None]:
    return digests(size)


def _optional_configurations(value: object, where: str) -> frozenset[bytes] | None:
    return read_configurations(value, where)
