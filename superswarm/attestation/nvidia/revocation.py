"""Stapled answers about revocation: CRLs (RFC 5280) and OCSP responses (RFC 6960), checked without a network.

An answer counts if the certificate's issuer signed it (an OCSP response also through a responder that the issuer
named) and `at` lies in its window. An answer that says "revoked" counts even when its window is over. NVIDIA answers
for every certificate below its roots except a device's own leaf, which the chip makes for itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from superswarm.attestation.certificates import (
    Certificate,
    RevocationList,
    issued,
    load_certificate,
    load_crl,
    signed_crl,
)
from superswarm.attestation.nvidia.chain import Chain, extension, point
from superswarm.attestation.reasons import Fault, Reason, rejected
from superswarm.errors import EvidenceRejected, Malformed, TooLarge

STAPLE_BYTES = 256 * 1024
STAPLES = 64  # eight GPUs share one folder of answers

CERTIFICATE_ID_HASHES = ("sha1", "sha256", "sha384", "sha512")  # names a certificate; no security rests on it


@dataclass(frozen=True, slots=True)
class Answer:
    """What one staple says about one certificate."""

    revoked: bool
    this_update: int  # unix seconds
    next_update: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleResponse:
    """What an OCSP response says about one certificate, which it names by hashes of its issuer."""

    serial: int
    hash_name: str
    issuer_name: bytes
    issuer_key: bytes
    status: ocsp.OCSPCertStatus
    this_update: int  # unix seconds
    next_update: int | None


@dataclass(frozen=True, slots=True)
class OcspResponse:
    """A parsed OCSP response. Proves nothing until its signature is verified."""

    singles: tuple[SingleResponse, ...]
    certificates: tuple[Certificate, ...]  # of responders
    signature: bytes
    signed: bytes
    hash: HashAlgorithm | None  # None where the signature's is not known


Staple: TypeAlias = RevocationList | OcspResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """What is known of a chain's revocation. No certificate in it is known to be revoked."""

    good: int  # certificates with a good answer that is in its window
    missing: int  # certificates about which nobody said anything
    stale: int  # certificates whose every answer is outside its window
    oldest: int | None  # unix seconds: the earliest thisUpdate that was relied on; None without any answer

    @property
    def complete(self) -> bool:
        return not (self.missing or self.stale)


def parse_staple(data: bytes) -> Staple:
    """Read a DER CRL or OCSP response. Proves nothing."""
    if len(data) > STAPLE_BYTES:
        raise TooLarge(f"a stapled CRL or OCSP response has at most {STAPLE_BYTES} bytes")
    try:
        return load_crl(data)
    except Malformed:
        return _parse_ocsp(data)


def window_of(staple: Staple) -> tuple[int, int | None]:
    """From when to when a staple is good (unix seconds); of an OCSP response, its shortest answer's."""
    if isinstance(staple, RevocationList):
        return staple.this_update, staple.next_update
    if not staple.singles:
        raise Malformed("an OCSP response says nothing about any certificate")
    ends = [single.next_update for single in staple.singles if single.next_update is not None]
    return max(single.this_update for single in staple.singles), min(ends, default=None)


def _parse_ocsp(data: bytes) -> OcspResponse:
    """Read everything at once: `cryptography` decodes lazily, and raises wherever it is asked."""
    try:
        response = ocsp.load_der_ocsp_response(data)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise Malformed("a stapled OCSP response reports an error of its server")
        _ = response.extensions
        return OcspResponse(
            singles=tuple(_single(single) for single in response.responses),
            certificates=tuple(load_certificate(raw.public_bytes(Encoding.DER)) for raw in response.certificates),
            signature=response.signature,
            signed=response.tbs_response_bytes,
            hash=response.signature_hash_algorithm,
        )
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion):
        raise Malformed("a staple is neither a CRL nor an OCSP response that can be read") from None


def _single(single: ocsp.OCSPSingleResponse) -> SingleResponse:
    until = single.next_update_utc
    return SingleResponse(
        serial=single.serial_number,
        hash_name=single.hash_algorithm.name,
        issuer_name=single.issuer_name_hash,
        issuer_key=single.issuer_key_hash,
        status=single.certificate_status,
        this_update=int(single.this_update_utc.timestamp()),
        next_update=None if until is None else int(until.timestamp()),
    )


def check_revocation(chain: Chain, staples: Sequence[bytes], at: int, *, first: int) -> Revocation:
    """Ask the staples about every certificate from `first` to the one below the root, at `at` (unix seconds).

    Raises EvidenceRejected for a revoked certificate; Malformed for staples that do not parse.
    """
    if len(staples) > STAPLES:
        raise TooLarge(f"at most {STAPLES} CRLs and OCSP responses can be stapled to one chain")
    parsed = [parse_staple(staple) for staple in staples]
    good = missing = stale = 0
    oldest: int | None = None
    for certificate, issuer in zip(chain[first:-1], chain[first + 1 :], strict=True):
        answers = [answer for staple in parsed for answer in _answers(staple, certificate, issuer, at)]
        if any(answer.revoked for answer in answers):
            raise rejected(Fault(Reason.CERTIFICATE_REVOKED, "its issuer revoked a certificate of the chain"))
        current = [a for a in answers if a.next_update is not None and a.this_update <= at <= a.next_update]
        good += bool(current)
        stale += bool(answers) and not current
        missing += not answers
        if current:
            newest = max(answer.this_update for answer in current)
            oldest = newest if oldest is None else min(oldest, newest)
    return Revocation(good=good, missing=missing, stale=stale, oldest=oldest)


def _answers(staple: Staple, certificate: Certificate, issuer: Certificate, at: int) -> Iterator[Answer]:
    if isinstance(staple, RevocationList):
        if staple.raw.issuer == issuer.raw.subject:
            yield _crl_answer(staple, certificate, issuer)
    else:
        yield from _ocsp_answers(staple, certificate, issuer, at)


def _crl_answer(crl: RevocationList, certificate: Certificate, issuer: Certificate) -> Answer:
    usage = extension(issuer, x509.KeyUsage)
    if usage is None or not usage.crl_sign or not signed_crl(crl, issuer):
        raise _invalid("a stapled CRL is not signed by the authority that it names")
    if any(e.critical for e in crl.raw.extensions):
        raise _invalid("a stapled CRL is partial, or has a critical extension that is not understood")
    return Answer(certificate.raw.serial_number in crl.serials, crl.this_update, crl.next_update)


def _ocsp_answers(response: OcspResponse, certificate: Certificate, issuer: Certificate, at: int) -> Iterator[Answer]:
    found = [single for single in response.singles if _is_about(single, certificate, issuer)]
    if found and not _is_signed_for(response, issuer, at):
        raise _invalid("a stapled OCSP response is not signed by the issuer or by a responder that the issuer named")
    for single in found:
        if single.status is not ocsp.OCSPCertStatus.UNKNOWN:
            revoked = single.status is ocsp.OCSPCertStatus.REVOKED
            yield Answer(revoked, single.this_update, single.next_update)


def _is_about(single: SingleResponse, certificate: Certificate, issuer: Certificate) -> bool:
    if single.serial != certificate.raw.serial_number or single.hash_name not in CERTIFICATE_ID_HASHES:
        return False
    name, key = (hashlib.new(single.hash_name) for _ in range(2))
    name.update(issuer.raw.subject.public_bytes())
    key.update(point(issuer))
    return name.digest() == single.issuer_name and key.digest() == single.issuer_key


def _is_signed_for(response: OcspResponse, issuer: Certificate, at: int) -> bool:
    """RFC 6960, section 4.2.2.2: the issuer signed, or a certificate that it issued for OCSP signing."""
    responders = [candidate for candidate in response.certificates if _is_responder(candidate, issuer, at)]
    return any(_verifies(response, signer) for signer in (issuer, *responders))


def _is_responder(candidate: Certificate, issuer: Certificate, at: int) -> bool:
    usage = extension(candidate, x509.ExtendedKeyUsage)
    return (
        usage is not None
        and ExtendedKeyUsageOID.OCSP_SIGNING in usage
        and candidate.begins <= at <= candidate.ends
        and issued(candidate, issuer)
    )


def _verifies(response: OcspResponse, signer: Certificate) -> bool:
    if (
        not isinstance(signer.key, ec.EllipticCurvePublicKey)
        or response.hash is None
        or response.hash.digest_size < 32
    ):
        return False
    try:
        signer.key.verify(response.signature, response.signed, ec.ECDSA(response.hash))
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _invalid(message: str) -> EvidenceRejected:
    return rejected(Fault(Reason.CRL_INVALID, message))
