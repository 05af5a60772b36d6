"""Verify Intel TDX evidence: a quote, version 4 or 5, with Intel's collateral stapled to it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from superswarm.attestation import dcap
from superswarm.attestation.dcap import DcapClaims
from superswarm.attestation.evidence import Evidence
from superswarm.attestation.tdx_quote import TdxQuote, parse_quote
from superswarm.errors import Malformed
from superswarm.values import Digest

INTEL_ROOTS = frozenset(
    {
        # Intel SGX Root CA, valid 2018-05-21 to 2049-12-31, serial 22650cd65a9d3489f383b49552bf501b392706ac.
        # https://certificates.trustedservices.intel.com/IntelSGXRootCA.der
        Digest.parse("sha256:a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e"),
    }
)
"""SHA-256 of the SubjectPublicKeyInfo of Intel's roots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxClaims:
    """A genuine quote, and what its collateral says of the platform."""

    quote: TdxQuote
    dcap: DcapClaims


def verify_tdx(evidence: Evidence, roots: Collection[Digest], at: int) -> TdxClaims:
    """Verify a quote and its collateral under one of these roots. Raises Malformed or EvidenceRejected."""
    quote = parse_quote(evidence.quote)
    endorsements = dict(evidence.endorsements)
    unknown = endorsements.keys() - set(dcap.NAMES)
    if unknown:
        raise Malformed(f"TDX evidence has {len(unknown)} endorsements of unknown kinds")
    return TdxClaims(quote=quote, dcap=dcap.check_dcap(evidence.quote, quote, endorsements, roots, at))
