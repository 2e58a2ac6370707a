"""`verifier.attest` as operators write it, and guests that run the verifier: read by pydantic into the plain types.

Two forms. `{signer, minSerial}` names the key that signs the KMS's reference values; the other form holds the values
themselves. The webhook's configuration has it, and so has any file that says which verifier to trust. A guest reads
`kbs.verifier_attest` instead, whose rules hold here too.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    RootModel,
    Tag,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from kbs.attested import DIGEST_SIZE
from kbs.base64url import decode
from kbs.guest_values import GuestValuesError
from kbs.verifier_attest import (
    MAX_ROOT_SIZE,
    MAX_SERIAL,
    KmsGuest,
    VerifierAttest,
    read_kms_guest,
    read_verifier_attest,
    write_configurations,
    write_kms_guest,
)
from server.guest_entries import ExactPolicy, GuestEntry, PolicySection, is_mapping
from server.guest_values import Boolean, Digests64, Vmpls
from server.yaml.fields import CertificatesText

_NAME = "verifier"
# No keys of either form, because they stand beside keys in the places of errors.
_BY_SIGNER, _BY_VALUES = "by-signer", "by-values"
MAX_SIZE = 16 * 1024  # a quarter of a plan
_BASE64URL_32 = "^[A-Za-z0-9_-]{43}$"


def _wrong(text: str) -> PydanticCustomError:
    """The text must hold no value, see `server.yaml.strict`."""
    return PydanticCustomError("verifier_attest", "{text}", {"text": text})


def _without(prefix: str, error: GuestValuesError) -> str:
    """The error's text; where it stands, its reader knows."""
    return str(error).removeprefix(prefix).lstrip(".: ")


def _configuration(value: object) -> bytes:
    try:
        return decode(value, DIGEST_SIZE)
    except ValueError:
        raise _wrong("required the digest that the verifier logs when it starts, 43 characters of base64url") from None


Configurations = Annotated[
    tuple[
        Annotated[bytes, PlainValidator(_configuration), WithJsonSchema({"type": "string", "pattern": _BASE64URL_32})],
        ...,
    ],
    Field(min_length=1),
]
_ChipIds = Annotated[
    Digests64 | None, Field(description="the chips of the machines that may run the verifier; left out: any chip")
]
_SimulatedRoot = Annotated[
    CertificatesText,
    Field(
        max_length=MAX_ROOT_SIZE,
        description="root.pem of `morphisms simulated-hardware`, for trials: only where all evidence is simulated",
    ),
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Attest(BaseModel):
    """What both forms can do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def document(self) -> dict[str, Any]:
        """As a guest reads it."""
        raise NotImplementedError

    def plain(self) -> VerifierAttest:
        """As the plain type. Raises GuestValuesError only while the form is read."""
        return read_verifier_attest(self.document())

    @model_validator(mode="after")
    def _readable(self) -> Self:
        # What a guest would refuse to read is refused here.
        try:
            self.plain()
        except GuestValuesError as error:
            raise _wrong(_without("verifier.attest", error)) from None
        size = len(json.dumps(self.document(), separators=(",", ":")))
        if size > MAX_SIZE:
            raise _wrong(
                f"{size} bytes as JSON, at most {MAX_SIZE} are allowed, because every pod carries them; use the form"
                " {signer, minSerial}"
            )
        return self

    def as_written(self) -> dict[str, Any]:
        """As this form reads it again."""
        return self.document()

    @model_serializer
    def _serialised(self) -> dict[str, Any]:
        return self.as_written()


class SignerSection(_Section):
    """A public P-256 key as JWK."""

    kty: Literal["EC"] = Field(description="an elliptic curve")
    crv: Literal["P-256"] = Field(description="this curve")
    alg: Literal["ES256"] = Field("ES256", description="this algorithm")
    x: str = Field(pattern=_BASE64URL_32, description="of the point, base64url")
    y: str = Field(pattern=_BASE64URL_32, description="of the point, base64url")


class KmsGuestEntry(GuestEntry):
    """A guest that runs the verifier: a guest entry, and what makes it more than an image that any pod may have."""

    policy: Annotated[
        Annotated[PolicySection, Tag("mapping")] | Annotated[ExactPolicy, Tag("other")], Discriminator(is_mapping)
    ] = Field(description="POLICY bit by bit, or its exact value")
    vmpl: Vmpls = Field(description="accepted privilege levels")
    initdata: Literal["enforced"] | None = Field(
        None,
        description="states that the guest of this measurement runs nothing unless a document whose digest is HOST_DATA"
        " allows it; required with hostData",
    )
    wholeImage: Boolean = Field(
        False,
        description="states that this image runs the verifier and nothing else, whatever HOST_DATA says; required"
        " without hostData",
    )

    @model_validator(mode="after")
    def _is_more_than_an_image(self) -> KmsGuestEntry:
        if (self.hostData is None) != (self.initdata is None):
            raise _wrong(
                "hostData and initdata do not agree: hostData counts with initdata: enforced, and only with it"
            )
        try:
            # What a guest would refuse to read is refused here.
            read_kms_guest(_NAME, write_kms_guest(self.kms_guest(_NAME)))
        except GuestValuesError as error:
            raise _wrong(_without(_NAME, error)) from None
        return self

    def kms_guest(self, name: str) -> KmsGuest:
        """As the plain type."""
        return KmsGuest(self.reference(name), self.wholeImage)


class AttestBySigner(_Attest):
    """The reference values come with the verifier's answer, signed."""

    signer: SignerSection = Field(description="the key that signs them")
    minSerial: int = Field(ge=0, le=MAX_SERIAL, description="the least serial that counts")
    chipIds: _ChipIds = None
    simulatedRoot: _SimulatedRoot = ""

    def document(self) -> dict[str, Any]:
        written: dict[str, Any] = {"signer": self.signer.model_dump(), "minSerial": self.minSerial}
        if self.chipIds is not None:
            written["chipIds"] = sorted({each.hex() for each in self.chipIds})
        return written | ({"simulatedRoot": self.simulatedRoot} if self.simulatedRoot else {})


class AttestByValues(_Attest, KmsGuestEntry):
    """The reference values themselves."""

    configurations: Configurations | None = Field(
        None, description="digests of the verifier's whole configuration; left out: any configuration"
    )
    simulatedRoot: _SimulatedRoot = ""

    def document(self) -> dict[str, Any]:
        written = write_kms_guest(self.kms_guest(_NAME))
        if self.configurations is not None:
            written["configurations"] = write_configurations(frozenset(self.configurations))
        return written | ({"simulatedRoot": self.simulatedRoot} if self.simulatedRoot else {})

    def as_written(self) -> dict[str, Any]:
        # Operators' spellings are more than a guest's, such as "1.51" for a version.
        return dict(self.written)


def _form(value: object) -> str:
    if isinstance(value, dict):
        return _BY_SIGNER if "signer" in value or "minSerial" in value else _BY_VALUES
    return _BY_SIGNER if isinstance(value, AttestBySigner) else _BY_VALUES


AttestEntry = Annotated[
    Annotated[AttestBySigner, Tag(_BY_SIGNER)] | Annotated[AttestByValues, Tag(_BY_VALUES)], Discriminator(_form)
]


class AttestFile(RootModel[AttestEntry]):
    """A file that holds `verifier.attest` alone."""
