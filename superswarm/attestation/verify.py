"""Verify evidence: signatures, chains, revocation, time. Whether what it says is enough, `appraise` decides."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import TypeAlias

from superswarm.attestation.evidence import Evidence
from superswarm.attestation.reasons import Fault, Reason, rejected
from superswarm.attestation.tdx.verify import VerifiedTdx, verify_tdx
from superswarm.consortium.manifest import Platform
from superswarm.errors import Malformed
from superswarm.values import Digest, Measurement

LATEST = 253_402_300_800  # unix seconds: the year 10000
_PROOF = object()

Claims: TypeAlias = VerifiedTdx
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
    report_data: bytes  # 64
    authority: Digest | None  # the development authority of simulated evidence; None for real
    devices: Digest  # of the evidence of attached devices, which report_data binds
    at: int  # unix seconds: when this held
    claims: Claims = field(repr=False)
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only verify() makes a VerifiedReport")


def verify(evidence: Evidence, trust: TrustRoots, at: int) -> VerifiedReport:
    """Verify evidence at this time (unix seconds). Raises EvidenceRejected or Malformed."""
    if not 0 <= at < LATEST:
        raise Malformed("a time is in seconds since 1970, and before the year 10000")
    match evidence.platform:
        case Platform.SIMULATED:
            return _simulated(evidence, trust, at)
        case Platform.TDX:
            return _tdx(evidence, at)
        case _:
            raise rejected(
                Fault(Reason.PLATFORM_NOT_ACCEPTED, f"{evidence.platform} evidence cannot be verified yet")
            )


def _simulated(evidence: Evidence, trust: TrustRoots, at: int) -> VerifiedReport:
    """A quote in TDX form under the root of a development authority that the manifest names."""
    if evidence.devices:
        raise rejected(Fault(Reason.GPU_NOT_ACCEPTED, "a simulated TEE has no devices"))
    claims = verify_tdx(evidence.quote, dict(evidence.endorsements), at, roots=trust.development)
    return _report(evidence, claims, at, authority=claims.dcap.root)


def _tdx(evidence: Evidence, at: int) -> VerifiedReport:
    claims = verify_tdx(evidence.quote, dict(evidence.endorsements), at)
    return _report(evidence, claims, at, authority=None)


def _report(evidence: Evidence, claims: VerifiedTdx, at: int, *, authority: Digest | None) -> VerifiedReport:
    return VerifiedReport(
        platform=evidence.platform,
        measurement=Measurement(claims.quote.td.mr_td),
        report_data=claims.quote.td.report_data,
        authority=authority,
        devices=evidence.device_digest,
        at=at,
        claims=claims,
        proof=_PROOF,
    )
