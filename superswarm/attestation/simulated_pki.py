"""INSECURE: certificates, CRLs and TCB documents of a simulated vendor, in the forms that Intel publishes.

Forms: Intel SGX PCK Certificate and CRL Profile Specification; Intel PCS API version 4 (TCB info, QE identity).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from superswarm.attestation import der

ORGANISATION = "INSECURE simulated vendor of superswarm"
SGX_EXTENSION = "1.2.840.113741.1.13.1"
FMSPC = b"INSECU"  # the platform's model
PCE_ID = bytes(2)
QE_SIGNER = hashlib.sha256(b"superswarm: INSECURE simulated quoting enclave").digest()
QE_ATTRIBUTES = bytes.fromhex("11") + bytes(15)  # initialised, may use the provisioning key; not debug
QE_PRODUCT, QE_SVN = 2, 1
BACKDATE = timedelta(hours=1)  # for verifiers whose clock is behind


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def sign_raw(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """ECDSA P-256 with SHA-256 as quotes carry it: r and s, 32 bytes each."""
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key as quotes carry it: x and y, 32 bytes each."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def moment(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


@dataclass(frozen=True, slots=True)
class Issuer:
    """A name and a key that sign certificates and CRLs."""

    name: str
    key: ec.EllipticCurvePrivateKey

    def certify(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        *,
        at: int,
        days: int,
        authority: bool,
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> x509.Certificate:
        """A certificate for `key`, valid for `days` from just before `at`."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.name))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment(at) - BACKDATE)
            .not_valid_after(moment(at) + timedelta(days=days))
            .add_extension(x509.BasicConstraints(authority, 1 if authority else None), critical=True)
            .add_extension(_usage(authority=authority), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(self._identifier(), critical=False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def revoke(self, revoked: Iterable[x509.Certificate], *, at: int, days: int) -> bytes:
        """A CRL in DER, valid for `days` from just before `at`."""
        issued = moment(at) - BACKDATE
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(self.name))
            .last_update(issued)
            .next_update(moment(at) + timedelta(days=days))
            .add_extension(x509.CRLNumber(at), critical=False)
            .add_extension(self._identifier(), critical=False)
        )
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder(certificate.serial_number, issued)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
        ]
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def sgx_extension(
    ppid: bytes,
    instance: bytes,
    *,
    dynamic_platform: bool | None = False,
    cached_keys: bool | None = False,
    smt: bool | None = False,
) -> x509.UnrecognizedExtension:
    """Intel's SGX extension of a PCK certificate: which platform this is, and its TCB (all SVNs zero).

    Intel SGX PCK Certificate and CRL Profile Specification, section 1.3.5; `ppid` and `instance` have 16 bytes each.
    What is None is not said.
    """

    def item(arc: str, value: bytes) -> bytes:
        return der.sequence(der.oid(f"{SGX_EXTENSION}.{arc}"), value)

    components = [item(f"2.{n}", der.integer(0)) for n in range(1, 17)]
    tcb = der.sequence(*components, item("2.17", der.integer(0)), item("2.18", der.octets(bytes(16))))
    options = (("7.1", dynamic_platform), ("7.2", cached_keys), ("7.3", smt))
    stated = [item(arc, der.boolean(value=value)) for arc, value in options if value is not None]
    content = der.sequence(
        item("1", der.octets(ppid)),
        item("2", tcb),
        item("3", der.octets(PCE_ID)),
        item("4", der.octets(FMSPC)),
        item("5", der.enumerated(1)),  # scalable
        item("6", der.octets(instance)),
        item("7", der.sequence(*stated)),
    )
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(SGX_EXTENSION), content)


def tcb_info(
    *,
    at: int,
    days: int,
    status: str = "UpToDate",
    advisories: Sequence[str] = (),
    sgx_svn: int = 0,
    tdx_svn: int = 0,
) -> str:
    """TCB info (version 3): one level, which needs these SVNs of SGX components and of TDX microcode."""
    tdx = [{"svn": svn} for svn in (0, 0, tdx_svn, *[0] * 13)]  # TDX module, its version, late microcode
    tcb = {"sgxtcbcomponents": [{"svn": sgx_svn}] * 16, "pcesvn": 0, "tdxtcbcomponents": tdx}
    level = {"tcb": tcb, **_dated(at, status, advisories)}
    return _document(
        at,
        days,
        id="TDX",
        version=3,
        fmspc=FMSPC.hex().upper(),
        pceId=PCE_ID.hex(),
        tcbType=0,
        tcbEvaluationDataNumber=1,
        tdxModule={"mrsigner": "0" * 96, "attributes": "0" * 16, "attributesMask": "F" * 16},
        tdxModuleIdentities=[],
        tcbLevels=[level],
    )


def qe_identity(*, at: int, days: int, status: str = "UpToDate", advisories: Sequence[str] = ()) -> str:
    """QE identity (version 2) of the simulated quoting enclave."""
    return _document(
        at,
        days,
        id="TD_QE",
        version=2,
        tcbEvaluationDataNumber=1,
        miscselect="0" * 8,
        miscselectMask="F" * 8,
        attributes=QE_ATTRIBUTES.hex().upper(),
        attributesMask="FB" + "F" * 14 + "0" * 16,
        mrsigner=QE_SIGNER.hex().upper(),
        isvprodid=QE_PRODUCT,
        tcbLevels=[{"tcb": {"isvsvn": QE_SVN}, **_dated(at, status, advisories)}],
    )


def _document(at: int, days: int, **fields: object) -> str:
    window = {"issueDate": _iso(moment(at) - BACKDATE), "nextUpdate": _iso(moment(at) + timedelta(days=days))}
    return json.dumps({**fields, **window}, separators=(",", ":"))


def _dated(at: int, status: str, advisories: Sequence[str]) -> dict[str, object]:
    return {"tcbDate": _iso(moment(at)), "tcbStatus": status, "advisoryIDs": list(advisories)}


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
