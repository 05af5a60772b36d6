"""Judge a conformance case of kind sev-snp: report.bin, and certificates as `chain` names them."""

from __future__ import annotations

from collections.abc import Mapping

from superswarm.attestation import baseline
from superswarm.attestation.snp.chain import read_snp, verify_snp
from superswarm.attestation.snp.judge import judge_snp, policy_faults
from superswarm.errors import EvidenceRejected, Malformed

REPORT = "report.bin"


def judge_snp_case(files: Mapping[str, bytes], consents: frozenset[str], at: int) -> None:
    """Judge files under consents at a time (unix seconds). Raises EvidenceRejected or Malformed."""
    if REPORT not in files:
        raise Malformed(f"the case has no {REPORT}")
    policy = baseline.snp_policy(consents)
    try:
        verified = verify_snp(files[REPORT], files, at)
    except EvidenceRejected as error:
        others = [fault.reason for fault in policy_faults(read_snp(files[REPORT], files, at), policy, at)]
        raise EvidenceRejected(error.reason, str(error), *error.reasons[1:], *others) from None
    judge_snp(verified, policy, at)
