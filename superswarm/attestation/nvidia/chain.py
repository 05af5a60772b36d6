"""Certificate chains of NVIDIA's devices and reference manifests: parsing, and the path to a pinned root.

Both kinds are P-384 keys under ecdsa-with-SHA384 from end to end (RFC 5280 names and constraints). Roots are pinned
by the SHA-256 of their public key; the certificates travel with the evidence. No host clock: `at` is an argument.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import TypeAlias, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from superswarm.attestation.certificates import Certificate, issued, load_certificate, validity_faults
from superswarm.attestation.reasons import Fault, Reason, refuse, rejected
from superswarm.errors import EvidenceRejected, Malformed, TooLarge
from superswarm.values import Digest

CHAIN_BYTES = 32 * 1024  # PEM; a device's chain of five has 5 KiB
CERTIFICATES = 8  # in one chain, root included

PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
UNDERSTOOD = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE})
ECDSA_WITH_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")  # the AlgorithmIdentifier, DER

T = TypeVar("T", bound=x509.ExtensionType)
Chain: TypeAlias = tuple[Certificate, ...]
"""Leaf first, self-signed root last."""


def parse_pem_chain(data: bytes) -> Chain:
    """Read PEM certificates, leaf first, with nothing but white space around them. Proves nothing."""
    if len(data) > CHAIN_BYTES:
        raise TooLarge(f"a certificate chain has at most {CHAIN_BYTES} bytes")
    if PEM.sub(b"", data).strip(b" \t\r\n\0"):
        raise Malformed("a certificate chain has something other than PEM certificates in it")
    return parse_chain([decode_base64(body) for body in PEM.findall(data)])


def parse_chain(ders: Sequence[bytes]) -> Chain:
    """Read DER certificates, leaf first. Proves nothing."""
    if not 2 <= len(ders) <= CERTIFICATES:
        raise Malformed(f"a certificate chain has 2 to {CERTIFICATES} certificates, not {len(ders)}")
    if not all(der.startswith(b"\x30") for der in ders):
        raise Malformed("a certificate chain has something other than DER in it")
    return tuple(load_certificate(der) for der in ders)


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


def check_path(chain: Chain, roots: frozenset[Digest]) -> Digest:
    """Check every signature and constraint from the leaf to a pinned root; gives the root's digest.

    Says nothing about time (`check_validity`) or revocation. Raises EvidenceRejected.
    """
    # (1) The root's key is pinned. Everything else about the root is signed with it, in (4).
    root = chain[-1].spki
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
        if not issued(certificate, issuer):
            raise _broken(f"the certificate of {certificate.name} is not signed by the next one in its chain")
    return root


def check_validity(chain: Chain, at: int) -> None:
    """Every certificate is valid at `at` (unix seconds). Raises EvidenceRejected."""
    refuse(fault for certificate in chain for fault in validity_faults(certificate, at))


def not_after(chain: Chain) -> int:
    """The last unix second at which all certificates are valid."""
    return min(certificate.ends for certificate in chain)


def p384_key(certificate: Certificate) -> ec.EllipticCurvePublicKey:
    if not isinstance(certificate.key, ec.EllipticCurvePublicKey) or certificate.key.curve.name != "secp384r1":
        raise _broken(f"the key of {certificate.name} is not on P-384")
    return certificate.key


def point(certificate: Certificate) -> bytes:
    """The public key as an uncompressed point, 97 bytes."""
    return p384_key(certificate).public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def extension(certificate: Certificate, kind: type[T]) -> T | None:
    """One extension's value; None where the certificate has none."""
    try:
        return certificate.raw.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _check_kind(certificate: Certificate) -> None:
    p384_key(certificate)
    if certificate.raw.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        message = f"the certificate of {certificate.name} is not signed with ECDSA and SHA-384"
        raise rejected(Fault(Reason.SIGNATURE_ALGORITHM, message))
    signature = certificate.raw.signature
    ending = b"".join((ECDSA_WITH_SHA384, bytes((0x03, len(signature) + 1, 0)), signature))
    if len(signature) > 126 or not certificate.raw.public_bytes(Encoding.DER).endswith(ending):
        raise _broken(f"the signature of {certificate.name} is not in its one DER form")
    if any(e.critical and e.oid not in UNDERSTOOD for e in certificate.raw.extensions):
        raise _broken(f"the certificate of {certificate.name} has a critical extension that is not understood")


def _check_leaf(leaf: Certificate) -> None:
    usage = extension(leaf, x509.KeyUsage)
    if usage is None or not usage.digital_signature or leaf.is_ca:
        raise _broken(f"{leaf.name} may not sign data, or is an authority")


def _check_authority(authority: Certificate, below: int) -> None:
    constraints = extension(authority, x509.BasicConstraints)
    if constraints is None or not constraints.ca or not authority.signs_certificates:
        raise _broken(f"{authority.name} is not an authority")
    if constraints.path_length is not None and below > constraints.path_length:
        raise _broken(f"the chain below {authority.name} is longer than it allows")


def _broken(message: str) -> EvidenceRejected:
    return rejected(Fault(Reason.CHAIN_INVALID, message))
