"""Verify an SEV-SNP report: AMD's chain to a pinned root, the report's signature, and that both name one chip.

What only a policy can weigh (which product, which key kind, a missing CRL) is recorded here and judged in `judge`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from enum import StrEnum
from functools import cache
from importlib import resources

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from superswarm.attestation.certificates import (
    Certificate,
    RevocationList,
    issued,
    load_certificate,
    load_crl,
    signed_crl,
    utc,
    validity_faults,
)
from superswarm.attestation.reasons import Fault, Reason, refuse, rejected
from superswarm.attestation.roots import Vendor, pinned
from superswarm.attestation.snp.report import KeyKind, Product, Report, parse_report
from superswarm.attestation.snp.vek import EndorsementKey, parse_vek
from superswarm.values import Digest

PRODUCT_OF_ROOT = {
    Vendor.AMD_MILAN: Product.MILAN,
    Vendor.AMD_GENOA: Product.GENOA,
    Vendor.AMD_TURIN: Product.TURIN,
}
ROOTS: Mapping[Digest, Product] = {spki: PRODUCT_OF_ROOT[vendor] for spki, vendor in pinned(*PRODUCT_OF_ROOT).items()}
ECDSA_P384_SHA384 = 1
VLEK_SIGNER = "SEV-VLEK-"  # ASVKs are named so; ASKs are SEV- and the product
_PROOF = object()


class CrlState(StrEnum):
    """What is known of revocation at the time of judging."""

    CURRENT = "current"
    STALE = "stale"  # signed, but outside its window: what it revokes still counts
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Certificates:
    """What endorses a report: the endorsement key, AMD's signing key (ASK or ASVK), AMD's root, and its CRL."""

    vek: EndorsementKey
    signer: Certificate
    root: Certificate
    crl: RevocationList | None


@dataclass(frozen=True, slots=True)
class SnpClaims:
    """A report with its certificates, and what follows from them. Proves nothing."""

    report: Report
    certificates: Certificates
    product: Product | None  # of the pinned root; None: the root is not pinned
    crl_state: CrlState

    @property
    def chip(self) -> bytes | None:
        """Which chip signed: a VCEK is a chip's own; under a VLEK the report says, unless the host masks it."""
        if self.certificates.vek.hardware_id is not None:
            return self.certificates.vek.hardware_id
        if self.report.masked:
            return None
        return self.report.chip_id[:8] if self.product is Product.TURIN else self.report.chip_id


@dataclass(frozen=True, slots=True)
class VerifiedSnp:
    """A report that AMD's hardware signed, under a pinned root. Only `verify_snp` makes one."""

    claims: SnpClaims = field(repr=False)
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only verify_snp() makes a VerifiedSnp")

    @property
    def report(self) -> Report:
        return self.claims.report

    @property
    def root(self) -> Digest:
        return self.claims.certificates.root.spki


def verify_snp(
    report: bytes, endorsements: Mapping[str, bytes], at: int, roots: Mapping[Digest, Product] = ROOTS
) -> VerifiedSnp:
    """Verify at a time (unix seconds). Raises Malformed, or EvidenceRejected with all that fails."""
    claims = read_snp(report, endorsements, at, roots)
    refuse(verification_faults(claims, at, roots))
    return VerifiedSnp(claims, _PROOF)


def read_snp(
    report: bytes, endorsements: Mapping[str, bytes], at: int, roots: Mapping[Digest, Product] = ROOTS
) -> SnpClaims:
    """Parse a report and its endorsements. Proves nothing. Raises Malformed, or EvidenceRejected for a lack."""
    parsed = parse_report(report)
    certificates = load_certificates(parsed, endorsements)
    return SnpClaims(
        report=parsed,
        certificates=certificates,
        product=roots.get(certificates.root.spki),
        crl_state=_crl_state(certificates.crl, at),
    )


def verification_faults(claims: SnpClaims, at: int, roots: Mapping[Digest, Product] = ROOTS) -> Iterator[Fault]:
    """Everything for which no policy can be lenient, in the order in which trust is built."""
    report, certificates = claims.report, claims.certificates
    vek, signer, root = certificates.vek, certificates.signer, certificates.root
    # (1) The chain begins at a key that AMD owns.
    if root.spki not in roots:
        yield Fault(Reason.ROOT_UNTRUSTED, f"{root.name} is not one of AMD's root keys")
    # (2) Each key signed the next one, and was allowed to.
    for child, issuer in ((root, root), (signer, root), (vek.certificate, signer)):
        if not issued(child, issuer):
            yield Fault(Reason.CHAIN_INVALID, f"{issuer.name} did not sign the certificate of {child.name}")
        elif not (issuer.is_ca and issuer.signs_certificates):
            yield Fault(Reason.CHAIN_INVALID, f"{issuer.name} may not sign certificates")
    # (3) Each certificate is valid at this time.
    for certificate in (vek.certificate, signer, root):
        yield from validity_faults(certificate, at)
    # (4) The root did not revoke the signer. (AMD lists signing keys only: its endorsement keys share serial 0.)
    yield from _crl_faults(certificates)
    # (5) The endorsement key signed the report, with the one algorithm that is specified.
    yield from _signature_faults(report, vek.certificate)
    # (6) Report and certificate agree on what they speak about.
    yield from _agreement_faults(claims)


def _crl_faults(certificates: Certificates) -> Iterator[Fault]:
    crl, root, signer = certificates.crl, certificates.root, certificates.signer
    if crl is None:
        return
    if not signed_crl(crl, root):
        yield Fault(Reason.CRL_INVALID, f"{root.name} did not sign the CRL")
    elif {signer.serial, root.serial} & crl.serials:
        yield Fault(Reason.CERTIFICATE_REVOKED, f"{root.name} revoked the key that signed the endorsement key")


def _signature_faults(report: Report, certificate: Certificate) -> Iterator[Fault]:
    key = certificate.key
    if report.signature_algorithm != ECDSA_P384_SHA384:
        yield Fault(Reason.SIGNATURE_ALGORITHM, f"the report claims signature algorithm {report.signature_algorithm}")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        yield Fault(Reason.SIGNATURE_ALGORITHM, f"{certificate.name} is not a P-384 key")
        return
    try:
        key.verify(utils.encode_dss_signature(report.r, report.s), report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        yield Fault(Reason.SIGNATURE_INVALID, "the endorsement key did not sign this report")


def _agreement_faults(claims: SnpClaims) -> Iterator[Fault]:
    report, vek, product = claims.report, claims.certificates.vek, claims.product
    if report.signing_key is not vek.kind:
        yield Fault(
            Reason.CERTIFICATE_MISMATCH, f"a {vek.kind.name} came with a report signed by {report.signing_key.name}"
        )
    if claims.certificates.signer.name.startswith(VLEK_SIGNER) != (vek.kind is KeyKind.VLEK):
        yield Fault(Reason.CERTIFICATE_MISMATCH, f"{claims.certificates.signer.name} does not sign {vek.kind.name}s")
    if report.cpuid is not None and report.product is None:
        family, model, _ = report.cpuid
        yield Fault(Reason.PRODUCT_UNRECOGNISED, f"family {family:#x} model {model:#x} is not a known SNP processor")
    if vek.product is None:
        yield Fault(Reason.PRODUCT_UNRECOGNISED, f"the endorsement key names the unknown product {vek.product_name}")
    named = {p for p in (product, report.product, vek.product) if p is not None}
    if len(named) > 1:
        yield Fault(Reason.CERTIFICATE_MISMATCH, f"root, report and certificate name products {sorted(named)}")
    if vek.tcb != report.reported_tcb:
        yield Fault(
            Reason.CERTIFICATE_MISMATCH, f"the certificate is for TCB {vek.tcb}, the report for {report.reported_tcb}"
        )
    if vek.hardware_id is not None and not report.masked and _padded(vek.hardware_id) != report.chip_id:
        yield Fault(Reason.CERTIFICATE_MISMATCH, "the certificate belongs to another chip than the report")


def _padded(hardware_id: bytes) -> bytes:
    return hardware_id.ljust(64, b"\0")


def _crl_state(crl: RevocationList | None, at: int) -> CrlState:
    if crl is None:
        return CrlState.MISSING
    current = crl.this_update <= at and crl.next_update is not None and at <= crl.next_update
    return CrlState.CURRENT if current else CrlState.STALE


# --- which certificates ------------------------------------------------------------------------------------------

VCEKS, VLEKS = ("vcek.der", "vcek.pem"), ("vlek.der", "vlek.pem")
LEAVES = ("leaf.der", "leaf.pem", *VCEKS, *VLEKS)
SIGNERS = ("ask.der", "ask.pem", "asvk.der", "asvk.pem")
AMD_ROOTS = ("ark.der", "ark.pem")
CRLS = ("ark.crl.der", "ark.crl.pem")


def load_certificates(report: Report, endorsements: Mapping[str, bytes]) -> Certificates:
    """Take the chain from the evidence; the signer and root that AMD publishes where the evidence brings none."""
    preferred = VLEKS if report.signing_key is KeyKind.VLEK else VCEKS  # a host may give both
    leaf = _first(endorsements, (*preferred, *LEAVES))
    if leaf is None:
        raise rejected(Fault(Reason.COLLATERAL_MISSING, "the evidence lacks the VCEK or VLEK certificate"))
    vek = parse_vek(load_certificate(leaf, "the endorsement key's certificate"))
    product = vek.product or report.product
    signer, root = _first(endorsements, SIGNERS), _first(endorsements, AMD_ROOTS)
    if product is not None:
        signer = published(product, "asvk" if vek.kind is KeyKind.VLEK else "ask") if signer is None else signer
        root = published(product, "ark") if root is None else root
    if signer is None or root is None:
        raise rejected(Fault(Reason.COLLATERAL_MISSING, "the evidence lacks AMD's signing key or root certificate"))
    crl = _first(endorsements, CRLS)
    return Certificates(
        vek=vek,
        signer=load_certificate(signer, "the signing key's certificate"),
        root=load_certificate(root, "the root certificate"),
        crl=None if crl is None else load_crl(crl, "the CRL of AMD's root"),
    )


def _first(endorsements: Mapping[str, bytes], names: tuple[str, ...]) -> bytes | None:
    return next((endorsements[name] for name in names if name in endorsements), None)


@cache
def published(product: Product, kind: str) -> bytes:
    """AMD's own intermediate or root certificate, as KDS serves it. A convenience: the pinned key still decides."""
    folder = resources.files("superswarm.attestation.snp") / "certificates"
    return (folder / f"{product}-{kind}.der").read_bytes()


def describe_crl(claims: SnpClaims) -> str:
    """The CRL's window, for people."""
    crl = claims.certificates.crl
    if crl is None:
        return "missing"
    until = "an unstated time" if crl.next_update is None else utc(crl.next_update)
    return f"{claims.crl_state}: {utc(crl.this_update)} to {until}, {len(crl.serials)} revoked"
