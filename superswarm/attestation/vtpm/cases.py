"""Judge a conformance case of kind azure-vtpm: evidence.json, and the certificates or collateral that it lacks."""

from __future__ import annotations

from collections.abc import Mapping

from superswarm.attestation import baseline
from superswarm.attestation.snp.chain import SnpClaims
from superswarm.attestation.tdx.cases import COLLATERAL, endorsements
from superswarm.attestation.tdx.judge import image_of
from superswarm.attestation.vtpm.chain import VtpmClaims, read_vtpm, verify_vtpm
from superswarm.attestation.vtpm.judge import judge_vtpm, policy_faults
from superswarm.consortium.policy import AzureVtpmPolicy, PcrReference
from superswarm.errors import EvidenceRejected, Malformed

EVIDENCE = "evidence.json"


def judge_vtpm_case(files: Mapping[str, bytes], consents: frozenset[str], at: int) -> None:
    """Judge files under consents at a time (unix seconds). Raises EvidenceRejected or Malformed."""
    if EVIDENCE not in files:
        raise Malformed(f"the case has no {EVIDENCE}")
    stapled = {**files, **(endorsements(files) if COLLATERAL in files else {})}
    claims = read_vtpm(files[EVIDENCE], stapled, at)
    policy = _policy(claims, consents)
    try:
        verified = verify_vtpm(files[EVIDENCE], stapled, at)
    except EvidenceRejected as error:
        others = [fault.reason for fault in policy_faults(claims, policy, at)]
        raise EvidenceRejected(error.reason, str(error), *error.reasons[1:], *others) from None
    judge_vtpm(verified, policy, at)


def _policy(claims: VtpmClaims, consents: frozenset[str]) -> AzureVtpmPolicy:
    """The baseline, with the guest and the paravisor that the evidence shows as references."""
    beneath = claims.beneath
    snp = isinstance(beneath, SnpClaims)
    pcrs = claims.evidence.pcrs.items()
    return AzureVtpmPolicy(
        sev_snp=baseline.snp_policy(consents) if snp else None,
        tdx=None if isinstance(beneath, SnpClaims) else baseline.tdx_policy(consents, image_of(beneath.quote.td)),
        pcrs=tuple(PcrReference(index=index, allowed=(value.hex(),)) for index, value in pcrs),
        secure_boot="any",
    )
