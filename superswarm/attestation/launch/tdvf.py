"""MRTD: what the TDX module measures while a VMM loads a firmware image (TDVF).

Metadata: Intel TDX Virtual Firmware Design Guide, section 11. Measurement: Intel TDX Module ABI, TDH.MEM.PAGE.ADD and
TDH.MR.EXTEND: each call hashes 128 bytes that name it and the guest's physical address, the second one the chunk too.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from dataclasses import dataclass

from superswarm.errors import Malformed
from superswarm.values import Measurement

PAGE = 4096
CHUNK = 256  # bytes that one TDH.MR.EXTEND covers
TABLE_FOOTER = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
METADATA_OFFSET = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
AFTER_TABLE = 32  # bytes from the end of the table, which TABLE_FOOTER closes, to the end of the image
ENTRY = struct.Struct("<H16s")  # closes an entry: its size with this, and its GUID
DESCRIPTOR = struct.Struct("<4sIII")  # signature, length, version, number of sections
SECTION = struct.Struct("<IIQQII")
MAX_SECTIONS = 64
MAX_MEMORY = 1 << 30  # bytes of one section

MEASURED = 1  # attribute MR.EXTEND
ADDED_LATER = 2  # attribute PAGE.AUG: the guest accepts these pages by itself


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the firmware, or of memory, that the VMM adds to the trust domain."""

    offset: int  # in the firmware image
    size: int
    address: int  # guest-physical
    memory: int  # bytes of memory, whole pages
    kind: int
    attributes: int


def mrtd(firmware: bytes, *, two_passes: bool = False) -> Measurement:
    """The MRTD of a trust domain that starts with this firmware. Raises Malformed.

    Linux (KVM) measures each page as it adds it. VMMs from before that added all pages of a section first
    (`two_passes`).
    """
    measured = hashlib.sha384()
    for section in parse_sections(firmware):
        pages = range(section.memory // PAGE)
        for batch in [pages] if two_passes else [range(n, n + 1) for n in pages]:
            for page in batch:
                measured.update(_added(section, page))
            for page in batch:
                measured.update(_extended(firmware, section, page))
    return Measurement(measured.digest())


def parse_sections(firmware: bytes) -> tuple[Section, ...]:
    """Read a firmware image's TDX metadata. Raises Malformed."""
    start = len(firmware) - _metadata_offset(firmware)
    if not 0 <= start <= len(firmware) - DESCRIPTOR.size:
        raise Malformed("the firmware's TDX metadata lie outside of it")
    signature, _length, version, count = DESCRIPTOR.unpack_from(firmware, start)
    start += DESCRIPTOR.size
    if (signature, version) != (b"TDVF", 1):
        raise Malformed("the firmware's TDX metadata are not of version 1")
    if not 1 <= count <= MAX_SECTIONS or start + count * SECTION.size > len(firmware):
        raise Malformed(f"the firmware's TDX metadata claim {count} sections")
    sections = tuple(Section(*SECTION.unpack_from(firmware, start + n * SECTION.size)) for n in range(count))
    for number, section in enumerate(sections):
        _check(number, section, firmware)
    return sections


def _check(number: int, section: Section, firmware: bytes) -> None:
    if section.address % PAGE or section.memory % PAGE or section.memory > MAX_MEMORY:
        raise Malformed(f"section {number} of the firmware is not whole pages, or over {MAX_MEMORY} bytes")
    if section.size > section.memory or section.offset + section.size > len(firmware):
        raise Malformed(f"section {number} of the firmware has more bytes than its memory, or than the image")
    if section.attributes & MEASURED and section.size != section.memory:
        raise Malformed(f"section {number} of the firmware is measured, and has less bytes than its memory")


def _metadata_offset(firmware: bytes) -> int:
    """How far from the image's end the metadata begin: an entry in the table of GUIDs before the reset vector."""
    end = len(firmware) - AFTER_TABLE
    if end < ENTRY.size:
        raise Malformed("the firmware is too small to be an OVMF image")
    size, guid = ENTRY.unpack_from(firmware, end - ENTRY.size)
    if guid != TABLE_FOOTER or not ENTRY.size <= size <= end:
        raise Malformed("the firmware has no table of GUIDs: it is not an OVMF image")
    table = firmware[end - size : end - ENTRY.size]
    while len(table) >= ENTRY.size:
        size, guid = ENTRY.unpack_from(table, len(table) - ENTRY.size)
        if not ENTRY.size <= size <= len(table):
            raise Malformed("an entry of the firmware's table is longer than the table")
        if guid == METADATA_OFFSET and size == ENTRY.size + 4:
            return int.from_bytes(table[-size : -size + 4], "little")
        table = table[:-size]
    raise Malformed("the firmware has no TDX metadata: it is not built for TDX")


def _added(section: Section, page: int) -> bytes:
    if section.attributes & ADDED_LATER:
        return b""
    return _call(b"MEM.PAGE.ADD", section.address + page * PAGE)


def _extended(firmware: bytes, section: Section, page: int) -> bytes:
    if not section.attributes & MEASURED:
        return b""
    chunks = range(page * PAGE, (page + 1) * PAGE, CHUNK)
    return b"".join(
        _call(b"MR.EXTEND", section.address + at) + firmware[section.offset + at : section.offset + at + CHUNK]
        for at in chunks
    )


def _call(name: bytes, address: int) -> bytes:
    return name.ljust(16, b"\0") + struct.pack("<Q", address) + bytes(104)
