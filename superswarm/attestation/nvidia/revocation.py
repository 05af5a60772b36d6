"""Stapled answers about revocation: CRLs (RFC 5280) and OCSP responses (RFC 6960), checked without a network.

An answer counts if the certificate's issuer signed it (an OCSP response also through a responder that the issuer
named) and `at` lies in its window. An answer that says "revoked" counts even when its window is over. NVIDIA answers
for every certificate below its roots except a device's own leaf, which the chip makes for itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
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
STAPLES = 16

Staple: TypeAlias = RevocationList | ocsp.OCSPResponse


@dataclass(frozen=True, slots=True)
class Answer:
    """What one staple says about one certificate."""

    revoked: bool
    this_update: int  # unix seconds
    next_update: int | None


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


def _parse_ocsp(data: bytes) -> ocsp.OCSPResponse:
    try:
        response = ocsp.load_der_ocsp_response(data)
        successful = response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
        _ = (response.extensions, response.certificates, list(response.responses)) if successful else None
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion):
        raise Malformed("a staple is neither a CRL nor an OCSP response") from None
    if not successful:
        raise Malformed("a stapled OCSP response reports an error of its server")
    return response


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


def _ocsp_answers(
    response: ocsp.OCSPResponse, certificate: Certificate, issuer: Certificate, at: int
) -> Iterator[Answer]:
    single = [answer for answer in response.responses if _is_about(answer, certificate, issuer)]
    if single and not _is_signed_for(response, issuer, at):
        raise _invalid("a stapled OCSP response is not signed by the issuer or by a responder that the issuer named")
    for answer in single:
        if answer.certificate_status is not ocsp.OCSPCertStatus.UNKNOWN:
            revoked = answer.certificate_status is ocsp.OCSPCertStatus.REVOKED
            following = answer.next_update_utc
            yield Answer(
                revoked, _seconds(answer.this_update_utc), None if following is None else _seconds(following)
            )


def _is_about(answer: ocsp.OCSPSingleResponse, certificate: Certificate, issuer: Certificate) -> bool:
    if answer.serial_number != certificate.raw.serial_number:
        return False
    try:
        name, key = (hashlib.new(answer.hash_algorithm.name) for _ in range(2))
    except (UnsupportedAlgorithm, ValueError):  # hashed in a way that cannot be compared: not known to be about it
        return False
    name.update(issuer.raw.subject.public_bytes())
    key.update(point(issuer))
    return name.digest() == answer.issuer_name_hash and key.digest() == answer.issuer_key_hash


def _is_signed_for(response: ocsp.OCSPResponse, issuer: Certificate, at: int) -> bool:
    """RFC 6960, section 4.2.2.2: the issuer signed, or a certificate that it issued for OCSP signing."""
    return any(_verifies(response, signer) for signer in (issuer, *_delegates(response, issuer, at)))


def _delegates(response: ocsp.OCSPResponse, issuer: Certificate, at: int) -> Iterator[Certificate]:
    for raw in response.certificates:
        candidate = load_certificate(raw.public_bytes(Encoding.DER))
        usage = extension(candidate, x509.ExtendedKeyUsage)
        if (
            usage is not None
            and ExtendedKeyUsageOID.OCSP_SIGNING in usage
            and candidate.begins <= at <= candidate.ends
            and issued(candidate, issuer)
        ):
            yield candidate


def _verifies(response: ocsp.OCSPResponse, signer: Certificate) -> bool:
    algorithm = _hash(response)
    if not isinstance(signer.key, ec.EllipticCurvePublicKey) or algorithm is None or algorithm.digest_size < 32:
        return False
    try:
        signer.key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def _hash(response: ocsp.OCSPResponse) -> HashAlgorithm | None:
    try:
        return response.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _invalid(message: str) -> EvidenceRejected:
    return rejected(Fault(Reason.CRL_INVALID, message))
