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

from kbs.reference_values import (
    NEWEST_REPORT_VERSION,
    OLDEST_REPORT_VERSION,
    REQUIRE_CRL,
    SOFT_CRL,
    TCB_COMPONENTS,
    GuestReference,
    RequiredGuestPolicy,
    RevocationAction,
    RevocationPolicy,
    TcbFloor,
)
from server.guest_values import (
    UNSIGNED_8,
    UNSIGNED_64,
    Abi,
    Boolean,
    CspIds,
    Digest16,
    Digest48,
    Digests32,
    Digests48,
    Digests64,
    Firmware,
    MeasurementsByVcpus,
    PlatformBits,
    SigningKeys,
    Unsigned8,
    Unsigned32,
    Unsigned64,
    Vmpls,
    require_list,
    wrong,
)
from server.yaml.strict import load

Product = Literal["Milan", "Genoa", "Turin", "Simulated"]
# Bits of POLICY (AMD 56860, table "Guest Policy").
_SMT, _MUST_BE_ONE, _MIGRATE_MA, _DEBUG, _CXL_ALLOW, _FIRST_RESERVED = 16, 17, 18, 19, 21, 26


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
        return UNSIGNED_8(value)

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
            raise wrong("is true: a guest whose memory the host may read is never accepted; remove the key")
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
    policy = UNSIGNED_64(value)
    if policy >> _DEBUG & 1:
        raise wrong("has DEBUG set: a guest whose memory the host may read is never accepted")
    if policy >> _FIRST_RESERVED or not policy >> _MUST_BE_ONE & 1:
        raise wrong("required bit 17 one and bits 63:26 zero, such as 0x30000")
    return policy


ExactPolicy = Annotated[int, PlainValidator(_exact_policy), WithJsonSchema(UNSIGNED_64.schema)]


class PlatformInfoSection(_Section):
    """Bits of PLATFORM_INFO: a mask, or a list of names."""

    require: PlatformBits = Field(0, description="bits that must be set, such as [ALIAS_CHECK_COMPLETE]")
    forbid: PlatformBits = Field(0, description="bits that must not be set, such as [SMT_EN]")

    @model_validator(mode="after")
    def _disjoint(self) -> PlatformInfoSection:
        if self.require & self.forbid:
            raise wrong("requires and forbids the same bit; remove it from one of the two")
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
            raise wrong(f"required min from {OLDEST_REPORT_VERSION} to max, such as {{min: 3, max: 5}}")
        if self.max > NEWEST_REPORT_VERSION:
            raise wrong(
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
    measurements: Annotated[
        Annotated[MeasurementsByVcpus, Tag("mapping")]
        | Annotated[tuple[Digest48, ...], BeforeValidator(require_list), Tag("other")],
        Discriminator(is_mapping),
    ] = Field(
        description="launch digests, one of which must match: a list, or one per number of vCPUs; empty only with"
        " idKeys or authorKeys"
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
                    raise wrong(f"{key} has no value; write one, or leave the key out")
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
        raise wrong(f"{problem}: the TCB of {info.data['product']} has {', '.join(components)}")

    @field_validator("minTcb")
    @classmethod
    def _is_a_floor(cls, tcb: TcbSection) -> TcbSection:
        if not any((tcb.fmc, tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode)):
            raise wrong("every component is 0, so any firmware would do; `morphisms report show` prints a REPORTED_TCB")
        return tcb

    @model_validator(mode="after")
    def _identified(self) -> GuestEntry:
        if not self.measurements and self.idKeys is None and self.authorKeys is None:
            raise wrong("measurements is empty, required at least one digest, or idKeys or authorKeys")
        if not self.measurements and "minGuestSvn" not in self.model_fields_set:
            raise wrong(
                "minGuestSvn is missing: without measurements any old image by the same key would do; write the least"
                " GUEST_SVN, such as 1"
            )
        if ("VLEK" in self.signingKeys) != (self.cspIds is not None):
            raise wrong(
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
            measurements=frozenset(
                self.measurements.values() if isinstance(self.measurements, dict) else self.measurements
            ),
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
            raise wrong("a guest's name is empty; give it one, such as kata-3.21-snp")
        return self


def load_guests(path: Path) -> dict[str, GuestReference]:
    """The guests of a file by name. Raises ConfigurationError."""
    return {name: entry.reference(name) for name, entry in load(path, GuestFile).value.root.items()}


def _set(values: tuple[bytes, ...] | None) -> frozenset[bytes] | None:
    return None if values is None else frozenset(values)
