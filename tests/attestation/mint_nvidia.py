"""A vendor of GPUs for tests: its own device and reference roots, SPDM reports, and signed reference manifests.

Everything has the structure that NVIDIA's devices and documents have; only the roots differ, so it verifies through
the same code under `Vendor.roots` and nowhere else.
"""

from __future__ import annotations

import datetime as dt
import struct
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml import methods
from signxml.algorithms import CanonicalizationMethod
from signxml.signer import XMLSigner

from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.attestation.nvidia.identity import (
    COMPOSITE_DEVICE_ID,
    DEVICE_INFO,
    SHA384,
    TCB_INFO,
    CompositeDeviceId,
    DeviceKey,
    Fwid,
    KeyAlgorithm,
    TcbInfo,
)
from superswarm.attestation.nvidia.roots import Roots
from superswarm.attestation.nvidia.spdm import OpaqueType
from superswarm.values import Digest

NOON = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
AT = int(NOON.timestamp())
EC_PUBLIC_KEY = x509.ObjectIdentifier("1.2.840.10045.2.1")
P384 = x509.ObjectIdentifier("1.3.132.0.34")
FWID = bytes(range(48))
DRIVER, VBIOS = "580.65.06", "96.00.74.00.20"


def digest_of(index: int) -> bytes:
    """The right value of a measurement (SPDM index) in everything that is minted here."""
    hasher = hashes.Hash(hashes.SHA384())
    hasher.update(b"measurement %d" % index)
    return hasher.finalize()


@dataclass(frozen=True)
class Authority:
    """A key with its certificate, and the certificates above it."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]


def issue(
    name: str,
    issuer: Authority | None,
    *,
    ca: bool = True,
    key: ec.EllipticCurvePrivateKey | None = None,
    not_before: dt.datetime = NOON - dt.timedelta(days=365),
    not_after: dt.datetime = NOON + dt.timedelta(days=365),
    path_length: int | None = None,
    digital_signature: bool = False,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    digest: hashes.HashAlgorithm | None = None,
    curve: ec.EllipticCurve | None = None,
) -> Authority:
    """Issue a certificate; a root where there is no issuer."""
    key = key or ec.generate_private_key(curve or ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(
        digital_signature=digital_signature or not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(usage, critical=True)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    signer = issuer.key if issuer else key
    certificate = builder.sign(signer, digest or hashes.SHA384())
    return Authority(key, (certificate, *(issuer.chain if issuer else ())))


def composite_device_id(issuer: Authority, fwid: bytes = FWID) -> x509.UnrecognizedExtension:
    point = issuer.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    device = DeviceKey(algorithm=KeyAlgorithm(algorithm=EC_PUBLIC_KEY, curve=P384), point=asn1.BitString(point, 0))
    composite = CompositeDeviceId(version=1, device=device, fwid=Fwid(algorithm=SHA384, digest=fwid))
    return x509.UnrecognizedExtension(COMPOSITE_DEVICE_ID, asn1.encode_der(composite))


def tcb_info(fwid: bytes = FWID, flags: bytes = b"\x80\0\0\x01") -> x509.UnrecognizedExtension:
    info = TcbInfo(
        vendor="NVIDIA",
        model="GB100 A01 GSP",
        version="01",
        svn=1,
        layer=0,
        index=0,
        fwids=[Fwid(algorithm=SHA384, digest=fwid), Fwid(algorithm=SHA384, digest=bytes(48))],
        flags=asn1.BitString(flags, 0),
        vendor_info=b"\xc0",
        kind=b"\0",
    )
    return x509.UnrecognizedExtension(TCB_INFO, asn1.encode_der(info))


def device_names(product: str, serial: str) -> x509.SubjectAlternativeName:
    text = asn1.encode_der(f"NVIDIA:{product}:{serial}")
    return x509.SubjectAlternativeName([x509.OtherName(DEVICE_INFO, text)])


def spki_digest(certificate: x509.Certificate) -> Digest:
    key = certificate.public_key()
    return Digest.of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def pem(chain: tuple[x509.Certificate, ...]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


def build_report(
    key: ec.EllipticCurvePrivateKey,
    nonce: bytes,
    opaque: dict[int, bytes],
    measurements: dict[int, bytes],
    *,
    kind: int = 1,
) -> bytes:
    """An SPDM request and its response, signed."""
    record = b"".join(
        struct.pack("<BBHBH", index, 1, len(value) + 3, kind, len(value)) + value
        for index, value in measurements.items()
    )
    fields = b"".join(struct.pack("<HH", number, len(value)) + value for number, value in opaque.items())
    signed = (
        bytes((0x11, 0xE0, 0x01, 0xFF))
        + nonce
        + b"\0"
        + bytes((0x11, 0x60, 0, 0, len(measurements)))
        + len(record).to_bytes(3, "little")
        + record
        + bytes(range(32))
        + struct.pack("<H", len(fields))
        + fields
    )
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
    return signed + r.to_bytes(48, "big") + s.to_bytes(48, "big")


def gpu_opaque(
    driver: str = DRIVER, vbios: str = VBIOS, *, nvdec0: int = 0xAA, fwid: bytes | None = FWID
) -> dict[int, bytes]:
    parts = bytes.fromhex(vbios.replace(".", ""))
    fields = {
        OpaqueType.VBIOS_VERSION: parts[3::-1] + parts[4:] + bytes(3),
        OpaqueType.PROJECT: b"G520\0",
        OpaqueType.PROJECT_SKU: b"0200\0",
        OpaqueType.CHIP_SKU: b"885\0\0\0\0\0\0",
        OpaqueType.DRIVER_VERSION: driver.encode() + b"\0",
        OpaqueType.NVDEC0_STATUS: bytes((nvdec0,)),
        OpaqueType.PROTECTED_PCIE_STATUS: b"\x55",
        OpaqueType.OPAQUE_DATA_VERSION: b"\1\0",
        OpaqueType.FEATURE_FLAG: b"\1\0",
    }
    if fwid is not None:
        fields[OpaqueType.FWID] = fwid
    return {int(kind): value for kind, value in fields.items()}


def switch_opaque(vbios: str = VBIOS, pdi: bytes = b"switch-1") -> dict[int, bytes]:
    return {int(OpaqueType.VBIOS_VERSION): vbios.encode(), int(OpaqueType.PDI): pdi}


@dataclass(frozen=True)
class Device:
    """A minted GPU or switch: it signs any nonce."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]
    opaque: dict[int, bytes]
    measurements: dict[int, bytes]

    def attest(self, nonce: bytes) -> bytes:
        return build_report(self.key, nonce, self.opaque, self.measurements)


@dataclass
class Vendor:
    """Roots and intermediates of a vendor that only tests trust."""

    device_root: Authority = field(default_factory=lambda: issue("Test Device Identity CA", None))
    reference_root: Authority = field(default_factory=lambda: issue("Test Reference Root CA", None))

    def __post_init__(self) -> None:
        self.identity = issue("Test Identity", self.device_root)
        self.device_ca = issue("Test Provisioner", self.identity)
        self.reference_ca = issue("Test Reference L3", self.reference_root, path_length=0)
        self.signer = issue("Test RIM signer", self.reference_ca, ca=False)

    @property
    def roots(self) -> Roots:
        return Roots(
            device=frozenset({spki_digest(self.device_root.certificate)}),
            reference=frozenset({spki_digest(self.reference_root.certificate)}),
        )

    def device(
        self,
        product: str = "GH100",
        serial: str = "48B02D0000000001",
        *,
        opaque: dict[int, bytes] | None = None,
        measurements: dict[int, bytes] | None = None,
        dice: x509.UnrecognizedExtension | None = None,
        chip: Authority | None = None,
    ) -> Device:
        chip = chip or issue(f"{product} A01 GSP BROM", self.device_ca)
        if dice is None:
            dice = tcb_info() if product.startswith("GB") else composite_device_id(chip)
        extensions = ((device_names(product, serial), False), (dice, False))
        leaf = issue(f"{product} A01 GSP FMC LF", chip, ca=False, extensions=extensions)
        if opaque is None:
            opaque = switch_opaque() if product.startswith("LS") else gpu_opaque()
        if measurements is None:
            measurements = {index: digest_of(index) for index in range(1, 65)}
        return Device(leaf.key, leaf.chain, opaque, measurements)

    def manifest(
        self,
        version: str,
        indices: range | list[int],
        *,
        product: str = "GH100",
        edition: str = "GPU",
        alternatives: int = 1,
        signer: Authority | None = None,
        digest: str = "sha384",
    ) -> bytes:
        """A signed reference manifest whose active measurements (counted from 0) are right."""
        root = etree.fromstring(unsigned_manifest(version, indices, product, edition, alternatives))
        return self.sign(root, signer=signer, digest=digest)

    def sign(self, root: etree._Element, *, signer: Authority | None = None, digest: str = "sha384") -> bytes:
        signer = signer or self.signer
        xml_signer = XMLSigner(
            method=methods.enveloped,
            signature_algorithm=f"ecdsa-{digest}",
            digest_algorithm=digest,
            c14n_algorithm=CanonicalizationMethod.CANONICAL_XML_1_1,
        )
        chain = [certificate.public_bytes(Encoding.PEM).decode() for certificate in signer.chain]
        return etree.tostring(xml_signer.sign(root, key=signer.key, cert=chain))

    def evidence(self, device: Device, nonce: bytes, **others: tuple[bytes, ...]) -> DeviceEvidence:
        """A GPU's evidence with both manifests, or with those given."""
        others.setdefault("manifests", (self.manifest(DRIVER, range(20, 41)), self.manifest(VBIOS, range(13))))
        return DeviceEvidence(report=device.attest(nonce), chain=pem(device.chain), **others)

    def crl(
        self,
        issuer: Authority,
        revoked: tuple[x509.Certificate, ...] = (),
        *,
        this_update: dt.datetime = NOON - dt.timedelta(days=1),
        next_update: dt.datetime = NOON + dt.timedelta(days=6),
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.certificate.subject)
            .last_update(this_update)
            .next_update(next_update)
        )
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder(certificate.serial_number, this_update)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(key or issuer.key, hashes.SHA384()).public_bytes(Encoding.DER)

    def ocsp(
        self,
        certificate: x509.Certificate,
        issuer: Authority,
        *,
        status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
        responder: Authority | None = None,
        this_update: dt.datetime = NOON - dt.timedelta(hours=1),
        next_update: dt.datetime | None = NOON + dt.timedelta(hours=1),
    ) -> bytes:
        responder = responder or issuer
        revoked = status is ocsp.OCSPCertStatus.REVOKED
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=certificate,
                issuer=issuer.certificate,
                algorithm=hashes.SHA256(),
                cert_status=status,
                this_update=this_update,
                next_update=next_update,
                revocation_time=this_update if revoked else None,
                revocation_reason=None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, responder.certificate)
        )
        if responder is not issuer:
            builder = builder.certificates([responder.certificate])
        return builder.sign(responder.key, hashes.SHA384()).public_bytes(Encoding.DER)


def unsigned_manifest(
    version: str, indices: range | list[int], product: str = "GH100", edition: str = "GPU", alternatives: int = 1
) -> bytes:
    """The SWID tag that a signature is put into."""
    resources = []
    for index in range(64):
        active = index in indices
        values = [bytes([i]) * 48 for i in range(1, alternatives)] + [digest_of(index + 1) if active else bytes(48)]
        hashes_ = " ".join(f'ns2:Hash{i}="{value.hex()}"' for i, value in enumerate(values))
        resources.append(
            f'<ns0:Resource type="Measurement" index="{index}" active="{active}" alternatives="{len(values)}"'
            f' {hashes_} name="Measurement_{index}" size="48"/>'
        )
    swid = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
    return (
        f'<SoftwareIdentity xmlns="{swid}" xmlns:ns0="{swid}" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384"'
        f' corpus="false" name="{product}" patch="false" supplemental="false" tagId="test" version="1.0">'
        f'<ns0:Meta colloquialVersion="{version}" edition="{edition}" product="{product}"/>'
        f"<ns0:Payload>{''.join(resources)}</ns0:Payload></SoftwareIdentity>"
    ).encode()
