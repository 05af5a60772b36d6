"""What a device's leaf certificate says about the device: product, serial number, and the firmware it was made for.

The names are the DMTF's (DSP0274, `id-DMTF-device-info`). The firmware's digest (FWID) sits in a TCG DICE extension:
Hopper and its switches write a CompositeDeviceID (RIoT, 2.23.133.5.4.1), Blackwell a DiceTcbInfo (TCG DICE
Attestation Architecture 1.1, section 6.1.1, 2.23.133.5.4.1.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.x509.oid import ObjectIdentifier

from superswarm.attestation.certificates import Certificate
from superswarm.attestation.nvidia.chain import Chain, extension, point
from superswarm.attestation.reasons import Fault, Reason, rejected
from superswarm.errors import EvidenceRejected

DEVICE_INFO: Final = ObjectIdentifier("1.3.6.1.4.1.412.274.1")
COMPOSITE_DEVICE_ID: Final = ObjectIdentifier("2.23.133.5.4.1")
TCB_INFO: Final = ObjectIdentifier("2.23.133.5.4.1.1")
SHA384: Final = ObjectIdentifier("2.16.840.1.101.3.4.2.2")
INSECURE_FLAGS: Final = {1: "not secure", 2: "in recovery", 3: "debug"}  # DiceTcbInfo.flags, by bit
NAMES = re.compile(r"NVIDIA:([A-Z]{2}_?[0-9A-Z]{2,6}):([0-9A-Fa-f]{16})")


class Architecture(StrEnum):
    """Families of devices whose reports this version reads."""

    HOPPER = "hopper"
    BLACKWELL = "blackwell"
    NVSWITCH = "nvswitch"

    @property
    def is_switch(self) -> bool:
        return self is Architecture.NVSWITCH


PREFIXES: Final = {"GH": Architecture.HOPPER, "GB": Architecture.BLACKWELL, "LS": Architecture.NVSWITCH}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A device as its certificate names it. Means something only once the chain is verified."""

    architecture: Architecture
    product: str  # as reference manifests write it: GH100, GB100, LS10
    serial: str  # 16 lower-case hex digits, unique to the chip
    fwid: bytes  # SHA-384 of the firmware that holds the attestation key, 48 bytes
    flags: frozenset[int]  # of the DiceTcbInfo, by bit; empty for Hopper


@asn1.sequence
class Fwid:
    algorithm: ObjectIdentifier
    digest: bytes


@asn1.sequence
class KeyAlgorithm:
    algorithm: ObjectIdentifier
    curve: ObjectIdentifier


@asn1.sequence
class DeviceKey:
    algorithm: KeyAlgorithm
    point: asn1.BitString


@asn1.sequence
class CompositeDeviceId:
    version: int
    device: DeviceKey
    fwid: Fwid


@asn1.sequence
class TcbInfo:
    vendor: Annotated[str | None, asn1.Implicit(0)]
    model: Annotated[str | None, asn1.Implicit(1)]
    version: Annotated[str | None, asn1.Implicit(2)]
    svn: Annotated[int | None, asn1.Implicit(3)]
    layer: Annotated[int | None, asn1.Implicit(4)]
    index: Annotated[int | None, asn1.Implicit(5)]
    fwids: Annotated[list[Fwid] | None, asn1.Implicit(6)]
    flags: Annotated[asn1.BitString | None, asn1.Implicit(7)]
    vendor_info: Annotated[bytes | None, asn1.Implicit(8)]
    kind: Annotated[bytes | None, asn1.Implicit(9)]


def identify(chain: Chain) -> Identity:
    """Read the leaf's names and firmware digest. Raises EvidenceRejected where they are missing or contradictory."""
    product, serial = _names(chain[0])
    architecture = PREFIXES.get(product[:2])
    if architecture is None:
        raise rejected(Fault(Reason.PRODUCT_UNRECOGNISED, f"{product} is not a product that is known"))
    fwid, flags = _firmware(chain)
    return Identity(
        architecture=architecture,
        product=product.replace("_", ""),
        serial=serial.lower(),
        fwid=fwid,
        flags=flags,
    )


def _names(leaf: Certificate) -> tuple[str, str]:
    alternative = extension(leaf, x509.SubjectAlternativeName)
    found = [
        name.value for name in (alternative or ()) if isinstance(name, x509.OtherName) and name.type_id == DEVICE_INFO
    ]
    if len(found) != 1:
        raise _refused("the device's certificate does not name exactly one device")
    try:
        text = asn1.decode_der(str, found[0])
    except ValueError:
        raise _refused("the device's name is not a text") from None
    names = NAMES.fullmatch(text)
    if names is None:
        raise _refused("the device's name is not NVIDIA:<product>:<serial>")
    return names.group(1), names.group(2)


def _firmware(chain: Chain) -> tuple[bytes, frozenset[int]]:
    extensions = chain[0].extensions
    composite, info = extensions.get(COMPOSITE_DEVICE_ID.dotted_string), extensions.get(TCB_INFO.dotted_string)
    if (composite is None) == (info is None):
        raise _refused("the device's certificate does not have exactly one DICE extension")
    try:
        return _tcb_info(info) if info is not None else _composite(composite or b"", chain[1])
    except ValueError:
        raise _refused("the certificate's DICE extension does not parse") from None


def _composite(raw: bytes, issuer: Certificate) -> tuple[bytes, frozenset[int]]:
    composite = asn1.decode_der(CompositeDeviceId, raw)
    if composite.version != 1 or composite.device.point.as_bytes() != point(issuer):
        raise _refused("the CompositeDeviceID is not version 1, or names another device key than the issuer's")
    return _digest(composite.fwid), frozenset()


def _tcb_info(raw: bytes) -> tuple[bytes, frozenset[int]]:
    info = asn1.decode_der(TcbInfo, raw)
    if not info.fwids:
        raise _refused("the DiceTcbInfo names no firmware")
    bits = b"" if info.flags is None else info.flags.as_bytes()
    flags = frozenset(i for i in range(8 * len(bits)) if bits[i // 8] & 0x80 >> i % 8)
    return _digest(info.fwids[0]), flags


def _digest(fwid: Fwid) -> bytes:
    if fwid.algorithm != SHA384 or len(fwid.digest) != 48:
        raise _refused("the firmware's digest is not a SHA-384")
    return fwid.digest


def _refused(message: str) -> EvidenceRejected:
    return rejected(Fault(Reason.CHAIN_INVALID, message))
