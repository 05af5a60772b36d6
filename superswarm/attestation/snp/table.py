"""Parse the certificate table that a host hands to an SNP guest (AMD 56421, GHCB, MSG_REPORT_REQ extended).

Proves nothing: the host chooses what is in it.
"""

from __future__ import annotations

import struct
from uuid import UUID

from superswarm.errors import Malformed, TooLarge

TABLE_BYTES = 64 * 1024
ENTRY = struct.Struct("<16sII")
NAMES = {
    UUID("63da758d-e664-4564-adc5-f4b93be8accd"): "vcek.der",
    UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"): "vlek.der",
    UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"): "ask.der",  # ASK or ASVK
    UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"): "ark.der",
    UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea"): "ark.crl.der",
}


def parse_table(data: bytes) -> dict[str, bytes]:
    """The certificates of a table, named as in SNP evidence; entries of other kinds are left out.

    An empty table, which hosts without certificates hand out, has none. Raises Malformed or TooLarge.
    """
    if len(data) > TABLE_BYTES:
        raise TooLarge(f"an SNP certificate table has at most {TABLE_BYTES} bytes")
    found: dict[str, bytes] = {}
    for at in range(0, len(data) - ENTRY.size + 1, ENTRY.size):
        raw, offset, length = ENTRY.unpack_from(data, at)
        if not any(raw):
            return found
        if offset + length > len(data) or offset < at + ENTRY.size:
            raise Malformed("an entry of the SNP certificate table lies outside of it")
        name = NAMES.get(UUID(bytes=raw))
        if name in found:
            raise Malformed(f"the SNP certificate table has {name} twice")
        if name is not None and length:
            found[name] = data[offset : offset + length]
    if any(data):
        raise Malformed("the SNP certificate table has no end")
    return found
