"""Parse a TPM 2.0 quote (TCG TPM 2.0 Library, part 2: TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE). Proves nothing."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from superswarm.errors import Malformed

MAGIC = 0xFF544347  # TPM_GENERATED_VALUE: made inside a TPM, never from outside data
ATTEST_QUOTE = 0x8018
SHA256 = 0x000B
PCRS = 24
QUOTE_BYTES = 4096  # the largest that is read; a real one has under 300


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmQuote:
    """What the attestation key signs. Proves nothing."""

    signer: bytes  # the key's qualified name
    qualifying_data: bytes  # chosen by the verifier: the nonce
    clock: int  # milliseconds
    reset_count: int
    restart_count: int
    clock_safe: bool
    firmware_version: int
    selected: tuple[int, ...]  # PCRs of the SHA-256 bank, ascending
    pcr_digest: bytes  # SHA-256 over their values


class _Reader:
    """Takes big-endian fields off a buffer; Malformed when it ends early."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise Malformed("the TPM quote is cut short")
        self.at += size
        return self.data[self.at - size : self.at]

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self, most: int) -> bytes:
        """A TPM2B: two bytes of length, then the bytes."""
        size = self.integer(2)
        if size > most:
            raise Malformed(f"a field of the TPM quote claims {size} bytes; {most} are the most")
        return self.take(size)


def parse_quote(data: bytes) -> TpmQuote:
    """Parse a TPMS_ATTEST that quotes PCRs of the SHA-256 bank. Proves nothing. Raises Malformed."""
    if len(data) > QUOTE_BYTES:
        raise Malformed(f"a TPM quote has at most {QUOTE_BYTES} bytes")
    reader = _Reader(data)
    if reader.integer(4) != MAGIC or reader.integer(2) != ATTEST_QUOTE:
        raise Malformed("not a TPM quote")
    signer = reader.sized(68)
    qualifying_data = reader.sized(66)
    clock, resets, restarts, safe = struct.unpack(">QIIB", reader.take(17))
    if safe > 1:
        raise Malformed("the TPM quote's clock says neither safe nor unsafe")
    firmware = reader.integer(8)
    selected = _selection(reader)
    digest = reader.sized(32)
    if reader.at != len(data) or len(digest) != 32:
        raise Malformed("the TPM quote does not end with a SHA-256 digest of PCRs")
    return TpmQuote(
        signer=signer,
        qualifying_data=qualifying_data,
        clock=clock,
        reset_count=resets,
        restart_count=restarts,
        clock_safe=bool(safe),
        firmware_version=firmware,
        selected=selected,
        pcr_digest=digest,
    )


def _selection(reader: _Reader) -> tuple[int, ...]:
    """A TPML_PCR_SELECTION of one bank, SHA-256."""
    if reader.integer(4) != 1 or reader.integer(2) != SHA256:
        raise Malformed("the TPM quote does not cover exactly the SHA-256 bank")
    bitmap = reader.take(reader.integer(1))
    selected = tuple(i * 8 + bit for i, byte in enumerate(bitmap) for bit in range(8) if byte >> bit & 1)
    if not selected or selected[-1] >= PCRS:
        raise Malformed("the TPM quote selects no PCR, or one that does not exist")
    return selected
