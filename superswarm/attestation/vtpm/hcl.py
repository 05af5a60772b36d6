"""Parse the report that an Azure paravisor (HCL, OpenHCL) leaves in its vTPM at NV index 0x01400001.

Layout as in OpenHCL's `igvm_attest`: a header of 32 bytes, the hardware's report in a field of 1,184 bytes, a second
header of 20 bytes, then JSON with the vTPM's keys, whose hash is the report_data of the hardware's report. The whole
is padded with zeros. Proves nothing.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from superswarm.attestation.snp.report import REPORT_BYTES
from superswarm.consortium.documents import load_json
from superswarm.errors import Malformed

HCL_BYTES = 16 * 1024  # the largest that is read; a real one has 2,600
HEADER = struct.Struct("<4sIII4I")
HARDWARE = HEADER.size
SECOND_HEADER = struct.Struct("<5I")
RUNTIME_DATA = HARDWARE + REPORT_BYTES + SECOND_HEADER.size
AK_REQUEST = 2
TDREPORT_BYTES = 1024
HASHES: dict[int, Callable[[bytes], bytes]] = {
    1: lambda data: hashlib.sha256(data).digest(),
    2: lambda data: hashlib.sha384(data).digest(),
    3: lambda data: hashlib.sha512(data).digest(),
}


class Beneath(IntEnum):
    """What the paravisor runs on."""

    SEV_SNP = 2
    TDX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReport:
    """The paravisor's report. Proves nothing."""

    beneath: Beneath
    hardware: bytes = field(repr=False)  # an SNP report, or a TDREPORT, which only its own machine can check
    runtime_data: bytes = field(repr=False)  # JSON, exactly as hashed
    expected_report_data: bytes  # 64: what the hardware's report must have
    attestation_key: rsa.RSAPublicKey
    secure_boot: bool
    user_data: str  # hexadecimal, as the guest last wrote it


def parse_hcl(data: bytes) -> HclReport:
    """Parse a paravisor's report. Proves nothing. Raises Malformed."""
    if not RUNTIME_DATA < len(data) <= HCL_BYTES:
        raise Malformed(f"a paravisor's report has {RUNTIME_DATA} to {HCL_BYTES} bytes, not {len(data)}")
    magic, version, size, request, status, *reserved = HEADER.unpack_from(data)
    if magic != b"HCLA" or version not in (1, 2) or request != AK_REQUEST or status or any(reserved):
        raise Malformed("not a paravisor's report: its header is not as specified")
    length, second_version, kind, hash_kind, runtime_size = SECOND_HEADER.unpack_from(data, HARDWARE + REPORT_BYTES)
    end = RUNTIME_DATA + runtime_size
    if second_version != 1 or kind not in list(Beneath) or hash_kind not in HASHES:
        raise Malformed("the paravisor's report names an unknown kind of hardware report or hash")
    if end > len(data) or size != end or length != SECOND_HEADER.size + runtime_size or any(data[end:]):
        raise Malformed("the paravisor's report has lengths that contradict each other")
    beneath = Beneath(kind)
    hardware = data[HARDWARE : HARDWARE + REPORT_BYTES]
    if beneath is Beneath.TDX:
        if any(hardware[TDREPORT_BYTES:]):
            raise Malformed("the paravisor's report has bytes after its TDREPORT")
        hardware = hardware[:TDREPORT_BYTES]
    runtime_data = data[RUNTIME_DATA:end]
    document = load_json(runtime_data, "paravisor's runtime data")
    configuration = document.get("vm-configuration")
    return HclReport(
        beneath=beneath,
        hardware=hardware,
        runtime_data=runtime_data,
        expected_report_data=HASHES[hash_kind](runtime_data).ljust(64, b"\0"),
        attestation_key=_attestation_key(document),
        secure_boot=isinstance(configuration, dict) and configuration.get("secure-boot") is True,
        user_data=document["user-data"] if isinstance(document.get("user-data"), str) else "",
    )


def _attestation_key(document: dict[str, Any]) -> rsa.RSAPublicKey:
    """The one key named HCLAkPub: RSA of at least 2,048 bits, as a JSON Web Key (RFC 7517)."""
    keys = document.get("keys")
    found = (
        [key for key in keys if isinstance(key, dict) and key.get("kid") == "HCLAkPub"]
        if isinstance(keys, list)
        else []
    )
    match found:
        case [{"kty": "RSA", "e": str(exponent), "n": str(modulus)}]:
            e, n = (int.from_bytes(_base64url(text), "big") for text in (exponent, modulus))
        case _:
            raise Malformed("the paravisor's runtime data does not have exactly one attestation key")
    if e != 65_537 or not 2048 <= n.bit_length() <= 4096:
        raise Malformed("the vTPM's attestation key is not RSA with 2,048 to 4,096 bits and exponent 65,537")
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError:
        raise Malformed("the vTPM's attestation key is not a valid RSA key") from None


def _base64url(text: str) -> bytes:
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise Malformed("a key in the paravisor's runtime data is not base64url") from None
