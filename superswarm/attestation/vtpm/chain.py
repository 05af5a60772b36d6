"""Verify Azure vTPM evidence: hardware report → runtime data → attestation key → quote → PCR values.

The paravisor and its vTPM are inside the trusted base: the hardware vouches for their launch measurement, they vouch
for the guest's PCRs (docs/limitations.md).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterator, Mapping
from dataclasses import InitVar, dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from superswarm.attestation.reasons import Fault, Reason, refuse
from superswarm.attestation.snp.chain import ROOTS, SnpClaims, read_snp, verification_faults
from superswarm.attestation.snp.report import Product
from superswarm.attestation.tdx.collateral import NAMES
from superswarm.attestation.tdx.quote import without_padding
from superswarm.attestation.tdx.verify import INTEL_ROOTS, VerifiedTdx, verify_tdx
from superswarm.attestation.vtpm.evidence import VtpmEvidence, parse_evidence
from superswarm.values import Digest

_PROOF = object()


@dataclass(frozen=True, slots=True)
class VtpmClaims:
    """Evidence together with what lies beneath it. Proves nothing."""

    evidence: VtpmEvidence
    beneath: SnpClaims | VerifiedTdx

    @property
    def measurement(self) -> bytes:
        """Of the paravisor, 48 bytes."""
        beneath = self.beneath
        return beneath.report.measurement if isinstance(beneath, SnpClaims) else beneath.quote.td.mr_td

    @property
    def report_data(self) -> bytes:
        """Of the hardware's report, 64 bytes."""
        beneath = self.beneath
        return beneath.report.report_data if isinstance(beneath, SnpClaims) else beneath.quote.td.report_data


@dataclass(frozen=True, slots=True)
class VerifiedVtpm:
    """A quote by a vTPM that genuine hardware vouches for. Only `verify_vtpm` makes one."""

    claims: VtpmClaims = field(repr=False)
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only verify_vtpm() makes a VerifiedVtpm")

    @property
    def measurement(self) -> bytes:
        return self.claims.measurement

    @property
    def qualifying_data(self) -> bytes:
        """What the challenger chose: the quote's nonce."""
        return self.claims.evidence.quote.qualifying_data

    @property
    def pcrs(self) -> Mapping[int, bytes]:
        return self.claims.evidence.pcrs


def qualifying_data(report_data: bytes) -> bytes:
    """What a vTPM is asked to sign for 64 bytes of report_data: their SHA-256, since a TPM may take only 50 bytes."""
    return hashlib.sha256(report_data).digest()


def verify_vtpm(
    data: bytes,
    endorsements: Mapping[str, bytes],
    at: int,
    roots: Mapping[Digest, Product] = ROOTS,
    td_roots: Collection[Digest] = INTEL_ROOTS,
) -> VerifiedVtpm:
    """Verify at a time (unix seconds). Raises Malformed, or EvidenceRejected with all that fails."""
    claims = read_vtpm(data, endorsements, at, roots, td_roots)
    refuse(vtpm_faults(claims, at, roots))
    return VerifiedVtpm(claims, _PROOF)


def read_vtpm(
    data: bytes,
    endorsements: Mapping[str, bytes],
    at: int,
    roots: Mapping[Digest, Product] = ROOTS,
    td_roots: Collection[Digest] = INTEL_ROOTS,
) -> VtpmClaims:
    """Parse evidence and what lies beneath it. Proves nothing of an SNP report; a TD quote is verified here.

    Raises Malformed, or EvidenceRejected for a lack, and for a TD quote that does not hold.
    """
    evidence = parse_evidence(data)
    if evidence.td_quote is None:
        found = {**endorsements, **evidence.endorsements}
        return VtpmClaims(evidence, read_snp(evidence.hcl.hardware, found, at, roots))
    collateral = {name: value for name, value in endorsements.items() if name in NAMES}
    return VtpmClaims(evidence, verify_tdx(without_padding(evidence.td_quote), collateral, at, td_roots))


def vtpm_faults(claims: VtpmClaims, at: int, roots: Mapping[Digest, Product] = ROOTS) -> Iterator[Fault]:
    """Everything for which no policy can be lenient, in the order in which trust is built."""
    evidence = claims.evidence
    # (1) The hardware vouches for the paravisor. (A TD quote is verified already, or this would not be reached.)
    if isinstance(claims.beneath, SnpClaims):
        yield from verification_faults(claims.beneath, at, roots)
    # (2) The hardware's report speaks for the runtime data, and so for the attestation key in it.
    if not hmac.compare_digest(claims.report_data, evidence.hcl.expected_report_data):
        yield Fault(Reason.RUNTIME_DATA_MISMATCH, "the hardware's report speaks for other runtime data")
    # (3) That key signed the quote.
    try:
        evidence.hcl.attestation_key.verify(evidence.signature, evidence.message, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        yield Fault(Reason.SIGNATURE_INVALID, "the vTPM's attestation key did not sign this quote")
    # (4) The quote speaks for these PCR values.
    composite = hashlib.sha256(b"".join(evidence.pcrs[index] for index in evidence.quote.selected)).digest()
    if composite != evidence.quote.pcr_digest:
        yield Fault(Reason.PCR_MISMATCH, "the quote speaks for other PCR values")
