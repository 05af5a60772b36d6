"""Certificate chains of NVIDIA's devices and reference manifests: parsing, and the path to a pinned root.

Both kinds are P-384 keys under ecdsa-with-SHA384 from end to end (RFC 5280 names and constraints). Roots are pinned
by the SHA-256 of their public key; the certificates travel with the evidence. No host clock: `at` is an argument.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from superswarm.attestation.reasons import Fault, Reason, rejected
from superswarm.errors import Malformed, TooLarge
from superswarm.values import Digest

CHAIN_BYTES = 32 * 1024  # PEM; a device's chain of five has 5 KiB
CERTIFICATES = 8  # in one chain, root included

PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
UNDERSTOOD = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE})
PARSE_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.UnsupportedGeneralNameType)
"""What `cryptography` raises for certificates that are none; DuplicateExtension is handled where it arises."""

T = TypeVar("T", bound=x509.ExtensionType)
Chain: TypeAlias = tuple[x509.Certificate, ...]
"""Leaf first, self-signed root last."""


def parse_pem_chain(data: bytes) -> Chain:
    """Read PEM certificates, leaf first, with nothing but white space around them. Proves nothing."""
    if len(data) > CHAIN_BYTES:
        raise TooLarge(f"a certificate chain has at most {CHAIN_BYTES} bytes")
    bodies = PEM.findall(data)
    if PEM.sub(b"", data).strip(b" \t\r\n\0"):
        raise Malformed("a certificate chain has something other than PEM certificates in it")
    return parse_chain([decode_base64(body) for body in bodies])


def parse_chain(ders: Sequence[bytes]) -> Chain:
    """Read DER certificates, leaf first. Proves nothing."""
    if not 2 <= len(ders) <= CERTIFICATES:
        raise Malformed(f"a certificate chain has 2 to {CERTIFICATES} certificates, not {len(ders)}")
    return tuple(_parse(der) for der in ders)


def decode_base64(body: bytes) -> bytes:
    """Base64 in its one canonical form, white space apart: no stray characters, no loose bits in the padding."""
    compact = b"".join(body.split())
    try:
        raw = base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("not base64") from None
    if base64.b64encode(raw) != compact:
        raise Malformed("not canonical base64")
    return raw


def _parse(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = (certificate.extensions, certificate.public_key(), certificate.subject, certificate.issuer)
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.signature_algorithm_oid)
    except (*PARSE_ERRORS, x509.DuplicateExtension):
        raise Malformed("a certificate does not parse") from None
    return certificate


def check_path(chain: Chain, roots: frozenset[Digest]) -> Digest:
    """Check every signature and constraint from the leaf to a pinned root; gives the root's digest.

    Says nothing about time (`check_validity`) or revocation. Raises EvidenceRejected.
    """
    # (1) The root's key is pinned. Everything else about the root is signed with it, in (4).
    root = spki_digest(chain[-1])
    if root not in roots:
        raise rejected(Fault(Reason.ROOT_UNTRUSTED, "the certificate chain ends in a root that is not pinned"))
    # (2) Keys and signatures are of the one kind that NVIDIA uses; no critical extension is ignored.
    for certificate in chain:
        _check_kind(certificate)
    # (3) The leaf signs data and no certificates; all others are authorities whose path lengths suffice.
    _check_leaf(chain[0])
    for below, authority in enumerate(chain[1:]):
        _check_authority(authority, below)
    # (4) Each is issued by the next, by name and signature; the root by itself.
    for certificate, issuer in zip(chain, (*chain[1:], chain[-1]), strict=True):
        if not is_issued_by(certificate, issuer):
            raise _broken("a certificate is not signed by the next one in its chain")
    return root


def check_validity(chain: Chain, at: int) -> None:
    """Every certificate is valid at `at` (unix seconds). Raises EvidenceRejected."""
    not_before, not_after = window(chain)
    if at < not_before:
        raise rejected(
            Fault(Reason.CERTIFICATE_NOT_YET_VALID, f"a certificate is valid only from {date(not_before)}")
        )
    if at > not_after:
        raise rejected(Fault(Reason.CERTIFICATE_EXPIRED, f"a certificate was valid until {date(not_after)}"))


def window(chain: Chain) -> tuple[int, int]:
    """First and last unix second at which all certificates are valid."""
    return (
        max(int(certificate.not_valid_before_utc.timestamp()) for certificate in chain),
        min(int(certificate.not_valid_after_utc.timestamp()) for certificate in chain),
    )


def date(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def spki_digest(certificate: x509.Certificate) -> Digest:
    return Digest.of(certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def point(certificate: x509.Certificate) -> bytes:
    """The public key as an uncompressed point, 97 bytes."""
    return p384_key(certificate).public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def p384_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _broken("a certificate's key is not on P-384")
    return key


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *PARSE_ERRORS):
        return False
    return True


def _check_kind(certificate: x509.Certificate) -> None:
    p384_key(certificate)
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        raise rejected(Fault(Reason.SIGNATURE_ALGORITHM, "a certificate is not signed with ECDSA and SHA-384"))
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in UNDERSTOOD:
            raise _broken("a certificate has a critical extension that is not understood")


def _check_leaf(leaf: x509.Certificate) -> None:
    usage = extension(leaf, x509.KeyUsage)
    constraints = extension(leaf, x509.BasicConstraints)
    if usage is None or not usage.digital_signature or (constraints is not None and constraints.ca):
        raise _broken("the chain's first certificate may not sign data, or is an authority's")


def _check_authority(authority: x509.Certificate, below: int) -> None:
    usage = extension(authority, x509.KeyUsage)
    constraints = extension(authority, x509.BasicConstraints)
    if usage is None or not usage.key_cert_sign or constraints is None or not constraints.ca:
        raise _broken("a certificate of the chain belongs to no authority")
    if constraints.path_length is not None and below > constraints.path_length:
        raise _broken("the chain is longer than an authority in it allows")


def extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    """One extension's value; None where the certificate has none."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _broken(message: str) -> Exception:
    return rejected(Fault(Reason.CHAIN_INVALID, message))
