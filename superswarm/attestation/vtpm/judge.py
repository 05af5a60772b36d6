"""Judge verified Azure vTPM evidence by the workload's policy."""

from __future__ import annotations

from collections.abc import Iterator

from superswarm.attestation.reasons import Fault, Reason, refuse
from superswarm.attestation.snp import judge as snp
from superswarm.attestation.vtpm.chain import VerifiedVtpm, VtpmClaims
from superswarm.consortium.policy import AzureVtpmPolicy


def judge_vtpm(verified: VerifiedVtpm, policy: AzureVtpmPolicy, at: int) -> None:
    """Raise EvidenceRejected with every claim that the policy does not accept."""
    refuse(policy_faults(verified.claims, policy, at))


def policy_faults(claims: VtpmClaims, policy: AzureVtpmPolicy, at: int) -> Iterator[Fault]:
    """Every claim that the policy does not accept."""
    # (1) What lies beneath is accepted, and for the paravisor itself, not for code that it runs.
    if policy.sev_snp is None:
        yield Fault(Reason.PLATFORM_NOT_ACCEPTED, "the policy accepts no vTPM on SEV-SNP")
    else:
        yield from snp.policy_faults(claims.snp, policy.sev_snp, at)
    # (2) The guest that the vTPM measured.
    pcrs = claims.evidence.pcrs
    for pcr in policy.pcrs:
        found = pcrs.get(pcr.index)
        if found is None or found.hex() not in pcr.allowed:
            yield Fault(Reason.PCR_NOT_ACCEPTED, f"PCR {pcr.index} is not quoted, or not in the policy's list")
    # (3) How the guest was started.
    if policy.secure_boot == "required" and not claims.evidence.hcl.secure_boot:
        yield Fault(Reason.SECURE_BOOT_OFF, "the machine was started without secure boot")
