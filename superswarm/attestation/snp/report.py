"""Parse AMD SEV-SNP attestation reports, versions 2 to 5 (AMD 56860, "SEV-SNP Firmware ABI", ATTESTATION_REPORT).

Proves nothing. All fields are little-endian. What the specification calls reserved must be zero here, except in
PLATFORM_INFO, where firmware sets newer bits and says nothing about older readers (Turin sets bit 6).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from superswarm.errors import Malformed

REPORT_BYTES = 0x4A0
SIGNED_BYTES = 0x2A0  # the signature covers bytes 0 to 0x29F
VERSIONS = range(2, 6)
NO_MIGRATION_AGENT = b"\xff" * 32


class Product(StrEnum):
    """A product line: one AMD root each."""

    MILAN = "milan"
    GENOA = "genoa"  # with Bergamo and Siena
    TURIN = "turin"


class KeyKind(IntEnum):
    """SIGNING_KEY: what signed the report."""

    VCEK = 0  # of one chip
    VLEK = 1  # of a cloud provider
    NONE = 7  # the host turned signing off


@dataclass(frozen=True, slots=True)
class Tcb:
    """A TCB_VERSION: eight bytes, laid out by product."""

    raw: bytes

    def parts(self, product: Product) -> dict[str, int]:
        """The security version numbers by name, in the words of AMD 57230."""
        raw = self.raw
        if product is Product.TURIN:
            return {"fmc": raw[0], "bootloader": raw[1], "tee": raw[2], "snp": raw[3], "microcode": raw[7]}
        return {"bootloader": raw[0], "tee": raw[1], "snp": raw[6], "microcode": raw[7]}

    def __str__(self) -> str:
        return self.raw[::-1].hex()


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """The policy that the guest was launched under, and that the firmware enforces."""

    raw: int

    @property
    def abi(self) -> tuple[int, int]:
        """The lowest firmware ABI (major, minor) that may run the guest."""
        return self.raw >> 8 & 0xFF, self.raw & 0xFF

    @property
    def smt(self) -> bool:
        return bool(self.raw >> 16 & 1)

    @property
    def migration_agent(self) -> bool:
        return bool(self.raw >> 18 & 1)

    @property
    def debug(self) -> bool:
        return bool(self.raw >> 19 & 1)

    @property
    def single_socket(self) -> bool:
        return bool(self.raw >> 20 & 1)

    @property
    def cxl(self) -> bool:
        return bool(self.raw >> 21 & 1)

    @property
    def aes_256_xts(self) -> bool:
        return bool(self.raw >> 22 & 1)

    @property
    def rapl_disabled(self) -> bool:
        return bool(self.raw >> 23 & 1)

    @property
    def ciphertext_hiding(self) -> bool:
        return bool(self.raw >> 24 & 1)

    @property
    def page_swap_disabled(self) -> bool:
        return bool(self.raw >> 25 & 1)


@dataclass(frozen=True, slots=True)
class PlatformInfo:
    """What the firmware says of the machine."""

    raw: int

    @property
    def smt(self) -> bool:
        return bool(self.raw & 1)

    @property
    def tsme(self) -> bool:
        return bool(self.raw >> 1 & 1)

    @property
    def ecc(self) -> bool:
        return bool(self.raw >> 2 & 1)

    @property
    def rapl_disabled(self) -> bool:
        return bool(self.raw >> 3 & 1)

    @property
    def ciphertext_hiding(self) -> bool:
        return bool(self.raw >> 4 & 1)

    @property
    def alias_check_complete(self) -> bool:
        return bool(self.raw >> 5 & 1)

    @property
    def iommu_write_safe(self) -> bool:
        return bool(self.raw >> 6 & 1)

    @property
    def tio(self) -> bool:
        return bool(self.raw >> 7 & 1)


Firmware = tuple[int, int, int]
"""Major, minor, build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An ATTESTATION_REPORT, field by field. Proves nothing."""

    raw: bytes
    version: int
    guest_svn: int
    policy: GuestPolicy
    family_id: bytes  # 16, chosen by the guest's owner
    image_id: bytes  # 16
    vmpl: int
    signature_algorithm: int  # 1: ECDSA P-384 with SHA-384
    current_tcb: Tcb
    platform_info: PlatformInfo
    author_key_enabled: bool
    mask_chip_key: bool
    signing_key: KeyKind
    report_data: bytes  # 64
    measurement: bytes  # 48
    host_data: bytes  # 32
    id_key_digest: bytes  # 48
    author_key_digest: bytes  # 48
    report_id: bytes  # 32
    report_id_ma: bytes  # 32; all ones: no migration agent
    reported_tcb: Tcb
    cpuid: tuple[int, int, int] | None  # family, model, stepping; since version 3
    chip_id: bytes  # 64; zeros where the host masks it; Turin uses the first 8
    committed_tcb: Tcb
    current_firmware: Firmware
    committed_firmware: Firmware
    launch_tcb: Tcb
    launch_mitigations: int | None  # since version 5
    current_mitigations: int | None
    r: int
    s: int

    @property
    def signed(self) -> bytes:
        return self.raw[:SIGNED_BYTES]

    @property
    def masked(self) -> bool:
        """Whether the host hides which chip this is."""
        return not any(self.chip_id)

    @property
    def product(self) -> Product | None:
        """The product line by family and model, or None: before version 3, or where the processor is not known."""
        return None if self.cpuid is None else product_of(*self.cpuid[:2])


def product_of(family: int, model: int) -> Product | None:
    """Which root a processor chains to. Bergamo and Siena (19h, A0h to AFh) chain to Genoa's."""
    if family == 0x19 and model <= 0x0F:
        return Product.MILAN
    if family == 0x19 and (0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF):
        return Product.GENOA
    if family == 0x1A and model <= 0x1F:
        return Product.TURIN
    return None


def parse_report(data: bytes) -> Report:
    """Parse an ATTESTATION_REPORT. Proves nothing. Raises Malformed."""
    # (1) Length and version, which say where everything else is.
    if len(data) != REPORT_BYTES:
        raise Malformed(f"an SNP report has {REPORT_BYTES} bytes, not {len(data)}")
    (version,) = struct.unpack_from("<I", data, 0)
    if version not in VERSIONS:
        raise Malformed(f"SNP report version {version} is not known: 2 to 5 are")
    # (2) Reserved bytes are zero; which are reserved depends on the version.
    _reserved(data, version)
    # (3) Reserved bits of the fields that the firmware enforces.
    svn, policy = struct.unpack_from("<IQ", data, 0x04)
    if not policy >> 17 & 1 or policy >> 26:
        raise Malformed("the SNP guest policy has reserved bits that are not as specified")
    vmpl, algorithm, key_info = struct.unpack_from("<II16xI", data, 0x30)
    if vmpl > 3:
        raise Malformed(f"VMPL {vmpl} does not exist")
    if key_info >> 5 or (key_info >> 2 & 7) not in list(KeyKind):
        raise Malformed("the SNP report's key information has reserved values")
    mitigations = struct.unpack_from("<QQ", data, 0x1F8) if version >= 5 else (None, None)
    (platform,) = struct.unpack_from("<Q", data, 0x40)
    return Report(
        raw=data,
        version=version,
        guest_svn=svn,
        policy=GuestPolicy(policy),
        family_id=data[0x10:0x20],
        image_id=data[0x20:0x30],
        vmpl=vmpl,
        signature_algorithm=algorithm,
        current_tcb=Tcb(data[0x38:0x40]),
        platform_info=PlatformInfo(platform),
        author_key_enabled=bool(key_info & 1),
        mask_chip_key=bool(key_info >> 1 & 1),
        signing_key=KeyKind(key_info >> 2 & 7),
        report_data=data[0x50:0x90],
        measurement=data[0x90:0xC0],
        host_data=data[0xC0:0xE0],
        id_key_digest=data[0xE0:0x110],
        author_key_digest=data[0x110:0x140],
        report_id=data[0x140:0x160],
        report_id_ma=data[0x160:0x180],
        reported_tcb=Tcb(data[0x180:0x188]),
        cpuid=(data[0x188], data[0x189], data[0x18A]) if version >= 3 else None,
        chip_id=data[0x1A0:0x1E0],
        committed_tcb=Tcb(data[0x1E0:0x1E8]),
        current_firmware=(data[0x1EA], data[0x1E9], data[0x1E8]),
        committed_firmware=(data[0x1EE], data[0x1ED], data[0x1EC]),
        launch_tcb=Tcb(data[0x1F0:0x1F8]),
        launch_mitigations=mitigations[0],
        current_mitigations=mitigations[1],
        r=int.from_bytes(data[0x2A0:0x2E8], "little"),
        s=int.from_bytes(data[0x2E8:0x330], "little"),
    )


def _reserved(data: bytes, version: int) -> None:
    """Version 3 took 0x188 to 0x18A for CPUID, version 5 took 0x1F8 to 0x207 for mitigation vectors.

    What version 4 has in those last 16 bytes is not published; they are signed, and not read.
    """
    ranges = [
        (0x4C, 0x50),
        (0x18B if version >= 3 else 0x188, 0x1A0),
        (0x1EB, 0x1EC),
        (0x1EF, 0x1F0),
        (0x208 if version >= 4 else 0x1F8, 0x2A0),
        (0x330, REPORT_BYTES),  # of the signature
    ]
    for begin, end in ranges:
        if any(data[begin:end]):
            raise Malformed(f"reserved bytes {begin:#x} to {end - 1:#x} of the SNP report are not zero")
