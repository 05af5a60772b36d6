"""The report that an NVIDIA GPU or NVSwitch signs: an SPDM 1.1 GET_MEASUREMENTS request and its response.

DMTF DSP0274 1.1.0, tables 31 (request), 32 (response) and 34 (measurement block), one after the other: that is what
the device signs, less the signature. The response's opaque data is NVIDIA's: a list of type, length, value, with
types as NVIDIA's public verifier names them (github.com/NVIDIA/attestation-sdk). Parsing proves nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from superswarm.errors import Malformed, TooLarge

REPORT_BYTES = 16 * 1024  # NVML's buffer holds 8 KiB; a report with all 255 measurement blocks needs 14 KiB
REQUEST = struct.Struct("<BBBB32sB")  # version, code, param1, param2, nonce, slot
RESPONSE = struct.Struct("<BBBBB3s")  # version, code, param1, param2, number of blocks, length of the record
BLOCK = struct.Struct("<BBHBH")  # index, specification, size; then the DMTF value's type and size
SIGNATURE_BYTES = 96  # ECDSA over P-384: r, then s

VERSION_1_1 = 0x11
GET_MEASUREMENTS = 0xE0
MEASUREMENTS = 0x60
SIGNATURE_REQUESTED = 0x01
ALL_MEASUREMENTS = 0xFF
DMTF_SPECIFICATION = 0x01
RAW_BIT_STREAM = 0x80
OPAQUE_VERSIONS = range(2)  # what is understood of OpaqueType.OPAQUE_DATA_VERSION; absent means 0

TEXT = re.compile(rb"[A-Za-z0-9._-]{1,32}")


class OpaqueType(IntEnum):
    """Types of the opaque data. 22 to 25 mean one thing in a GPU's report and another in a switch's."""

    CERT_ISSUER_NAME = 1
    CERT_AUTHORITY_KEY_IDENTIFIER = 2
    DRIVER_VERSION = 3
    GPU_INFO = 4  # early NVSwitch firmware: the identifiers of the GPUs behind the ports
    SKU = 5
    VBIOS_VERSION = 6
    MANUFACTURER_ID = 7
    TAMPER_DETECTION = 8
    SMC = 9
    VPR = 10
    NVDEC0_STATUS = 11
    MEASUREMENT_COUNTS = 12
    CPR_INFO = 13
    BOARD_ID = 14
    CHIP_SKU = 15
    CHIP_SKU_MODIFIER = 16
    PROJECT = 17
    PROJECT_SKU = 18
    PROJECT_SKU_MODIFIER = 19
    FWID = 20
    PROTECTED_PCIE_STATUS = 21
    PDI = 22  # GPU: of the switches behind its links; switch: its own
    DISABLED_PORTS = 23
    POSITION_ID = 24
    LOCK_STATUS = 25
    SWITCH_GPU_PDIS = 26
    SWITCH_PORTS = 27
    GPU_LINK_CONNECTIONS = 32
    SYSTEM_ENABLE_STATUS = 33
    OPAQUE_DATA_VERSION = 34
    CHIP_INFO = 35
    FEATURE_FLAG = 36


TEXTUAL = frozenset(
    {
        OpaqueType.DRIVER_VERSION,
        OpaqueType.SKU,
        OpaqueType.CHIP_SKU,
        OpaqueType.CHIP_SKU_MODIFIER,
        OpaqueType.PROJECT,
        OpaqueType.PROJECT_SKU,
        OpaqueType.PROJECT_SKU_MODIFIER,
        OpaqueType.CHIP_INFO,
    }
)
PDI_BYTES = 8
ENABLED, DISABLED = 0xAA, 0x55  # how NVIDIA writes a switch that a single flipped bit must not change
PROTECTED_PCIE = "protected PCIe"
MODES = ("multi-GPU passthrough", "single-GPU passthrough", PROTECTED_PCIE)  # FEATURE_FLAG


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement block. Reference manifests count from 0, SPDM from 1."""

    index: int  # 1 to 255
    kind: int  # DMTFSpecMeasurementValueType; bit 7 set means raw bits instead of a digest
    value: bytes

    @property
    def is_digest(self) -> bool:
        return not self.kind & RAW_BIT_STREAM


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Every field of request and response that is not fixed by the parser."""

    nonce: bytes  # 32 bytes, the requester's: what makes the report fresh
    slot: int  # of the device's certificate chain
    measurements: Mapping[int, Measurement]  # by SPDM index
    responder_nonce: bytes  # 32 bytes, the device's own
    opaque: Mapping[int, bytes]  # by type; types that this version does not know are kept
    signature: bytes  # r, then s, 48 bytes each, big-endian
    signed: bytes  # everything before the signature

    def text(self, kind: OpaqueType) -> str | None:
        """An ASCII field without its NUL padding; None where the report has none."""
        raw = self.opaque.get(kind)
        if raw is None:
            return None
        stripped = raw.rstrip(b"\0")
        if not stripped:
            return ""
        if not TEXT.fullmatch(stripped):
            raise Malformed(f"{name_of(kind)} is not a short text")
        return stripped.decode("ascii")

    @property
    def driver_version(self) -> str | None:
        return self.text(OpaqueType.DRIVER_VERSION)

    @property
    def vbios_version(self) -> str | None:
        """As reference manifests write it: `96.00.5E.00.01`.

        A GPU gives 8 bytes, a little-endian word, the fifth part, and zeroes; a switch gives the text itself.
        """
        raw = self.opaque.get(OpaqueType.VBIOS_VERSION)
        if raw is None:
            return None
        if len(raw) == 8:
            if any(raw[5:]):
                raise Malformed("vbios-version has bytes set after its fifth part")
            return ".".join(f"{part:02X}" for part in (*raw[3::-1], raw[4]))
        text = self.text(OpaqueType.VBIOS_VERSION)
        return text.upper() if text is not None else None

    @property
    def fwid(self) -> bytes | None:
        """SHA-384 of the firmware that holds the attestation key. Switches and drivers of 535.86 do not report it."""
        raw = self.opaque.get(OpaqueType.FWID)
        if raw is not None and len(raw) != 48:
            raise Malformed(f"fwid has {len(raw)} bytes, not 48")
        return raw

    @property
    def chip_info(self) -> str | None:
        return self.text(OpaqueType.CHIP_INFO)

    @property
    def nvdec0_enabled(self) -> bool | None:
        """Whether the first video decoder is on; None where the report does not say."""
        return self._switch(OpaqueType.NVDEC0_STATUS)

    @property
    def protected_pcie(self) -> bool:
        """Whether the GPU runs in protected-PCIe mode: its NVLinks then carry plaintext to its switches."""
        return bool(self._switch(OpaqueType.PROTECTED_PCIE_STATUS)) or self.mode == PROTECTED_PCIE

    @property
    def mode(self) -> str | None:
        """The confidential-computing mode; None in reports without a feature flag."""
        raw = self.opaque.get(OpaqueType.FEATURE_FLAG)
        if raw is None:
            return None
        flag = int.from_bytes(raw, "little")
        if len(raw) > 8 or flag >= len(MODES):
            raise Malformed("feature-flag names no mode that is known")
        return MODES[flag]

    @property
    def own_pdi(self) -> bytes | None:
        """A switch's own identifier, 8 bytes; a GPU does not report one."""
        return None if self.driver_version is not None else next(iter(self._pdis(OpaqueType.PDI)), None)

    @property
    def linked_switches(self) -> frozenset[bytes]:
        """Identifiers of the switches behind a GPU's links, which it lists in reversed byte order."""
        if self.driver_version is None:
            return frozenset()
        return frozenset(pdi[::-1] for pdi in self._pdis(OpaqueType.PDI))

    def _pdis(self, kind: OpaqueType) -> list[bytes]:
        raw = self.opaque.get(kind, b"")
        if len(raw) % PDI_BYTES:
            raise Malformed(f"{name_of(kind)} is not a list of {PDI_BYTES}-byte identifiers")
        found = [raw[i : i + PDI_BYTES] for i in range(0, len(raw), PDI_BYTES)]
        return [pdi for pdi in found if any(pdi)]  # an unused link is zero

    def _switch(self, kind: OpaqueType) -> bool | None:
        raw = self.opaque.get(kind)
        if raw is None:
            return None
        if raw not in (bytes([ENABLED]), bytes([DISABLED])):
            raise Malformed(f"{name_of(kind)} is neither on (0xAA) nor off (0x55)")
        return raw[0] == ENABLED

    def fields(self) -> Iterator[tuple[str, str]]:
        """Every field with its name, for people."""
        yield "nonce", self.nonce.hex()
        yield "slot", str(self.slot)
        yield "responder-nonce", self.responder_nonce.hex()
        for kind, raw in self.opaque.items():
            yield name_of(kind), _readable(self, kind, raw)
        for measurement in self.measurements.values():
            form = "digest" if measurement.is_digest else "raw"
            yield f"measurement-{measurement.index} ({form})", measurement.value.hex()
        yield "signature", self.signature.hex()


def parse_report(data: bytes) -> Report:
    """Parse a request with its response. Malformed for anything else; TooLarge over the limit. Proves nothing."""
    if len(data) > REPORT_BYTES:
        raise TooLarge(f"a device's report has at most {REPORT_BYTES} bytes")
    if len(data) < REQUEST.size + RESPONSE.size:
        raise Malformed("a device's report is cut short")
    version, code, param1, param2, nonce, slot = REQUEST.unpack_from(data)
    if (version, code) != (VERSION_1_1, GET_MEASUREMENTS):
        raise Malformed("a device's report does not begin with an SPDM 1.1 GET_MEASUREMENTS request")
    if (param1, param2) != (SIGNATURE_REQUESTED, ALL_MEASUREMENTS) or slot > 7:
        raise Malformed("the SPDM request does not ask for all measurements, signed, from a slot")
    version, code, param1, param2, blocks, length = RESPONSE.unpack_from(data, REQUEST.size)
    if (version, code) != (VERSION_1_1, MEASUREMENTS):
        raise Malformed("the SPDM request is not followed by an SPDM 1.1 MEASUREMENTS response")
    if param1 or param2 != slot:
        raise Malformed("the SPDM response has reserved bits set, or answers for another slot")
    start = REQUEST.size + RESPONSE.size
    end = start + int.from_bytes(length, "little")
    if len(data) < end + 34 + SIGNATURE_BYTES:
        raise Malformed("the SPDM response is cut short")
    (opaque_length,) = struct.unpack_from("<H", data, end + 32)
    opaque_end = end + 34 + opaque_length
    if len(data) != opaque_end + SIGNATURE_BYTES:
        raise Malformed("the SPDM response's lengths do not add up to its size")
    opaque = _opaque(data[end + 34 : opaque_end])
    return Report(
        nonce=nonce,
        slot=slot,
        measurements=_measurements(data[start:end], blocks),
        responder_nonce=data[end : end + 32],
        opaque=opaque,
        signature=data[opaque_end:],
        signed=data[:opaque_end],
    )


def _measurements(record: bytes, blocks: int) -> Mapping[int, Measurement]:
    found: dict[int, Measurement] = {}
    at = 0
    for _ in range(blocks):
        if at + BLOCK.size > len(record):
            raise Malformed("the measurement record is cut short")
        index, specification, size, kind, value_size = BLOCK.unpack_from(record, at)
        if specification != DMTF_SPECIFICATION or size != value_size + 3:
            raise Malformed("a measurement block is not in the DMTF's form")
        value = record[at + BLOCK.size : at + BLOCK.size + value_size]
        if len(value) != value_size or index == 0 or index in found:
            raise Malformed("a measurement block is cut short, unnumbered or repeated")
        found[index] = Measurement(index, kind, value)
        at += BLOCK.size + value_size
    if at != len(record) or not found:
        raise Malformed("the measurement record is empty or has trailing bytes")
    return MappingProxyType(found)


def _opaque(data: bytes) -> Mapping[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise Malformed("the opaque data is cut short")
        kind, size = struct.unpack_from("<HH", data, at)
        value = data[at + 4 : at + 4 + size]
        if len(value) != size or kind in found:
            raise Malformed("a field of the opaque data is cut short or repeated")
        found[kind] = value
        at += 4 + size
    version = found.get(OpaqueType.OPAQUE_DATA_VERSION, b"")
    if len(version) > 8 or int.from_bytes(version, "little") not in OPAQUE_VERSIONS:
        raise Malformed("the opaque data is of a version that is not understood")
    return MappingProxyType(found)


def name_of(kind: int) -> str:
    """The name of an opaque field, for people; `opaque-<type>` where NVIDIA's verifier has none."""
    try:
        return OpaqueType(kind).name.lower().replace("_", "-")
    except ValueError:
        return f"opaque-{kind}"


def _readable(report: Report, kind: int, raw: bytes) -> str:
    """A field's value as people write it; hexadecimal for what is no text, and for a text that is none."""
    try:
        if kind == OpaqueType.VBIOS_VERSION:
            return report.vbios_version or raw.hex()
        if kind in TEXTUAL:
            return report.text(OpaqueType(kind)) or raw.hex()
        if kind == OpaqueType.FEATURE_FLAG:
            return report.mode or raw.hex()
        if kind in (OpaqueType.NVDEC0_STATUS, OpaqueType.PROTECTED_PCIE_STATUS):
            return "on" if raw == bytes([ENABLED]) else "off" if raw == bytes([DISABLED]) else raw.hex()
    except Malformed:
        return raw.hex()
    if kind == OpaqueType.MEASUREMENT_COUNTS and len(raw) % 4 == 0:
        return " ".join(str(count) for (count,) in struct.iter_unpack("<I", raw))
    return raw.hex()
