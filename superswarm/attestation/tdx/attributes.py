"""The attribute and feature bits of a trust domain, by name.

TD attributes: Intel TDX Module ABI, ATTRIBUTES (Linux: arch/x86/include/asm/shared/tdx.h). XFAM: the bits of XCR0 and
IA32_XSS (Intel SDM, volume 1, section 13.1), of which the TDX module virtualises some.
"""

from __future__ import annotations

from enum import IntFlag


class TdAttribute(IntFlag):
    """Bits of TD_ATTRIBUTES. Any of bits 0 to 7 means that the trust domain is under inspection from outside."""

    DEBUG = 1 << 0
    HGS_PLUS_PROFILING = 1 << 4
    PERFORMANCE_PROFILING = 1 << 5
    TELEMETRY_PROFILING = 1 << 6
    ICSSD = 1 << 16
    LASS = 1 << 27
    SEPT_VE_DISABLE = 1 << 28
    MIGRATABLE = 1 << 29
    PROTECTION_KEYS = 1 << 30
    KEY_LOCKER = 1 << 31
    TPA = 1 << 62
    PERFMON = 1 << 63


UNDER_INSPECTION = (
    TdAttribute.DEBUG
    | TdAttribute.HGS_PLUS_PROFILING
    | TdAttribute.PERFORMANCE_PROFILING
    | TdAttribute.TELEMETRY_PROFILING
)

HARMLESS = TdAttribute.LASS | TdAttribute.SEPT_VE_DISABLE | TdAttribute.PROTECTION_KEYS | TdAttribute.KEY_LOCKER
"""They only take something from attackers, or give the guest an instruction. What is in no set is refused."""


class Xfam(IntFlag):
    """Bits of XFAM that the TDX module can virtualise."""

    X87 = 1 << 0
    SSE = 1 << 1
    AVX = 1 << 2
    AVX512_MASKS = 1 << 5
    AVX512_UPPER = 1 << 6
    AVX512_HIGH = 1 << 7
    PROCESSOR_TRACE = 1 << 8
    PKRU = 1 << 9
    CET_USER = 1 << 11
    CET_SUPERVISOR = 1 << 12
    USER_INTERRUPTS = 1 << 14
    LAST_BRANCH_RECORDS = 1 << 15
    AMX_CONFIGURATION = 1 << 17
    AMX_DATA = 1 << 18
    APX = 1 << 19


XFAM_ALWAYS = Xfam.X87 | Xfam.SSE


def bits(field: bytes) -> int:
    """A bit field as the quote carries it: little-endian."""
    return int.from_bytes(field, "little")


def names(flag: type[IntFlag], value: int) -> list[str]:
    """The bits that are set, by name; those without a name by number."""
    known = [member.name.lower().replace("_", "-") for member in flag if member.name and value & member]
    every = sum(flag)
    return known + [f"bit {n}" for n in range(64) if value >> n & 1 and not every >> n & 1]
