"""Judge verified Azure vTPM evidence by the workload's policy."""

from __future__ import annotations

from collections.abc import Iterator

from superswarm.attestation.reasons import Fault, Reason, refuse
from superswarm.attestation.snp import judge as snp
from superswarm.attestation.snp.chain import SnpClaims
from superswarm.attestation.tdx import judge as tdx
from superswarm.attestation.tdx.verify import VerifiedTdx
from superswarm.attestation.vtpm.chain import VerifiedVtpm, VtpmClaims
from superswarm.consortium.policy import AzureVtpmPolicy


def judge_vtpm(verified: VerifiedVtpm, policy: AzureVtpmPolicy, at: int) -> None:
    """Raise EvidenceRejected with every claim that the policy does not accept."""
    refuse(policy_faults(verified.claims, policy, at))


def policy_faults(claims: VtpmClaims, policy: AzureVtpmPolicy, at: int) -> Iterator[Fault]:
    """Every claim that the policy does not accept."""
    # (1) What lies beneath is accepted.
    yield from _beneath_faults(claims.beneath, policy, at)
    # (2) The guest that the vTPM measured.
    pcrs = claims.evidence.pcrs
    for pcr in policy.pcrs:
        found = pcrs.get(pcr.index)
        if found is None or found.hex() not in pcr.allowed:
            yield Fault(Reason.PCR_NOT_ACCEPTED, f"PCR {pcr.index} is not quoted, or not in the policy's list")
    # (3) How the guest was started.
    if policy.secure_boot == "required" and not claims.evidence.hcl.secure_boot:
        yield Fault(Reason.SECURE_BOOT_OFF, "the machine was started without secure boot")


def _beneath_faults(beneath: SnpClaims | VerifiedTdx, policy: AzureVtpmPolicy, at: int) -> Iterator[Fault]:
    if isinstance(beneath, SnpClaims):
        if policy.sev_snp is None:
            yield Fault(Reason.PLATFORM_NOT_ACCEPTED, "the policy accepts no vTPM on SEV-SNP")
        else:
            yield from snp.policy_faults(beneath, policy.sev_snp, at)
    elif policy.tdx is None:
        yield Fault(Reason.PLATFORM_NOT_ACCEPTED, "the policy accepts no vTPM on TDX")
    else:
        yield from tdx.policy_faults(beneath, policy.tdx, at)
