"""A small DER writer (X.690), for structures that `cryptography` does not write: Intel's SGX PCK extension."""

from __future__ import annotations


def tlv(tag: int, content: bytes) -> bytes:
    """One element: a tag byte, the shortest form of the length, the content."""
    if len(content) < 128:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def sequence(*elements: bytes) -> bytes:
    return tlv(0x30, b"".join(elements))


def octets(content: bytes) -> bytes:
    return tlv(0x04, content)


def integer(value: int) -> bytes:
    """A non-negative INTEGER; one zero byte in front keeps it from reading as negative."""
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def enumerated(value: int) -> bytes:
    return tlv(0x0A, bytes((value,)))


def boolean(*, value: bool) -> bytes:
    return tlv(0x01, b"\xff" if value else b"\x00")


def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER: the first two arcs share a byte, the others are base 128, most significant first."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    content = bytearray((40 * first + second,))
    for arc in rest:
        digits = [arc & 0x7F]
        while arc := arc >> 7:
            digits.append(0x80 | (arc & 0x7F))
        content += bytes(reversed(digits))
    return tlv(0x06, bytes(content))
