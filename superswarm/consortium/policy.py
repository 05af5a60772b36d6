"""What a workload asks of the hardware below it, beyond its measurements: one policy for each kind of evidence.

Every switch defaults to the strict side; where no side is safe to assume (a floor, an age, an allow-list) the field
has no default, and an empty allow-list is a fault. `"any"` is written out by whoever means it. Judging happens in
`superswarm.attestation`; these clauses only say what the consortium accepts.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Consent: TypeAlias = Literal["refused", "accepted"]
"""Of something that weakens the protection: strict is `refused`."""

Demand: TypeAlias = Literal["required", "any"]
"""Of something that strengthens the protection: strict is `required`."""

TcbStatus: TypeAlias = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
]
"""Intel's TCB statuses that a manifest may accept. Revoked is never acceptable."""

Svn = Annotated[int, Field(ge=0, le=255)]
Days = Annotated[int, Field(ge=1, le=3650)]
Hex8 = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Hex16 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hex48 = Annotated[str, Field(pattern=r"^[0-9a-f]{96}$")]
ChipId = Annotated[str, Field(pattern=r"^([0-9a-f]{16}|[0-9a-f]{128})$")]  # Turin: 8 bytes; before: 64
Advisory = Annotated[str, Field(pattern=r"^INTEL-[A-Z]{2,4}-[0-9]{4,6}$")]
FirmwareVersion = Annotated[str, Field(pattern=r"^[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$")]  # major.minor.build
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x20-\x7e]*$")]


class PolicyClause(BaseModel):
    """Frozen, strict, closed to unknown fields: an ignored constraint is a hole."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


# --- AMD SEV-SNP -------------------------------------------------------------------------------------------------


class SnpTcb(PolicyClause):
    """Lowest security version numbers, each compared by itself (AMD 57230: a TCB is never compared as one number)."""

    bootloader: Svn
    tee: Svn
    snp: Svn
    microcode: Svn
    fmc: Svn | None = None  # Turin only: its first byte


class SnpProduct(PolicyClause):
    """A product line that may run the workload, and how new its firmware must be."""

    minimum_tcb: SnpTcb  # reported, committed, current and launch TCB must all reach it
    minimum_firmware: FirmwareVersion  # of the committed firmware: what the host cannot roll back below
    mitigations: Annotated[int, Field(ge=0, lt=2**53)]  # bits that both mitigation vectors must have (report v5)


class SnpMilan(SnpProduct):
    """Milan: broken in software, so whoever accepts it says so.

    arXiv 2605.12990 forges attestation on Milan-generation parts in software alone; no firmware floor closes it.
    """

    accepted_risk: Literal["arXiv:2605.12990"]


class SnpTurin(SnpProduct):
    """Turin's TCB has one more part, the FMC; its floor is not optional."""

    @model_validator(mode="after")
    def _fmc(self) -> Self:
        if self.minimum_tcb.fmc is None:
            raise ValueError("Turin's minimum_tcb names fmc")
        return self


class SnpPolicy(PolicyClause):
    """What the workload accepts of AMD SEV-SNP."""

    milan: SnpMilan | None = None
    genoa: SnpProduct | None = None  # with Siena and Bergamo, which chain to Genoa's root
    turin: SnpTurin | None = None
    keys: Annotated[tuple[Literal["vcek", "vlek"], ...], Field(strict=False, min_length=1)] = ("vcek",)
    vlek_providers: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] | Literal["any"] | None = None
    vmpls: Annotated[tuple[Annotated[int, Field(ge=0, le=3)], ...], Field(strict=False, min_length=1)] = (0,)
    chips: Annotated[tuple[ChipId, ...], Field(strict=False, min_length=1)] | Literal["any"]
    masked_chip: Consent = "refused"
    debug: Consent = "refused"
    migration_agent: Consent = "refused"
    smt: Consent = "refused"
    cxl: Consent = "refused"
    single_socket: Demand = "required"
    alias_check: Demand = "required"  # BadRAM, AMD-SB-3015
    ciphertext_hiding: Demand = "required"
    host_data: Annotated[tuple[Hex32, ...], Field(strict=False, min_length=1)] | Literal["any"]
    id_keys: Annotated[tuple[Hex48, ...], Field(strict=False, min_length=1)] | Literal["any"]
    author_keys: Annotated[tuple[Hex48, ...], Field(strict=False, min_length=1)] | Literal["any"]
    crl_missing: Consent = "refused"
    crl_stale: Consent = "refused"
    crl_maximum_age_days: Days  # since thisUpdate; AMD's lists live for a year

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not (self.milan or self.genoa or self.turin):
            raise ValueError("no product is accepted: name milan, genoa or turin")
        if ("vlek" in self.keys) != (self.vlek_providers is not None):
            raise ValueError("vlek_providers is named exactly where keys has vlek")
        if any(p is not None and p.minimum_tcb.fmc is not None for p in (self.milan, self.genoa)):
            raise ValueError("only Turin's minimum_tcb has fmc")
        if "vlek" in self.keys and self.masked_chip == "refused" and self.keys == ("vlek",):
            raise ValueError("a VLEK names no chip: accept masked_chip, or allow vcek too")
        return self


# --- Intel TDX ---------------------------------------------------------------------------------------------------


class TdImage(PolicyClause):
    """One approved boot of a TD: the firmware's measurement and the four run-time registers."""

    mrtd: Hex48
    rtmr0: Hex48
    rtmr1: Hex48
    rtmr2: Hex48
    rtmr3: Hex48


class TdxPolicy(PolicyClause):
    """What the workload accepts of Intel TDX."""

    images: Annotated[tuple[TdImage, ...], Field(strict=False, min_length=1)]
    modules: Annotated[tuple[Hex48, ...], Field(strict=False, min_length=1)] | Literal["any"]  # MRSEAM
    platforms: Annotated[tuple[Hex16, ...], Field(strict=False, min_length=1)] | Literal["any"]  # PPID of the PCK
    config_ids: Annotated[tuple[Hex48, ...], Field(strict=False, min_length=1)] | Literal["any"]  # MRCONFIGID
    owners: Annotated[tuple[Hex48, ...], Field(strict=False, min_length=1)] | Literal["any"]  # MROWNER
    owner_configs: Annotated[tuple[Hex48, ...], Field(strict=False, min_length=1)] | Literal["any"]  # MROWNERCONFIG
    xfam_allowed: Hex8 | Literal["any"]  # a little-endian mask as in the quote: extended features a TD may use
    tcb_statuses: Annotated[tuple[TcbStatus, ...], Field(strict=False, min_length=1)] = ("UpToDate",)
    advisories_accepted: Annotated[tuple[Advisory, ...], Field(strict=False)] | Literal["any"] = ()
    advisories_refused: Annotated[tuple[Advisory, ...], Field(strict=False)] = ()  # even where accepted is "any"
    minimum_evaluation_number: Annotated[int, Field(ge=0, lt=2**31)]  # of TCB info and QE identity
    collateral_maximum_age_days: Days  # since issueDate of TCB info and QE identity, and thisUpdate of the CRLs
    debug: Consent = "refused"
    service_td: Consent = "refused"  # a bound service TD (migration) can export the TD
    sept_ve_disable: Demand = "required"
    performance_monitoring: Consent = "refused"  # ATTRIBUTES.PERFMON
    dynamic_platform: Consent = "refused"  # platforms that may add packages after the PCK was made
    cached_keys: Consent = "refused"
    smt: Consent = "refused"


# --- Azure vTPM --------------------------------------------------------------------------------------------------


class PcrReference(PolicyClause):
    """The values that one PCR of the SHA-256 bank may have."""

    index: Annotated[int, Field(ge=0, le=23)]
    allowed: Annotated[tuple[Hex32, ...], Field(strict=False, min_length=1)]


class AzureVtpmPolicy(PolicyClause):
    """What the workload accepts of an Azure confidential VM: a paravisor's vTPM, on SNP or on TDX."""

    sev_snp: SnpPolicy | None = None
    tdx: TdxPolicy | None = None
    pcrs: Annotated[tuple[PcrReference, ...], Field(strict=False, min_length=1)]
    secure_boot: Demand = "required"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not (self.sev_snp or self.tdx):
            raise ValueError("nothing is accepted underneath: name sev_snp or tdx")
        if len({pcr.index for pcr in self.pcrs}) != len(self.pcrs):
            raise ValueError("a PCR is named twice")
        return self


# --- NVIDIA GPUs and switches ------------------------------------------------------------------------------------


class NvidiaPolicy(PolicyClause):
    """What the workload accepts of NVIDIA GPUs and NVSwitches. Without this clause no device may be attached."""

    required: bool  # true: evidence without a GPU is refused
    architectures: Annotated[
        tuple[Literal["hopper", "blackwell", "nvswitch"], ...], Field(strict=False, min_length=1)
    ]
    driver_versions: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] | Literal["any"]
    vbios_versions: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] | Literal["any"]
    devices: Annotated[tuple[Hex8, ...], Field(strict=False, min_length=1)] | Literal["any"]  # chips' identities
    driver_rim: Demand = "required"
    vbios_rim: Demand = "required"
    revocation: Demand = "required"  # stapled or cached revocation answers for device and RIM certificates
    collateral_maximum_age_days: Days


class PlatformPolicies(PolicyClause):
    """A workload's policies: one for each real platform that it allows, and one for GPUs where it has any."""

    sev_snp: SnpPolicy | None = None
    tdx: TdxPolicy | None = None
    azure_vtpm: AzureVtpmPolicy | None = None
    nvidia: NvidiaPolicy | None = None

    @property
    def platforms(self) -> set[str]:
        """The platforms that have a policy here, as fields of this table."""
        named = {"sev_snp": self.sev_snp, "tdx": self.tdx, "azure_vtpm": self.azure_vtpm}
        return {name for name, policy in named.items() if policy is not None}
