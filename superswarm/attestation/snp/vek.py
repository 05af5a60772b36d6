"""Parse what AMD's key service says in an endorsement key's certificate (AMD 57230, VCEK and VLEK profiles).

Proves nothing: the chain is verified in `chain`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from superswarm.attestation.certificates import Certificate
from superswarm.attestation.snp.report import KeyKind, Product, Tcb
from superswarm.errors import Malformed

AMD = "1.3.6.1.4.1.3704.1."
PRODUCT_NAME = AMD + "2"
HARDWARE_ID = AMD + "4"
PROVIDER_ID = AMD + "5"
# The arcs under AMD.3, in the order of the TCB's bytes. Turin has an FMC first, and no arc 4.
TCB_ARCS = (1, 2, 4, 5, 6, 7, 3, 8)
TCB_ARCS_TURIN = (9, 1, 2, 3, 5, 6, 7, 8)
# KDS names a stepping after a hyphen (Milan-B0); Bergamo and Siena are served as Genoa's relatives.
NAMES = {
    "Milan": Product.MILAN,
    "Genoa": Product.GENOA,
    "Bergamo": Product.GENOA,
    "Siena": Product.GENOA,
    "Turin": Product.TURIN,
}


@dataclass(frozen=True, slots=True)
class EndorsementKey:
    """A VCEK or VLEK certificate. Proves nothing until its chain is verified."""

    certificate: Certificate = field(repr=False)
    kind: KeyKind
    product_name: str
    product: Product | None  # None: a name that is not known
    tcb: Tcb  # what the key was derived for
    hardware_id: bytes | None  # of a VCEK: 64 bytes, on Turin 8
    provider: str | None  # of a VLEK: the cloud that loaded it


def parse_vek(certificate: Certificate) -> EndorsementKey:
    """Read AMD's extensions. Raises Malformed where one lacks, or both kinds are mixed."""
    extensions = certificate.extensions
    name = _text(extensions, PRODUCT_NAME)
    product = NAMES.get(name.partition("-")[0])
    hardware_id, provider = extensions.get(HARDWARE_ID), extensions.get(PROVIDER_ID)
    if (hardware_id is None) == (provider is None):
        raise Malformed("an SNP endorsement key names either its chip (VCEK) or its provider (VLEK)")
    turin = f"{AMD}3.9" in extensions
    if product is not None and turin != (product is Product.TURIN):
        raise Malformed(f"the TCB of an endorsement key for {name[:20]} has another product's layout")
    return EndorsementKey(
        certificate=certificate,
        kind=KeyKind.VCEK if provider is None else KeyKind.VLEK,
        product_name=name,
        product=product,
        tcb=Tcb(bytes(_byte(extensions, f"{AMD}3.{arc}") for arc in (TCB_ARCS_TURIN if turin else TCB_ARCS))),
        hardware_id=None if hardware_id is None else _hardware_id(hardware_id, 8 if turin else 64),
        provider=None if provider is None else _text(extensions, PROVIDER_ID),
    )


def _byte(extensions: dict[str, bytes], oid: str) -> int:
    """A DER INTEGER from 0 to 255, in its shortest form."""
    match tuple(extensions.get(oid, b"")):
        case (0x02, 0x01, value) if value < 0x80:
            return value
        case (0x02, 0x02, 0x00, value) if value >= 0x80:
            return value
        case _:
            raise Malformed(f"an SNP endorsement key lacks a valid extension {oid}")


def _text(extensions: dict[str, bytes], oid: str) -> str:
    """A DER IA5String of printable ASCII."""
    data = extensions.get(oid, b"")
    if len(data) < 3 or data[0] != 0x16 or data[1] != len(data) - 2 or data[1] > 127:
        raise Malformed(f"an SNP endorsement key lacks a valid extension {oid}")
    if not all(0x20 <= byte < 0x7F for byte in data[2:]):
        raise Malformed(f"the extension {oid} of an SNP endorsement key is not printable text")
    return data[2:].decode("ascii")


def _hardware_id(data: bytes, size: int) -> bytes:
    """The raw bytes, as KDS writes them, or the same in an OCTET STRING."""
    if len(data) == size + 2 and data[:2] == bytes((0x04, size)):
        data = data[2:]
    if len(data) != size:
        raise Malformed(f"the hardware id of an SNP endorsement key has {size} bytes, not {len(data)}")
    return data
