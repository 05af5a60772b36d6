"""Judge a conformance case of kind tdx: quote.bin, collateral.json, and an event log where there is one."""

from __future__ import annotations

from collections.abc import Mapping

from superswarm.attestation import baseline
from superswarm.attestation.reasons import Fault, Reason, rejected
from superswarm.attestation.tdx.collateral import parse_collateral
from superswarm.attestation.tdx.judge import domain_faults, image_of, judge_tdx
from superswarm.attestation.tdx.quote import parse_quote, without_padding
from superswarm.attestation.tdx.verify import EVENT_LOG, EVENT_LOG_TABLE, verify_tdx
from superswarm.errors import EvidenceRejected, Malformed

QUOTE, COLLATERAL = "quote.bin", "collateral.json"
LOGS = {"ccel.bin": EVENT_LOG, "ccel_acpi_table.bin": EVENT_LOG_TABLE}


def judge_tdx_case(files: Mapping[str, bytes], consents: frozenset[str], at: int) -> None:
    """Judge files under consents at a time (unix seconds). Raises EvidenceRejected or Malformed."""
    if QUOTE not in files:
        raise Malformed(f"the case has no {QUOTE}")
    quote = without_padding(files[QUOTE])
    td = parse_quote(quote).td
    policy = baseline.tdx_policy(consents, image_of(td))
    try:
        verified = verify_tdx(quote, endorsements(files), at)
    except EvidenceRejected as error:
        others = [fault.reason for fault in domain_faults(td, policy)]
        raise EvidenceRejected(error.reason, str(error), *error.reasons[1:], *others) from None
    judge_tdx(verified, policy, at)


def endorsements(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """What stands beside a quote, as evidence staples it. Raises EvidenceRejected for a lack, or Malformed."""
    if COLLATERAL not in files:
        raise rejected(Fault(Reason.COLLATERAL_MISSING, "Intel's collateral for the quote is missing"))
    logs = {name: files[file] for file, name in LOGS.items() if file in files}
    return parse_collateral(files[COLLATERAL]) | logs
