"""Verify evidence: signatures, chains, revocation, time. Whether what it says is enough, `appraise` decides."""

from __future__ import annotations

import hmac
from dataclasses import InitVar, dataclass, field
from typing import TypeAlias

from superswarm.attestation.evidence import Evidence
from superswarm.attestation.reasons import Fault, Reason, rejected
from superswarm.attestation.snp.chain import VerifiedSnp, verify_snp
from superswarm.attestation.tdx.quote import without_padding
from superswarm.attestation.tdx.verify import VerifiedTdx, verify_tdx
from superswarm.attestation.vtpm.chain import VerifiedVtpm, qualifying_data, verify_vtpm
from superswarm.consortium.manifest import Platform
from superswarm.errors import Malformed
from superswarm.values import Digest, Measurement

LATEST = 253_402_300_800  # unix seconds: the year 10000
_PROOF = object()

Claims: TypeAlias = VerifiedTdx | VerifiedSnp | VerifiedVtpm
"""What a platform's verifier established."""


@dataclass(frozen=True, slots=True)
class TrustRoots:
    """Roots that may vouch for simulated machines: SHA-256 of the SPKI. Empty under a real manifest.

    Vendors' roots are pinned in the code and never come from a manifest.
    """

    development: frozenset[Digest] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReport:
    """What genuine evidence says. Only `verify` makes one."""

    platform: Platform
    measurement: Measurement
    report_data: bytes  # 64; of a vTPM, the qualifying data of its quote
    authority: Digest | None  # the development authority of simulated evidence; None for real
    devices: Digest  # of the evidence of attached devices, which report_data binds
    evidence: Evidence = field(repr=False)  # what was verified; its devices are appraised with the binding
    at: int  # unix seconds: when this held
    claims: Claims = field(repr=False)
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only verify() makes a VerifiedReport")

    def speaks_for(self, report_data: bytes) -> bool:
        """Whether the evidence was made for these 64 bytes. A vTPM signs their hash: it takes no more than 50."""
        expected = qualifying_data(report_data) if isinstance(self.claims, VerifiedVtpm) else report_data
        return hmac.compare_digest(self.report_data, expected)


def verify(evidence: Evidence, trust: TrustRoots, at: int) -> VerifiedReport:
    """Verify evidence at this time (unix seconds). Raises EvidenceRejected or Malformed."""
    if not 0 <= at < LATEST:
        raise Malformed("a time is in seconds since 1970, and before the year 10000")
    match evidence.platform:
        case Platform.SIMULATED:
            return _simulated(evidence, trust, at)
        case Platform.TDX:
            tdx = verify_tdx(without_padding(evidence.quote), dict(evidence.endorsements), at)
            return _report(evidence, tdx, tdx.quote.td.mr_td, tdx.quote.td.report_data, at)
        case Platform.SEV_SNP:
            snp = verify_snp(evidence.quote, dict(evidence.endorsements), at)
            return _report(evidence, snp, snp.report.measurement, snp.report.report_data, at)
        case Platform.AZURE_VTPM:
            vtpm = verify_vtpm(evidence.quote, dict(evidence.endorsements), at)
            return _report(evidence, vtpm, vtpm.measurement, vtpm.qualifying_data, at)


def _simulated(evidence: Evidence, trust: TrustRoots, at: int) -> VerifiedReport:
    """A quote in TDX form under the root of a development authority that the manifest names."""
    if evidence.devices:
        raise rejected(Fault(Reason.GPU_NOT_ACCEPTED, "a simulated TEE has no devices"))
    claims = verify_tdx(evidence.quote, dict(evidence.endorsements), at, roots=trust.development)
    td = claims.quote.td
    return _report(evidence, claims, td.mr_td, td.report_data, at, authority=claims.dcap.root)


def _report(
    evidence: Evidence,
    claims: Claims,
    measurement: bytes,
    report_data: bytes,
    at: int,
    *,
    authority: Digest | None = None,
) -> VerifiedReport:
    return VerifiedReport(
        platform=evidence.platform,
        measurement=Measurement(measurement),
        report_data=report_data,
        authority=authority,
        devices=evidence.device_digest,
        evidence=evidence,
        at=at,
        claims=claims,
        proof=_PROOF,
    )
