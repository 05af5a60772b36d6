"""Judge a verified report by the workload's policy for its platform."""

from __future__ import annotations

from superswarm.attestation.reasons import Fault, Reason, rejected
from superswarm.attestation.snp.chain import VerifiedSnp
from superswarm.attestation.snp.judge import judge_snp
from superswarm.attestation.tdx.judge import judge_tdx
from superswarm.attestation.tdx.verify import VerifiedTdx
from superswarm.attestation.verify import VerifiedReport
from superswarm.attestation.vtpm.chain import VerifiedVtpm
from superswarm.attestation.vtpm.judge import judge_vtpm
from superswarm.consortium.policy import PlatformPolicies


def judge_report(report: VerifiedReport, policies: PlatformPolicies) -> None:
    """Raise EvidenceRejected with every claim that the policy does not accept. Devices are judged elsewhere."""
    match report.claims:
        case VerifiedSnp() if policies.sev_snp is not None:
            judge_snp(report.claims, policies.sev_snp, report.at)
        case VerifiedTdx() if policies.tdx is not None:
            judge_tdx(report.claims, policies.tdx, report.at)
        case VerifiedVtpm() if policies.azure_vtpm is not None:
            judge_vtpm(report.claims, policies.azure_vtpm, report.at)
        case _:
            raise rejected(Fault(Reason.PLATFORM_NOT_ACCEPTED, f"the policy says nothing of {report.platform}"))
