"""X.509 certificates and CRLs as evidence carries them: every fault of theirs becomes one of our errors.

`cryptography` decodes lazily and raises several kinds of errors while it does; `load_*` decode everything that is
used later, so that what they return no longer fails.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from superswarm.attestation.reasons import Fault, Reason
from superswarm.errors import Malformed, TooLarge
from superswarm.values import Digest

CERTIFICATE_BYTES = 32 * 1024  # one certificate; vendors' have under 3 kB
CRL_BYTES = 512 * 1024

IssuerKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey


@dataclass(frozen=True, slots=True)
class Certificate:
    """One parsed certificate. Proves nothing until its chain is verified."""

    raw: x509.Certificate = field(repr=False)
    key: object = field(repr=False)  # the subject's public key
    spki: Digest
    subject: str  # RFC 4514
    serial: int
    begins: int  # unix seconds
    ends: int
    extensions: dict[str, bytes] = field(repr=False)  # those that cryptography does not know, by dotted OID
    is_ca: bool
    signs_certificates: bool

    @property
    def name(self) -> str:
        """What messages call it: its common name, or all of its subject."""
        names = [part.removeprefix("CN=") for part in self.subject.split(",") if part.startswith("CN=")]
        name = (names[0] if names else self.subject)[:80]
        return "".join(letter if letter.isprintable() else "?" for letter in name)  # it may end on a terminal


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One parsed CRL. Proves nothing until its signature is verified."""

    raw: x509.CertificateRevocationList = field(repr=False)
    this_update: int  # unix seconds
    next_update: int | None
    serials: frozenset[int] = field(repr=False)


@contextmanager
def _decoding(what: str) -> Iterator[None]:
    """Turn whatever decoding raises into Malformed.

    `cryptography` warns of names that are too long, and of AMD's serial number 0, which is AMD's choice.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (
        ValueError,
        TypeError,
        OverflowError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ):
        raise Malformed(f"{what} is not a certificate or CRL that can be read") from None


@lru_cache(maxsize=64)  # a vendor's intermediate certificates come with every piece of evidence
def load_certificate(data: bytes, what: str = "a certificate") -> Certificate:
    """Parse one certificate, DER or PEM. Raises Malformed, or TooLarge over the cap."""
    if len(data) > CERTIFICATE_BYTES:
        raise TooLarge(f"{what} has at most {CERTIFICATE_BYTES} bytes")
    with _decoding(what):
        pem = data.lstrip()[:11] == b"-----BEGIN "
        raw = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
        return _certificate(raw)


def load_chain(data: bytes, what: str = "a certificate chain", *, most: int = 8) -> tuple[Certificate, ...]:
    """Parse concatenated PEM certificates, in the order in which they stand."""
    if len(data) > CERTIFICATE_BYTES * most:
        raise TooLarge(f"{what} has at most {CERTIFICATE_BYTES * most} bytes")
    with _decoding(what):
        chain = tuple(_certificate(raw) for raw in x509.load_pem_x509_certificates(data))
    if len(chain) > most:
        raise TooLarge(f"{what} has at most {most} certificates")
    return chain


def _certificate(raw: x509.Certificate) -> Certificate:
    is_ca = signs = False
    unknown = {}
    for extension in raw.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints):
            is_ca = value.ca
        elif isinstance(value, x509.KeyUsage):
            signs = value.key_cert_sign
        elif isinstance(value, x509.UnrecognizedExtension):
            unknown[extension.oid.dotted_string] = value.value
    key = raw.public_key()
    _whole_bytes(raw.public_bytes(Encoding.DER), raw.signature)
    return Certificate(
        raw=raw,
        key=key,
        spki=Digest.of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        subject=raw.subject.rfc4514_string(),
        serial=raw.serial_number,
        begins=_seconds(raw.not_valid_before_utc),
        ends=_seconds(raw.not_valid_after_utc),
        extensions=unknown,
        is_ca=is_ca,
        signs_certificates=signs,
    )


def load_crl(data: bytes, what: str = "a CRL") -> RevocationList:
    """Parse one CRL, DER or PEM. Raises Malformed, or TooLarge over the cap."""
    if len(data) > CRL_BYTES:
        raise TooLarge(f"{what} has at most {CRL_BYTES} bytes")
    with _decoding(what):
        pem = data.lstrip()[:11] == b"-----BEGIN "
        raw = x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
        following = raw.next_update_utc
        _ = raw.extensions, raw.issuer, raw.signature_algorithm_oid
        _whole_bytes(raw.public_bytes(Encoding.DER), raw.signature)
        return RevocationList(
            raw=raw,
            this_update=_seconds(raw.last_update_utc),
            next_update=None if following is None else _seconds(following),
            serials=frozenset(revoked.serial_number for revoked in raw),
        )


def _whole_bytes(der: bytes, signature: bytes) -> None:
    """The signature, a BIT STRING at the very end, claims no unused bits: that count is not signed, nor decoded."""
    if der[-len(signature) - 1 :] != b"\0" + signature:
        raise ValueError


def _seconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp())


def issued(child: Certificate, issuer: Certificate) -> bool:
    """Whether the issuer's key signed the child, and its name is the one that the child gives."""
    try:
        child.raw.verify_directly_issued_by(issuer.raw)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def signed_crl(crl: RevocationList, issuer: Certificate) -> bool:
    """Whether the issuer's key signed the CRL, and its name is the one that the CRL gives."""
    if not isinstance(issuer.key, IssuerKey) or crl.raw.issuer != issuer.raw.subject:
        return False
    try:
        return crl.raw.is_signature_valid(issuer.key)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False


def validity_faults(certificate: Certificate, at: int) -> Iterator[Fault]:
    """What is wrong with the certificate's validity period at this time."""
    if at < certificate.begins:
        yield Fault(
            Reason.CERTIFICATE_NOT_YET_VALID,
            f"the certificate of {certificate.name} begins {utc(certificate.begins)}, judged at {utc(at)}",
        )
    if at > certificate.ends:
        yield Fault(
            Reason.CERTIFICATE_EXPIRED,
            f"the certificate of {certificate.name} ended {utc(certificate.ends)}, judged at {utc(at)}",
        )


def utc(seconds: int) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
