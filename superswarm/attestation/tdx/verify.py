"""Verify Intel TDX evidence: a quote, version 4 or 5, Intel's collateral, and an event log where there is one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Final

from superswarm.attestation.roots import Vendor, pinned
from superswarm.attestation.tdx import ccel
from superswarm.attestation.tdx.ccel import Event
from superswarm.attestation.tdx.collateral import NAMES
from superswarm.attestation.tdx.dcap import DcapClaims, check_dcap
from superswarm.attestation.tdx.quote import TdxQuote, parse_quote
from superswarm.errors import Malformed
from superswarm.values import Digest

INTEL_ROOTS: Final = frozenset(pinned(Vendor.INTEL_SGX))
EVENT_LOG = "ccel"  # the endorsement that holds the CC event log
EVENT_LOG_TABLE = "ccel_table"  # the ACPI table that announces it
_PROOF = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedTdx:
    """A quote that genuine hardware signed, under a root that was asked for. Only `verify_tdx` makes one."""

    quote: TdxQuote
    dcap: DcapClaims
    events: tuple[Event, ...] | None = field(repr=False)  # replay to RTMR0–3; None where no log came along
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only verify_tdx() makes a VerifiedTdx")


def verify_tdx(
    raw: bytes, endorsements: Mapping[str, bytes], at: int, roots: Collection[Digest] = INTEL_ROOTS
) -> VerifiedTdx:
    """Verify a quote with its endorsements at a time (unix seconds). Raises Malformed or EvidenceRejected.

    `endorsements` are those of `tdx.collateral`, and may hold an event log. `roots` other than Intel's are for
    development authorities.
    """
    # (1) Quote and endorsements are of known kinds.
    quote = parse_quote(raw)
    unknown = endorsements.keys() - {*NAMES, EVENT_LOG, EVENT_LOG_TABLE}
    if unknown:
        raise Malformed(f"TDX evidence has {len(unknown)} endorsements of unknown kinds")
    # (2) Chains, revocation, signatures, time; the hardware's and quoting enclave's state.
    collateral = {name: value for name, value in endorsements.items() if name in NAMES}
    dcap = check_dcap(raw, quote, collateral, roots, at)
    # (3) The event log explains the registers exactly.
    events = read_events(endorsements)
    if events is not None:
        ccel.require_replay(events, quote.td.rtmr)
    return VerifiedTdx(quote=quote, dcap=dcap, events=events, proof=_PROOF)


def read_events(endorsements: Mapping[str, bytes]) -> tuple[Event, ...] | None:
    """Parse the event log that travels along, if one does. Proves nothing. Raises Malformed."""
    table = endorsements.get(EVENT_LOG_TABLE)
    if table is not None:
        ccel.check_table(table)
    log = endorsements.get(EVENT_LOG)
    return None if log is None else ccel.parse_ccel(log)
