"""Guest reference values as operators write them: `NAME: {product, measurements, minTcb, …}`, one or more per file.

Read by pydantic, so that the published JSON Schema and the reader agree, and turned into the plain types of
`kbs.reference_values`, which is all that appraisal knows. The verifier and `morphisms report verify --policy` both read
with this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    PlainValidator,
    PrivateAttr,
    RootModel,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from kbs.reference_values import (
    NEWEST_REPORT_VERSION,
    OLDEST_REPORT_VERSION,
    PLATFORM_INFO_BITS,
    REQUIRE_CRL,
    SOFT_CRL,
    TCB_COMPONENTS,
    GuestReference,
    RequiredGuestPolicy,
    RevocationAction,
    RevocationPolicy,
    TcbFloor,
)
from server.yaml.strict import load

Product = Literal["Milan", "Genoa", "Turin", "Simulated"]
# Bits of POLICY (AMD 56860, table "Guest Policy").
_SMT, _MUST_BE_ONE, _MIGRATE_MA, _DEBUG, _CXL_ALLOW, _FIRST_RESERVED = 16, 17, 18, 19, 21, 26
_HEXADECIMAL = "^0[xX][0-9a-fA-F]+$"


def _wrong(text: str) -> PydanticCustomError:
    """The text must hold no value, see `server.yaml.strict`."""
    return PydanticCustomError("guest_entry", "{text}", {"text": text})


class _Number:
    """A whole number of at most `bits` bits, or the same in hexadecimal digits after 0x, as text."""

    def __init__(self, bits: int) -> None:
        self._limit = 1 << bits
        self._bits = bits
        self.schema = {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": self._limit - 1},
                {"type": "string", "pattern": _HEXADECIMAL},
            ]
        }

    def __call__(self, value: object) -> int:
        if isinstance(value, str) and value[:2] in ("0x", "0X"):
            try:
                value = int(value, 16)
            except ValueError:
                value = None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < self._limit:
            raise _wrong(f'required a whole number of at most {self._bits} bits, such as 3 or "0x3"')
        return value


class _Digest:
    """`size` bytes as hexadecimal digits."""

    def __init__(self, size: int) -> None:
        self._digits = 2 * size
        self.schema = {"type": "string", "pattern": f"^[0-9a-fA-F]{{{self._digits}}}$"}

    def __call__(self, value: object) -> bytes:
        if isinstance(value, str) and len(value) == self._digits:
            try:
                found = bytes.fromhex(value)
            except ValueError:
                found = b""
            # `fromhex` passes over spaces, which would leave a shorter digest.
            if 2 * len(found) == self._digits:
                return found
        raise _wrong(f'required {self._digits} hexadecimal digits in quotes, such as "0a1b…"')


class _Version:
    """Numbers from 0 to 255 with dots between them, as text: unquoted, 1.10 would be the number 1.1."""

    def __init__(self, form: str, example: str) -> None:
        self._form, self._example = form, example
        self._count = form.count(".") + 1
        part = r"[0-9]{1,3}"
        self.schema = {"type": "string", "pattern": f"^{part}{rf'[.]{part}' * (self._count - 1)}$"}

    def __call__(self, value: object) -> tuple[int, ...]:
        parts = value.split(".") if isinstance(value, str) else []
        is_numeric = all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts)
        if len(parts) != self._count or not is_numeric or max(map(int, parts)) > 0xFF:
            raise _wrong(f'required {self._form} in quotes, each from 0 to 255, such as "{self._example}"')
        return tuple(map(int, parts))


def _list(value: object) -> object:
    if not isinstance(value, list):
        raise _wrong('required a list, such as ["0a1b…"]')
    return value


def _filled_list(value: object) -> object:
    if _list(value) == []:
        raise _wrong("the list is empty, so no guest would match; leave the key out to not compare it")
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong("required true or false")
    return value


def _vmpls(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or any(not isinstance(each, int) or isinstance(each, bool) or not 0 <= each <= 3 for each in values):
        raise _wrong("required a number from 0 to 3, or a list of them, such as [0, 1]")
    return tuple(values)


def _signing_keys(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or any(each not in ("VCEK", "VLEK") for each in value):
        raise _wrong("required a list of VCEK and VLEK, such as [VCEK]")
    return tuple(value)


def _platform_bits(value: object) -> int:
    if not isinstance(value, list):
        return _UNSIGNED_64(value)
    if any(not isinstance(name, str) or name not in PLATFORM_INFO_BITS for name in value):
        raise _wrong(f"required a mask, or a list of {', '.join(PLATFORM_INFO_BITS)}")
    return sum(1 << PLATFORM_INFO_BITS[name] for name in set(value))


_UNSIGNED_8, _UNSIGNED_32, _UNSIGNED_64 = _Number(8), _Number(32), _Number(64)
_DIGEST_16, _DIGEST_32, _DIGEST_48, _DIGEST_64 = map(_Digest, (16, 32, 48, 64))
_FIRMWARE, _ABI = _Version("MAJOR.MINOR.BUILD", "1.55.40"), _Version("MAJOR.MINOR", "1.51")

Boolean = Annotated[bool, BeforeValidator(_boolean)]
Unsigned8 = Annotated[int, PlainValidator(_UNSIGNED_8), WithJsonSchema(_UNSIGNED_8.schema)]
Unsigned32 = Annotated[int, PlainValidator(_UNSIGNED_32), WithJsonSchema(_UNSIGNED_32.schema)]
Unsigned64 = Annotated[int, PlainValidator(_UNSIGNED_64), WithJsonSchema(_UNSIGNED_64.schema)]
Digest16 = Annotated[bytes, PlainValidator(_DIGEST_16), WithJsonSchema(_DIGEST_16.schema)]
Digest32 = Annotated[bytes, PlainValidator(_DIGEST_32), WithJsonSchema(_DIGEST_32.schema)]
Digest48 = Annotated[bytes, PlainValidator(_DIGEST_48), WithJsonSchema(_DIGEST_48.schema)]
Digest64 = Annotated[bytes, PlainValidator(_DIGEST_64), WithJsonSchema(_DIGEST_64.schema)]
CspIds = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=256, pattern="^[ -~]+$")], ...],
    BeforeValidator(_filled_list),
    Field(min_length=1),
]
Digests32 = Annotated[tuple[Digest32, ...], BeforeValidator(_filled_list), Field(min_length=1)]
Digests48 = Annotated[tuple[Digest48, ...], BeforeValidator(_filled_list), Field(min_length=1)]
Digests64 = Annotated[tuple[Digest64, ...], BeforeValidator(_filled_list), Field(min_length=1)]
Firmware = Annotated[tuple[int, int, int], PlainValidator(_FIRMWARE), WithJsonSchema(_FIRMWARE.schema)]
Abi = Annotated[tuple[int, int], PlainValidator(_ABI), WithJsonSchema(_ABI.schema)]
Vmpls = Annotated[
    tuple[int, ...],
    PlainValidator(_vmpls),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 3},
                {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 3}, "minItems": 1},
            ]
        }
    ),
]
SigningKeys = Annotated[
    tuple[str, ...],
    PlainValidator(_signing_keys),
    WithJsonSchema({"type": "array", "items": {"enum": ["VCEK", "VLEK"]}, "minItems": 1}),
]
PlatformBits = Annotated[
    int,
    PlainValidator(_platform_bits),
    WithJsonSchema(
        {"anyOf": [*_UNSIGNED_64.schema["anyOf"], {"type": "array", "items": {"enum": list(PLATFORM_INFO_BITS)}}]}
    ),
]


def is_mapping(value: object) -> str:
    """Which member of a union of a mapping and something else the value is for."""
    return "mapping" if isinstance(value, dict | BaseModel) else "other"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TcbSection(_Section):
    """The least security version of each firmware component; `fmc` for Turin, and only for Turin."""

    fmc: Unsigned8 | None = Field(None, description="from Turin on")
    bootloader: Unsigned8 = Field(description="of the security processor")
    tee: Unsigned8 = Field(description="of the security processor's operating system")
    snp: Unsigned8 = Field(description="of the SEV-SNP firmware")
    microcode: Unsigned8 = Field(description="of the processor's microcode")

    @field_validator("fmc", mode="before")
    @classmethod
    def _no_null(cls, value: object) -> object:
        return _UNSIGNED_8(value)

    def floor(self) -> TcbFloor:
        """As the plain type."""
        return TcbFloor(self.bootloader, self.tee, self.snp, self.microcode, self.fmc)


class PolicySection(_Section):
    """What POLICY may and must say, bit by bit."""

    debug: Boolean = Field(False, description="only false: a guest whose memory the host may read is never accepted")
    smt: Boolean = Field(True, description="the bit is allowed")
    migrateMa: Boolean = Field(False, description="the bit is allowed")
    cxlAllow: Boolean = Field(False, description="the bit is allowed")
    singleSocket: Boolean = Field(False, description="the bit is required")
    memAes256Xts: Boolean = Field(False, description="the bit is required")
    raplDis: Boolean = Field(False, description="the bit is required")
    ciphertextHidingDram: Boolean = Field(False, description="the bit is required")
    pageSwapDisable: Boolean = Field(False, description="the bit is required")
    minAbi: Abi = Field(
        "0.0", validate_default=True, description="the least firmware ABI that the guest's owner demands, MAJOR.MINOR"
    )

    @field_validator("debug")
    @classmethod
    def _never_debug(cls, value: bool) -> bool:
        if value:
            raise _wrong("is true: a guest whose memory the host may read is never accepted; remove the key")
        return value

    def required(self) -> RequiredGuestPolicy:
        """As the plain type."""
        return RequiredGuestPolicy(
            smt=self.smt,
            migrate_ma=self.migrateMa,
            cxl_allow=self.cxlAllow,
            single_socket=self.singleSocket,
            mem_aes_256_xts=self.memAes256Xts,
            rapl_dis=self.raplDis,
            ciphertext_hiding_dram=self.ciphertextHidingDram,
            page_swap_disable=self.pageSwapDisable,
            min_abi=self.minAbi,
        )


def _exact_policy(value: object) -> int:
    policy = _UNSIGNED_64(value)
    if policy >> _DEBUG & 1:
        raise _wrong("has DEBUG set: a guest whose memory the host may read is never accepted")
    if policy >> _FIRST_RESERVED or not policy >> _MUST_BE_ONE & 1:
        raise _wrong("required bit 17 one and bits 63:26 zero, such as 0x30000")
    return policy


ExactPolicy = Annotated[int, PlainValidator(_exact_policy), WithJsonSchema(_UNSIGNED_64.schema)]


class PlatformInfoSection(_Section):
    """Bits of PLATFORM_INFO: a mask, or a list of names."""

    require: PlatformBits = Field(0, description="bits that must be set, such as [ALIAS_CHECK_COMPLETE]")
    forbid: PlatformBits = Field(0, description="bits that must not be set, such as [SMT_EN]")

    @model_validator(mode="after")
    def _disjoint(self) -> PlatformInfoSection:
        if self.require & self.forbid:
            raise _wrong("requires and forbids the same bit; remove it from one of the two")
        return self


class MitigationsSection(_Section):
    """Bits that must be set in LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR."""

    launch: Unsigned64 = Field(0, description="mask over LAUNCH_MIT_VECTOR")
    current: Unsigned64 = Field(0, description="mask over CURRENT_MIT_VECTOR")


class VersionsSection(_Section):
    """Accepted versions of the report's format."""

    min: Unsigned32 = Field(3, description="oldest; version 2 does not name its processor")
    max: Unsigned32 = Field(NEWEST_REPORT_VERSION, description="newest; at most the newest whose layout is known")

    @model_validator(mode="after")
    def _ordered(self) -> VersionsSection:
        if not OLDEST_REPORT_VERSION <= self.min <= self.max:
            raise _wrong(f"required min from {OLDEST_REPORT_VERSION} to max, such as {{min: 3, max: 5}}")
        if self.max > NEWEST_REPORT_VERSION:
            raise _wrong(
                f"required max of at most {NEWEST_REPORT_VERSION}, the newest version whose reserved bytes are known"
            )
        return self


class RevocationSection(_Section):
    """What to do about a missing or stale revocation list."""

    missing: RevocationAction = Field(RevocationAction.REFUSE, description="no list of the leaf's kind is at hand")
    stale: RevocationAction = Field(RevocationAction.REFUSE, description="the newest list has ended")


class GuestEntry(_Section):
    """One named guest: what its report must say."""

    product: Product = Field(description="product line of the processor")
    measurements: Annotated[tuple[Digest48, ...], BeforeValidator(_list)] = Field(
        description="launch digests, one of which must match; empty only with idKeys or authorKeys"
    )
    minTcb: TcbSection = Field(description="floor of REPORTED_TCB; not zero in every component")
    minCommittedTcb: TcbSection | None = Field(None, description="floor of COMMITTED_TCB; by default minTcb")
    minLaunchTcb: TcbSection | None = Field(None, description="floor of LAUNCH_TCB; by default minTcb")
    policy: Annotated[
        Annotated[PolicySection, Tag("mapping")] | Annotated[ExactPolicy, Tag("other")], Discriminator(is_mapping)
    ] = Field(default_factory=PolicySection, description="POLICY bit by bit, or its exact value")
    vmpl: Vmpls = Field((0,), description="accepted privilege levels")
    hostData: Digests32 | None = Field(None, description="accepted HOST_DATA")
    initdata: Literal["enforced"] | None = Field(
        None,
        description="enforced: by the measured command line and image, nothing runs without an initdata document, and"
        " a guest whose document's digest is not HOST_DATA ends before it serves a request; needed for assurance"
        " workload",
    )
    idKeys: Digests48 | None = Field(None, description="accepted ID_KEY_DIGEST")
    authorKeys: Digests48 | None = Field(None, description="accepted AUTHOR_KEY_DIGEST")
    familyId: Digest16 | None = Field(None, description="required FAMILY_ID")
    imageId: Digest16 | None = Field(None, description="required IMAGE_ID")
    minGuestSvn: Unsigned32 = Field(0, description="floor of GUEST_SVN; required where measurements is empty")
    chipIds: Digests64 | None = Field(None, description="accepted CHIP_ID")
    maskedChipId: Boolean = Field(False, description="accept a report whose CHIP_ID the host has masked")
    signingKeys: SigningKeys = Field(
        ("VCEK",), description="keys that may have signed the report: the chip's VCEK, a provider's VLEK (with cspIds)"
    )
    cspIds: CspIds | None = Field(
        None,
        description="providers whose VLEKs count, by cspID; required with VLEK, and only with it",
    )
    platformInfo: PlatformInfoSection = Field(PlatformInfoSection(), description="bits of PLATFORM_INFO")
    mitigations: MitigationsSection = Field(
        MitigationsSection(), description="mitigations that the firmware must report, from report version 5 on"
    )
    minFirmware: Firmware | None = Field(
        None, description="floor of the current and the committed firmware's version, MAJOR.MINOR.BUILD"
    )
    provisionalFirmware: Boolean = Field(True, description="accept firmware that is not committed yet")
    versions: VersionsSection = Field(VersionsSection(), description="accepted versions of the report's format")
    crl: (
        Annotated[
            Annotated[RevocationSection, Tag("mapping")] | Annotated[Literal["require", "soft"], Tag("other")],
            Discriminator(is_mapping),
        ]
        | None
    ) = Field(
        None,
        description="require, soft, or what to do about a missing and a stale revocation list; by default require in"
        " the verifier",
    )

    _written: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def written(self) -> Mapping[str, Any]:
        """The entry as it was written, before any default."""
        return self._written

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, data: Any, handler: ModelWrapValidatorHandler[GuestEntry]) -> GuestEntry:
        if isinstance(data, dict):
            for key, value in data.items():
                # A default stands for a key that is left out; pydantic would take null for one as well.
                if value is None and key in cls.model_fields:
                    raise _wrong(f"{key} has no value; write one, or leave the key out")
        entry = handler(data)
        if isinstance(data, dict):
            entry._written = data
        return entry

    @field_validator("minTcb", "minCommittedTcb", "minLaunchTcb")
    @classmethod
    def _has_the_products_components(cls, tcb: TcbSection | None, info: ValidationInfo) -> TcbSection | None:
        components = TCB_COMPONENTS.get(info.data.get("product", ""))
        if tcb is None or components is None or (tcb.fmc is not None) == ("fmc" in components):
            return tcb
        problem = "fmc is missing" if tcb.fmc is None else "unknown key fmc"
        raise _wrong(f"{problem}: the TCB of {info.data['product']} has {', '.join(components)}")

    @field_validator("minTcb")
    @classmethod
    def _is_a_floor(cls, tcb: TcbSection) -> TcbSection:
        if not any((tcb.fmc, tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode)):
            raise _wrong(
                "every component is 0, so any firmware would do; `morphisms report show` prints a REPORTED_TCB"
            )
        return tcb

    @model_validator(mode="after")
    def _identified(self) -> GuestEntry:
        if not self.measurements and self.idKeys is None and self.authorKeys is None:
            raise _wrong("measurements is empty, required at least one digest, or idKeys or authorKeys")
        if not self.measurements and "minGuestSvn" not in self.model_fields_set:
            raise _wrong(
                "minGuestSvn is missing: without measurements any old image by the same key would do; write the least"
                " GUEST_SVN, such as 1"
            )
        if ("VLEK" in self.signingKeys) != (self.cspIds is not None):
            raise _wrong(
                "signingKeys and cspIds do not agree: VLEK needs the providers that count, such as"
                ' {signingKeys: [VLEK], cspIds: ["CN=cc-us-east-2.amazonaws.com"]}, and only VLEK has any'
            )
        return self

    def reference(self, name: str) -> GuestReference:
        """As the plain type."""
        min_tcb = self.minTcb.floor()
        return GuestReference(
            name=name,
            product=self.product,
            measurements=frozenset(self.measurements),
            min_tcb=min_tcb,
            min_committed_tcb=min_tcb if self.minCommittedTcb is None else self.minCommittedTcb.floor(),
            min_launch_tcb=min_tcb if self.minLaunchTcb is None else self.minLaunchTcb.floor(),
            policy=self._policy(),
            vmpl=frozenset(self.vmpl),
            host_data=_set(self.hostData),
            id_keys=_set(self.idKeys),
            author_keys=_set(self.authorKeys),
            family_id=self.familyId,
            image_id=self.imageId,
            min_guest_svn=self.minGuestSvn,
            chip_ids=_set(self.chipIds),
            masked_chip_id=self.maskedChipId,
            signing_keys=frozenset(self.signingKeys),
            csp_ids=frozenset(self.cspIds or ()),
            platform_require=self.platformInfo.require,
            platform_forbid=self.platformInfo.forbid,
            launch_mitigations=self.mitigations.launch,
            current_mitigations=self.mitigations.current,
            min_firmware=self.minFirmware,
            provisional_firmware=self.provisionalFirmware,
            min_version=self.versions.min,
            max_version=self.versions.max,
            revocation=self._revocation(),
        )

    def _policy(self) -> RequiredGuestPolicy:
        if isinstance(self.policy, PolicySection):
            return self.policy.required()
        bits = self.policy
        return RequiredGuestPolicy(
            exact=bits,
            smt=bool(bits >> _SMT & 1),
            migrate_ma=bool(bits >> _MIGRATE_MA & 1),
            cxl_allow=bool(bits >> _CXL_ALLOW & 1),
        )

    def _revocation(self) -> RevocationPolicy | None:
        if isinstance(self.crl, RevocationSection):
            return RevocationPolicy(self.crl.missing, self.crl.stale)
        return None if self.crl is None else {"require": REQUIRE_CRL, "soft": SOFT_CRL}[self.crl]


class GuestFile(RootModel[dict[str, GuestEntry]]):
    """Guest reference values by name."""

    @model_validator(mode="after")
    def _named(self) -> GuestFile:
        if "" in self.root:
            raise _wrong("a guest's name is empty; give it one, such as kata-3.21-snp")
        return self


def load_guests(path: Path) -> dict[str, GuestReference]:
    """The guests of a file by name. Raises ConfigurationError."""
    return {name: entry.reference(name) for name, entry in load(path, GuestFile).value.root.items()}


def _set(values: tuple[bytes, ...] | None) -> frozenset[bytes] | None:
    return None if values is None else frozenset(values)
