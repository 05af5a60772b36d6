"""One round of the federation, as a pure state: who may answer, who has, what comes of it. Time is passed in."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

from superswarm.consortium.manifest import Aggregation, Manifest, Metrics
from superswarm.errors import CohortTooSmall, Malformed, NotFinite, Replay, Unavailable, Untrusted
from superswarm.updates.adapter import Adapter, AdapterSpec
from superswarm.updates.aggregate import HEAVIEST
from superswarm.updates.rule import aggregate_for
from superswarm.values import MemberId
from superswarm.wire import pack, unpack

Audience: TypeAlias = Literal["members", "operator"]
LABEL: Final = "superswarm/v1/metrics"
FLOATS = struct.Struct(">ddd")
LARGEST = 1e12  # seconds, or nats a token: sums of these never overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberMetrics:
    """What one trainer measured in one round. Secret until `released`."""

    examples: int  # sequences trained on, at most 2**53
    seconds: float  # that training and evaluating took
    train_loss: float | None = None  # mean over the round's tokens; None where nothing was trained
    eval_loss: float | None = None  # of the adapter that came in, on the member's own held-out split

    def __post_init__(self) -> None:
        floats = (self.seconds, self.train_loss or 0.0, self.eval_loss or 0.0)
        if not all(map(math.isfinite, floats)):
            raise NotFinite("a metric is NaN or infinite")
        if not 0 < self.examples <= HEAVIEST or self.seconds < 0 or max(map(abs, floats)) > LARGEST:
            raise Malformed("a metric is larger or smaller than any that could be measured")

    def to_bytes(self) -> bytes:
        losses = [math.nan if loss is None else loss for loss in (self.train_loss, self.eval_loss)]
        return pack(LABEL, self.examples, FLOATS.pack(self.seconds, *losses))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Invert `to_bytes`; only its exact bytes are taken. Raises Malformed or NotFinite."""
        match unpack(data, str, int, bytes, limit=4096):
            case [label, int(examples), bytes(floats)] if label == LABEL and len(floats) == FLOATS.size:
                seconds, train, held_out = FLOATS.unpack(floats)
            case _:
                raise Malformed("metrics do not have the expected fields")
        metrics = cls(
            examples=examples,
            seconds=seconds,
            train_loss=None if math.isnan(train) else train,
            eval_loss=None if math.isnan(held_out) else held_out,
        )
        if metrics.to_bytes() != data:
            raise Malformed("metrics are not in canonical form")
        return metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What one trainer made of one round, opened and decoded inside the aggregator's TEE."""

    round: int
    sender: MemberId  # as the channel authenticated it
    adapter: Adapter
    metrics: MemberMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """What a closed round leaves: what the rule made of the updates, and the metrics of those that answered."""

    round: int
    adapter: Adapter
    metrics: Mapping[MemberId, MemberMetrics]


class Round:
    """One round: takes one update from each member of the cohort, until its deadline.

    What it holds of the updates is the rule's affair: the running mean, or all of them.
    """

    def __init__(
        self, *, number: int, cohort: Iterable[MemberId], rule: Aggregation, spec: AdapterSpec, opened: float
    ) -> None:
        self.number = number
        self.cohort = frozenset(cohort)
        self.rule = rule
        self.deadline = opened + rule.round_seconds  # on the clock of `opened`
        self._aggregate = aggregate_for(rule, spec, len(self.cohort))
        self._metrics: dict[MemberId, MemberMetrics] = {}
        self._lost: set[MemberId] = set()
        self._closed = False

    @property
    def answered(self) -> frozenset[MemberId]:
        return frozenset(self._metrics)

    @property
    def awaited(self) -> frozenset[MemberId]:
        """Members that may still answer."""
        return self.cohort - self.answered - self._lost

    def accept(self, update: Update, *, at: float) -> None:
        """Take one update into the aggregate; nothing changes if it is refused."""
        if self._closed:
            raise RuntimeError("accept() after close()")
        # (1) The sender trains in this run.
        if update.sender not in self.cohort:
            raise Untrusted(f"{update.sender} is not in the cohort of round {self.number}")
        # (2) The update was made for this round, and is the sender's first.
        if update.round != self.number:
            raise Replay(f"an update of {update.sender} was made for round {update.round}, now {self.number}")
        if update.sender in self._metrics:
            raise Replay(f"{update.sender} has already answered round {self.number}")
        # (3) It came in time.
        if at > self.deadline:
            raise Unavailable(f"the update of {update.sender} came after the deadline of round {self.number}")
        # (4) Its tensors are the cohort's, and finite.
        weight = update.metrics.examples if self.rule.weighting == "examples" else 1
        self._aggregate.add(update.adapter, weight)
        self._metrics[update.sender] = update.metrics

    def lose(self, member: MemberId) -> None:
        """Wait no longer for a member that failed or was refused."""
        self._lost.add(member)

    def ready(self, *, at: float) -> bool:
        """Whether there is nothing left to wait for."""
        return not self.awaited or at > self.deadline

    def close(self, *, at: float) -> RoundResult:
        """End the round with those that answered. Raises CohortTooSmall if the manifest wants more."""
        if self._closed or not self.ready(at=at):
            raise RuntimeError("close() twice, or while members may still answer")
        self._closed = True
        if len(self._metrics) < self.rule.minimum_cohort:
            raise CohortTooSmall(
                f"round {self.number}: {len(self._metrics)} of {len(self.cohort)} members answered, "
                f"and the manifest asks for {self.rule.minimum_cohort}"
            )
        return RoundResult(round=self.number, adapter=self._aggregate.result(), metrics=dict(self._metrics))


Released: TypeAlias = Mapping[str, float | Mapping[str, float]]
"""Metric to value, or member to metric to value."""


def released(metrics: Mapping[MemberId, MemberMetrics], manifest: Manifest, *, to: Audience) -> Released:
    """What the manifest lets out of the TEE, and to whom: every metric that leaves goes through here.

    Granularity "member" gives each member's own fields. "aggregate" gives means of losses weighted by examples, the
    total of examples, and the longest seconds: each over the minimum cohort at least, and never over one of several
    members, so that a relay which drops the others' answers learns nothing of the one that is left. With two members
    each can tell the other's share, and so can differences between rounds with different cohorts.
    """
    clause = manifest.metrics
    if to not in clause.to:
        return {}
    if clause.granularity == "member":
        return {member: _fields(metrics[member], clause) for member in sorted(metrics)}
    least = max(manifest.aggregation.minimum_cohort, min(2, len(manifest.trainers)))
    return _aggregate(list(metrics.values()), clause, least)


def _fields(metrics: MemberMetrics, clause: Metrics) -> dict[str, float]:
    values = {name: getattr(metrics, name) for name in clause.release}
    return {name: value for name, value in values.items() if value is not None}


def _aggregate(metrics: list[MemberMetrics], clause: Metrics, least: int) -> dict[str, float]:
    fields: dict[str, float] = {}
    for name in clause.release:
        parts = [(getattr(m, name), m.examples) for m in metrics if getattr(m, name) is not None]
        if len(parts) < least:
            continue
        match name:
            case "train_loss" | "eval_loss":
                fields[name] = math.fsum(x * n for x, n in parts) / sum(n for _, n in parts)
            case "examples":
                fields[name] = sum(n for _, n in parts)
            case "seconds":
                fields[name] = max(x for x, _ in parts)
    return fields
