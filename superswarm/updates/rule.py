"""Which rule aggregates a round: what the manifest's clause says, as the object that does it."""

from __future__ import annotations

from typing import TypeVar

from superswarm.consortium.aggregation import Aggregation
from superswarm.updates.adapter import AdapterSpec
from superswarm.updates.aggregate import Aggregate, ClippedMean, StreamingMean
from superswarm.updates.robust import Median, MultiKrum, RelativelyClippedMean, TrimmedMean

T = TypeVar("T", int, float)


def aggregate_for(clause: Aggregation, spec: AdapterSpec, members: int) -> Aggregate:
    """What aggregates one round of up to so many members. Raises TooLarge if their updates are too many to keep."""
    match clause.rule:
        case "fedavg":
            return StreamingMean(spec)
        case "norm-bound" if clause.max_norm is not None:
            return ClippedMean(spec, clause.max_norm)
        case "norm-bound":
            return RelativelyClippedMean(spec, members, _given(clause.max_norm_ratio))
        case "median":
            return Median(spec, members)
        case "trimmed-mean":
            return TrimmedMean(spec, members, _given(clause.byzantine))
        case "multi-krum":
            return MultiKrum(spec, members, _given(clause.byzantine), _given(clause.selected))


def kept_bytes(clause: Aggregation, spec: AdapterSpec, members: int) -> int:
    """The bytes of updates that the rule keeps at once, besides those that every rule needs."""
    streams = clause.rule == "fedavg" or clause.max_norm is not None
    return 0 if streams else members * spec.nbytes


def _given(setting: T | None) -> T:
    """A setting that the rule needs: the manifest's check has refused a clause without it."""
    if setting is None:
        raise RuntimeError("a rule lacks a setting that the manifest's check asks for")
    return setting
