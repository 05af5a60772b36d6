"""The CC event log (CCEL): what firmware, boot loader and kernel measured into a trust domain's RTMRs.

A log proves nothing by itself: it must replay to the RTMRs of a verified quote. Even then only digests are proven; an
event's description is, only where its digest is that of the description (`Event.proven`).
Layout: TCG PC Client Platform Firmware Profile, section 10 (TCG_PCR_EVENT, TCG_EfiSpecIdEvent, TCG_PCR_EVENT2);
register numbers and table: UEFI 2.10, section 38 (EFI_CC_MEASUREMENT_PROTOCOL), ACPI 6.5, section 5.2.34 (CCEL).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from superswarm.attestation.reasons import Fault, Reason, rejected
from superswarm.errors import Malformed, TooLarge
from superswarm.values import LIMITS

SHA384 = 0x000C
DIGEST_SIZES = {0x0004: 20, 0x000B: 32, SHA384: 48, 0x000D: 64, 0x0012: 32}  # TCG algorithm registry: SHA-1 to SM3
EV_NO_ACTION = 3  # information only, measured into nothing
SIGNATURE = b"Spec ID Event03\0"
REGISTERS = 4  # RTMR0 to RTMR3 are events' registers 1 to 4; register 0 is MRTD
MAX_EVENTS = 65_536

TYPES = {
    0x00000001: "EV_POST_CODE",
    0x00000003: "EV_NO_ACTION",
    0x00000004: "EV_SEPARATOR",
    0x00000005: "EV_ACTION",
    0x00000006: "EV_EVENT_TAG",
    0x00000007: "EV_S_CRTM_CONTENTS",
    0x00000008: "EV_S_CRTM_VERSION",
    0x0000000A: "EV_PLATFORM_CONFIG_FLAGS",
    0x0000000B: "EV_TABLE_OF_DEVICES",
    0x0000000C: "EV_COMPACT_HASH",
    0x0000000D: "EV_IPL",
    0x0000000E: "EV_IPL_PARTITION_DATA",
    0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG",
    0x80000002: "EV_EFI_VARIABLE_BOOT",
    0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
    0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
    0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER",
    0x80000006: "EV_EFI_GPT_EVENT",
    0x80000007: "EV_EFI_ACTION",
    0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    0x80000009: "EV_EFI_HANDOFF_TABLES",
    0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    0x8000000B: "EV_EFI_HANDOFF_TABLES2",
    0x8000000C: "EV_EFI_VARIABLE_BOOT2",
    0x800000E0: "EV_EFI_VARIABLE_AUTHORITY",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One measurement. Proves nothing."""

    register: int  # 0: MRTD; 1 to 4: RTMR0 to RTMR3
    type: int
    digest: bytes  # 48, SHA-384
    data: bytes = field(repr=False)

    @property
    def name(self) -> str:
        return TYPES.get(self.type, f"{self.type:#010x}")

    @property
    def proven(self) -> bytes | None:
        """The part of the description that the digest is of, and which is as proven as the digest; None for none.

        GRUB measures a command without the label and the zero byte that its description has around it.
        """
        command = self.data.partition(b": ")[2].removesuffix(b"\0")
        return next((part for part in (self.data, command) if hashlib.sha384(part).digest() == self.digest), None)


def parse_ccel(data: bytes) -> tuple[Event, ...]:
    """Parse an event log. Raises Malformed, or TooLarge over the limits. Proves nothing."""
    if len(data) > LIMITS.evidence_bytes:
        raise TooLarge(f"an event log has at most {LIMITS.evidence_bytes} bytes")
    reader = _Reader(data)
    sizes = _header(reader)
    events: list[Event] = []
    while not reader.padding():
        if len(events) == MAX_EVENTS:
            raise TooLarge(f"an event log has at most {MAX_EVENTS} events")
        events.append(_event(reader, sizes))
    return tuple(events)


def replay(events: Iterable[Event]) -> tuple[bytes, bytes, bytes, bytes]:
    """What RTMR0 to RTMR3 hold after these events: each starts as zeros, and is hashed with every digest in turn."""
    registers = [bytes(48)] * REGISTERS
    for event in events:
        if event.type == EV_NO_ACTION:
            continue
        if not 1 <= event.register <= REGISTERS:
            raise Malformed(f"an event was measured into register {event.register}, which nothing can be after start")
        registers[event.register - 1] = hashlib.sha384(registers[event.register - 1] + event.digest).digest()
    return registers[0], registers[1], registers[2], registers[3]


def require_replay(events: Iterable[Event], rtmr: tuple[bytes, bytes, bytes, bytes]) -> None:
    """Raise EvidenceRejected unless the log explains these registers exactly."""
    replayed = replay(events)
    wrong = [f"RTMR{n}" for n in range(REGISTERS) if replayed[n] != rtmr[n]]
    if wrong:
        raise rejected(Fault(Reason.EVENT_LOG_MISMATCH, f"the event log does not replay to {', '.join(wrong)}"))


def check_table(table: bytes) -> None:
    """Check the ACPI table that announces the log: whole, and of a TDX guest. Raises Malformed."""
    if len(table) != TABLE.size or sum(table) % 256:
        raise Malformed("the CCEL table is cut short or altered")
    signature, length, *_, cc_type, subtype, _reserved, minimum, _address = TABLE.unpack(table)
    if (signature, length) != (b"CCEL", TABLE.size):
        raise Malformed("the ACPI table is not a CCEL table")
    if (cc_type, subtype) != (CC_TYPE_TDX, 0) or not minimum:
        raise Malformed("the CCEL table is not of a TDX guest")


TABLE = struct.Struct("<4sIBB6s8sI4sIBBHQQ")  # ACPI header, then type, subtype, reserved, least length, address
CC_TYPE_TDX = 2


def _header(reader: _Reader) -> dict[int, int]:
    """The first event, in the old form: which digests the others carry, and their sizes."""
    register, kind, _sha1, size = reader.unpack("<II20sI")
    if (register, kind) != (1, EV_NO_ACTION) and (register, kind) != (0, EV_NO_ACTION):
        raise Malformed("an event log begins with a specification event")
    body = _Reader(reader.take(size))
    signature, _platform, _minor, _major, _errata, _uintn, count = body.unpack("<16sIBBBBI")
    if signature != SIGNATURE:
        raise Malformed("the event log is not of the crypto-agile kind (Spec ID Event03)")
    if not 1 <= count <= len(DIGEST_SIZES):
        raise Malformed(f"the event log claims {count} digest algorithms")
    sizes = dict(body.unpack("<HH") for _ in range(count))
    (vendor,) = body.unpack("<B")
    body.take(vendor)
    if body.left or len(sizes) != count:
        raise Malformed("the event log's first event is not a specification event")
    if any(DIGEST_SIZES.get(algorithm) != size for algorithm, size in sizes.items()) or SHA384 not in sizes:
        raise Malformed("the event log has no SHA-384 digests, or claims wrong sizes")
    return sizes


def _event(reader: _Reader, sizes: dict[int, int]) -> Event:
    register, kind, count = reader.unpack("<III")
    if count != len(sizes):
        raise Malformed(f"an event has {count} digests; the log said {len(sizes)}")
    digests: dict[int, bytes] = {}
    for _ in range(count):
        (algorithm,) = reader.unpack("<H")
        if algorithm not in sizes or algorithm in digests:
            raise Malformed("an event has a digest that the log did not announce")
        digests[algorithm] = reader.take(sizes[algorithm])
    (size,) = reader.unpack("<I")
    return Event(register, kind, digests[SHA384], reader.take(size))


class _Reader:
    """Takes bytes from the front; Malformed where they run out."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise Malformed("an event log is cut short")
        self._at += count
        return self._data[self._at - count : self._at]

    def unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def padding(self) -> bool:
        """Whether the log ends here: at the end of the bytes, or where only zeros or only 0xFF follow."""
        start = self._data[self._at : self._at + 8]  # an event's register and type are never all zeros or 0xFF
        if len(set(start)) > 1 or start[:1] not in (b"", b"\0", b"\xff"):
            return False
        return self._data.count(start[:1], self._at) == self.left if start else True
