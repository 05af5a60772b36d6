"""Authenticode digest of a PE image: what UEFI firmware measures of an application before it starts it.

Windows Authenticode Portable Executable Signature Format, "Calculating the PE Image Hash"; edk2,
DxeTpm2MeasureBootLib, MeasurePeImageAndExtend.
"""

from __future__ import annotations

import hashlib
import struct

from superswarm.errors import Malformed

SECURITY_DIRECTORY = 4  # the entry of the data directory that locates signatures
SECTION_HEADER = 40


def authenticode(image: bytes) -> bytes:
    """SHA-384 of an image without its checksum, the place of its signatures, and its signatures. Raises Malformed."""
    pe = _Image(image)
    digest = hashlib.sha384()
    # (1) The headers, without the checksum and the entry that locates signatures.
    for start, end in pe.header_parts():
        digest.update(image[start:end])
    # (2) The sections, in the order in which they lie in the file.
    hashed = pe.headers
    for start, size in sorted(pe.sections()):
        if start + size > len(image):
            raise Malformed("a section of the image lies outside of it")
        digest.update(image[start : start + size])
        hashed += size
    # (3) What follows them, without the signatures at the end.
    if hashed + pe.signatures > len(image):
        raise Malformed("the image's signatures lie outside of it")
    digest.update(image[hashed : len(image) - pe.signatures])
    return digest.digest()


class _Image:
    """The fields of a PE image's headers that the digest needs."""

    def __init__(self, image: bytes) -> None:
        self._image = image
        signature = self._number("<I", 0x3C)
        if image[:2] != b"MZ" or image[signature : signature + 4] != b"PE\0\0":
            raise Malformed("not a PE image: a kernel needs its EFI stub")
        self._count = self._number("<H", signature + 6)
        self._optional = signature + 24
        self._table = self._optional + self._number("<H", signature + 20)
        self._directory = self._optional + {0x10B: 96, 0x20B: 112}.get(self._number("<H", self._optional), 0)
        if self._directory == self._optional:
            raise Malformed("the image is neither PE32 nor PE32+")
        self.headers = self._number("<I", self._optional + 60)
        entries = self._number("<I", self._directory - 4)
        self._security = self._directory + 8 * SECURITY_DIRECTORY if entries > SECURITY_DIRECTORY else None
        self.signatures = self._number("<I", self._security + 4) if self._security is not None else 0
        if not self._directory <= self.headers <= len(image):
            raise Malformed("the image's headers lie outside of it")

    def header_parts(self) -> list[tuple[int, int]]:
        checksum = self._optional + 64
        if self._security is None:
            return [(0, checksum), (checksum + 4, self.headers)]
        return [(0, checksum), (checksum + 4, self._security), (self._security + 8, self.headers)]

    def sections(self) -> list[tuple[int, int]]:
        """Where each section that has bytes lies, and how many it has."""
        headers = range(self._table, self._table + self._count * SECTION_HEADER, SECTION_HEADER)
        found = [(self._number("<I", at + 20), self._number("<I", at + 16)) for at in headers]
        return [(start, size) for start, size in found if size]

    def _number(self, form: str, at: int) -> int:
        if at + struct.calcsize(form) > len(self._image):
            raise Malformed("the image's headers are cut short")
        (value,) = struct.unpack_from(form, self._image, at)
        return int(value)
