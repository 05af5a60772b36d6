"""Mint SEV-SNP evidence under development roots that look like AMD's: RSA-PSS authorities, P-384 endorsement keys."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from superswarm.attestation.snp.report import KeyKind, Product
from superswarm.attestation.snp.vek import AMD, TCB_ARCS, TCB_ARCS_TURIN
from superswarm.values import Digest

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = int(NOW.timestamp())
PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
CPUID = {Product.MILAN: (0x19, 0x01, 1), Product.GENOA: (0x19, 0x11, 1), Product.TURIN: (0x1A, 0x02, 1)}
TCB = {
    Product.MILAN: bytes.fromhex("04000000000018db"),
    Product.GENOA: bytes.fromhex("0a00000000001754"),
    Product.TURIN: bytes.fromhex("0101010400000051"),
}
CHIP = bytes(range(1, 65))


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Development, not AMD"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _integer(value: int) -> bytes:
    return bytes((2, 1, value)) if value < 0x80 else bytes((2, 2, 0, value))


@dataclass
class Authority:
    """A development ARK with its ASK or ASVK."""

    product: Product = Product.GENOA
    kind: KeyKind = KeyKind.VCEK
    begins: datetime = NOW - timedelta(days=300)
    ends: datetime = NOW + timedelta(days=3000)
    root_key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    signer_key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    signer_is_ca: bool = True
    signer_serial: int = 0x20001
    signer_kind: KeyKind | None = None  # where the signer is named for another kind than it signs

    def __post_init__(self) -> None:
        title = self.product.capitalize()
        between = "VLEK-" if (self.kind if self.signer_kind is None else self.signer_kind) is KeyKind.VLEK else ""
        self.root_name, self.signer_name = _name(f"ARK-{title}"), _name(f"SEV-{between}{title}")
        self.root = self._certificate(self.root_name, self.root_key.public_key(), self.root_name, self.root_key)
        self.signer = self._certificate(
            self.signer_name, self.signer_key.public_key(), self.root_name, self.root_key, ca=self.signer_is_ca
        )

    def _certificate(self, subject, key, issuer, issuer_key, *, ca: bool = True) -> x509.Certificate:
        serial = 0x10001 if subject == issuer else self.signer_serial
        return (
            x509.CertificateBuilder(issuer, subject, key, serial, self.begins, self.ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(*[False] * 5, ca, ca, *[False] * 2), critical=True)
            .sign(issuer_key, hashes.SHA384(), rsa_padding=PSS)
        )

    @property
    def spki(self) -> Digest:
        return Digest.of(self.root_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    @property
    def roots(self) -> dict[Digest, Product]:
        return {self.spki: self.product}

    def crl(self, *revoked: int, key=None, begins: datetime | None = None, days: int = 365) -> bytes:
        this_update = begins or NOW - timedelta(days=30)
        builder = x509.CertificateRevocationListBuilder(
            self.root_name, this_update, this_update + timedelta(days=days)
        )
        for serial in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder(serial, this_update - timedelta(days=1)).build()
            )
        return builder.sign(key or self.root_key, hashes.SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)

    def endorse(
        self,
        *,
        tcb: bytes | None = None,
        chip: bytes = CHIP,
        name: str | None = None,
        provider: str = "CN=cc-test.example",
        begins: datetime | None = None,
        ends: datetime | None = None,
        drop: tuple[str, ...] = (),
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
        """Make an endorsement key and its certificate, as AMD's key service would."""
        key = key or ec.generate_private_key(ec.SECP384R1())
        turin = self.product is Product.TURIN
        arcs = TCB_ARCS_TURIN if turin else TCB_ARCS
        text = (name or self.product.capitalize()).encode()
        extensions = {AMD + "1": _integer(1), AMD + "2": bytes((0x16, len(text))) + text}
        extensions |= {
            f"{AMD}3.{arc}": _integer(value) for arc, value in zip(arcs, tcb or TCB[self.product], strict=True)
        }
        if self.kind is KeyKind.VCEK:
            extensions[AMD + "4"] = chip[:8] if turin else chip
        else:
            extensions[AMD + "5"] = bytes((0x16, len(provider))) + provider.encode()
        builder = x509.CertificateBuilder(
            self.signer_name,
            _name(f"SEV-{self.kind.name}"),
            key.public_key(),
            1,
            begins or self.begins,
            ends or self.ends,
        )
        for oid, value in extensions.items():
            if oid not in drop:
                builder = builder.add_extension(
                    x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False
                )
        return key, _der(builder.sign(self.signer_key, hashes.SHA384(), rsa_padding=PSS))

    def endorsements(self, leaf: bytes, crl: bytes | None = None) -> dict[str, bytes]:
        files = {"leaf.der": leaf, "ask.der": _der(self.signer), "ark.der": _der(self.root)}
        return files if crl is None else {**files, "ark.crl.der": crl}


def report(product: Product = Product.GENOA, **changes: object) -> bytearray:
    """An unsigned report that the strictest policy accepts, with fields changed by name."""
    values: dict[str, object] = {
        "version": 5,
        "policy": 1 << 17 | 1 << 20 | 1 << 24 | 55 << 0 | 1 << 8,
        "vmpl": 0,
        "algorithm": 1,
        "platform": 0b110111 ^ 1,
        "key_info": 0,
        "report_data": bytes(64),
        "measurement": b"\x11" * 48,
        "host_data": bytes(32),
        "id_key": bytes(48),
        "author_key": bytes(48),
        "report_id_ma": b"\xff" * 32,
        "current": TCB[product],
        "reported": TCB[product],
        "committed": TCB[product],
        "launch": TCB[product],
        "cpuid": CPUID[product],
        "chip": CHIP[:8] + bytes(56) if product is Product.TURIN else CHIP,
        "firmware": (1, 55, 40),
        "committed_firmware": (1, 55, 40),
        "mitigations": (0x3F, 0x3F),
    }
    unknown = changes.keys() - values.keys()
    assert not unknown, unknown
    values |= changes
    data = bytearray(0x4A0)
    struct.pack_into("<IIQ", data, 0, values["version"], 0, values["policy"])
    struct.pack_into("<II", data, 0x30, values["vmpl"], values["algorithm"])
    data[0x38:0x40] = values["current"]
    struct.pack_into("<QI", data, 0x40, values["platform"], values["key_info"])
    for begin, name in (
        (0x50, "report_data"),
        (0x90, "measurement"),
        (0xC0, "host_data"),
        (0xE0, "id_key"),
        (0x110, "author_key"),
        (0x160, "report_id_ma"),
        (0x180, "reported"),
        (0x1A0, "chip"),
        (0x1E0, "committed"),
        (0x1F0, "launch"),
    ):
        data[begin : begin + len(values[name])] = values[name]
    if values["version"] >= 3:
        data[0x188:0x18B] = bytes(values["cpuid"])
    data[0x1E8:0x1EB] = bytes(reversed(values["firmware"]))
    data[0x1EC:0x1EF] = bytes(reversed(values["committed_firmware"]))
    if values["version"] >= 5:
        struct.pack_into("<QQ", data, 0x1F8, *values["mitigations"])
    return data


def sign(data: bytearray, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Sign a report as the firmware does: r and s little-endian, 72 bytes each."""
    r, s = utils.decode_dss_signature(key.sign(bytes(data[:0x2A0]), ec.ECDSA(hashes.SHA384())))
    data[0x2A0:0x2E8] = r.to_bytes(72, "little")
    data[0x2E8:0x330] = s.to_bytes(72, "little")
    return bytes(data)
