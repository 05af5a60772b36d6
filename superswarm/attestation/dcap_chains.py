"""The certificates and CRLs of a DCAP quote: shape, root and windows, checked around dcap-qvl, which verifies them.

Shapes: Intel SGX PCK Certificate and CRL Profile Specification. A PCK leaf is issued by the platform or processor CA,
which the root issues; the signer of TCB documents is issued by the root itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from superswarm.attestation.reasons import Fault, Reason, refuse, rejected
from superswarm.values import Digest

# Endorsements of a DCAP quote, named as in Intel's QuoteCollateral; chains are PEM and end in the root.
PCK_CRL_CHAIN = "pck_crl_issuer_chain"
ROOT_CRL = "root_ca_crl"  # DER
PCK_CRL = "pck_crl"  # DER
TCB_CHAIN = "tcb_info_issuer_chain"
TCB_INFO = "tcb_info"  # JSON, exactly as signed
TCB_SIGNATURE = "tcb_info_signature"  # 64 bytes
QE_CHAIN = "qe_identity_issuer_chain"
QE_IDENTITY = "qe_identity"  # JSON, exactly as signed
QE_SIGNATURE = "qe_identity_signature"  # 64 bytes

UNREADABLE = (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What `cryptography` raises for bytes that are not what they claim; some only when a field is asked for."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate, every field that is used read at once."""

    label: str  # our words for it, not the certificate's
    der: bytes
    parsed: x509.Certificate
    key: EllipticCurvePublicKey
    spki: Digest
    subject: x509.Name
    issuer: x509.Name
    serial: int
    begin: datetime
    end: datetime

    @classmethod
    def read(cls, label: str, parsed: x509.Certificate) -> Self:
        """Raises one of UNREADABLE."""
        key = parsed.public_key()
        if not isinstance(key, EllipticCurvePublicKey):
            raise TypeError("not an elliptic-curve key")
        return cls(
            label,
            parsed.public_bytes(Encoding.DER),
            parsed,
            key,
            Digest.of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
            parsed.subject,
            parsed.issuer,
            parsed.serial_number,
            parsed.not_valid_before_utc,
            parsed.not_valid_after_utc,
        )

    def issued_by(self, issuer: Certificate) -> bool:
        """Whether the issuer's name and key are those that signed this certificate."""
        try:
            self.parsed.verify_directly_issued_by(issuer.parsed)
        except (*UNREADABLE, InvalidSignature):
            return False
        return True

    def window_faults(self, at: datetime) -> Iterator[Fault]:
        if self.end < at:
            yield Fault(Reason.CERTIFICATE_EXPIRED, f"the certificate of {self.label} expired on {self.end:%Y-%m-%d}")
        if self.begin > at:
            begin = f"{self.begin:%Y-%m-%d}"
            yield Fault(Reason.CERTIFICATE_NOT_YET_VALID, f"the certificate of {self.label} begins on {begin}")


@dataclass(frozen=True, slots=True)
class Crl:
    """A certificate revocation list, every field that is used read at once."""

    label: str
    parsed: x509.CertificateRevocationList
    issuer: x509.Name
    begin: datetime
    end: datetime

    @classmethod
    def read(cls, label: str, raw: bytes) -> Self:
        """Raises EvidenceRejected where it cannot be read."""
        try:
            parsed = x509.load_der_x509_crl(raw)
            end = parsed.next_update_utc
            issuer, begin = parsed.issuer, parsed.last_update_utc
        except UNREADABLE:
            end = None
        if end is None:
            raise rejected(Fault(Reason.CRL_INVALID, f"the {label} CRL is not a CRL in DER with an end"))
        return cls(label, parsed, issuer, begin, end)

    def revokes(self, certificate: Certificate) -> bool:
        """Whether it lists this certificate; an unreadable list lists nothing. For words only."""
        try:
            entry = self.parsed.get_revoked_certificate_by_serial_number(certificate.serial)
        except UNREADABLE:
            return False
        return certificate.issuer == self.issuer and entry is not None

    def signed_by(self, issuer: Certificate) -> bool:
        try:
            return self.issuer == issuer.subject and self.parsed.is_signature_valid(issuer.key)
        except UNREADABLE:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """Parsed certificates and CRLs; of a chain, the first is the leaf and the last the root."""

    pck: tuple[Certificate, ...]  # leaf, CA, root
    pck_crl_issuer: tuple[Certificate, ...]  # CA, root
    tcb: tuple[Certificate, ...]  # signer, root
    qe: tuple[Certificate, ...]  # signer, root
    root_crl: Crl
    pck_crl: Crl

    @property
    def root(self) -> Certificate:
        return self.pck[-1]

    def require_root(self, roots: Collection[Digest], at: int) -> Digest:
        """The digest of the one root that all chains end in; EvidenceRejected unless it is pinned and valid."""
        # (1) It is pinned, by its key.
        if self.root.spki not in roots:
            raise rejected(Fault(Reason.ROOT_UNTRUSTED, f"the root {self.root.spki} is not pinned here"))
        # (2) Nobody altered the certificate around the key.
        if not self.root.issued_by(self.root):
            raise rejected(Fault(Reason.CHAIN_INVALID, "the root's signature on itself does not hold"))
        # (3) Every chain ends in it.
        if any(chain[-1].der != self.root.der for chain in (self.pck_crl_issuer, self.tcb, self.qe)):
            raise rejected(Fault(Reason.CHAIN_INVALID, "the chains do not end in one root"))
        # (4) It is valid at this time.
        refuse(self.root.window_faults(moment(at)))
        return self.root.spki

    def require_windows(self, at: int) -> None:
        """EvidenceRejected unless what dcap-qvl does not look at holds: CRLs' begin, the issuer of the PCK's CRL."""
        # (1) A CRL from the future says nothing about now. (dcap-qvl checks the end.)
        for crl in (self.root_crl, self.pck_crl):
            if crl.begin > moment(at):
                raise rejected(Fault(Reason.CRL_INVALID, f"the {crl.label} CRL begins after the time of judging"))
        # (2) The chain that travels for the PCK's CRL is genuine, although the PCK's own chain is what counts.
        issuer = self.pck_crl_issuer[0]
        if not issuer.issued_by(self.root):
            raise rejected(Fault(Reason.CHAIN_INVALID, f"the root did not issue the certificate of {issuer.label}"))
        refuse(issuer.window_faults(moment(at)))

    def faults(self, at: int) -> Iterator[Fault]:
        """Why a verifier that keeps it to itself refuses these chains, most telling first. Decides nothing."""
        every = (*self.pck, *self.pck_crl_issuer, *self.tcb, *self.qe)
        for certificate in every:
            yield from certificate.window_faults(moment(at))
        for crl, issuer in ((self.root_crl, self.root), (self.pck_crl, self.pck[1])):
            for certificate in filter(crl.revokes, every):
                yield Fault(Reason.CERTIFICATE_REVOKED, f"the vendor revoked the certificate of {certificate.label}")
            if not crl.signed_by(issuer):
                yield Fault(Reason.CRL_INVALID, f"the {crl.label} CRL is not signed by {issuer.label}")
            if crl.end < moment(at):
                yield Fault(Reason.COLLATERAL_EXPIRED, f"the {crl.label} CRL expired on {crl.end:%Y-%m-%d}")


def load_chains(pck_chain: bytes, endorsements: Mapping[str, bytes]) -> Chains:
    """Parse all certificates and CRLs, and check each chain's length. Raises EvidenceRejected."""
    return Chains(
        pck=_chain(pck_chain, ("the PCK", "the PCK's CA", "the root")),
        pck_crl_issuer=_chain(endorsements[PCK_CRL_CHAIN], ("the PCK CRL's issuer", "the root")),
        # A PCK could sign TCB documents if a chain of three were let through: its key lives on every machine.
        tcb=_chain(endorsements[TCB_CHAIN], ("the signer of TCB info", "the root")),
        qe=_chain(endorsements[QE_CHAIN], ("the signer of QE identity", "the root")),
        root_crl=Crl.read("root", endorsements[ROOT_CRL]),
        pck_crl=Crl.read("PCK", endorsements[PCK_CRL]),
    )


def moment(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _chain(pem: bytes, labels: Iterable[str]) -> tuple[Certificate, ...]:
    labels = tuple(labels)
    try:
        parsed = x509.load_pem_x509_certificates(pem)
        if len(parsed) == len(labels):
            return tuple(Certificate.read(label, one) for label, one in zip(labels, parsed, strict=True))
    except UNREADABLE:
        raise rejected(Fault(Reason.CHAIN_INVALID, f"the chain of {labels[0]} is not PEM certificates")) from None
    wrong = f"the chain of {labels[0]} has {len(parsed)} certificates, not {len(labels)}"
    raise rejected(Fault(Reason.CHAIN_INVALID, wrong))
