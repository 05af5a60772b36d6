"""A round: one update a member, in time, from the cohort; and no metric that the manifest does not release."""

from __future__ import annotations

import dataclasses
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.consortium.manifest import Aggregation, Manifest
from superswarm.errors import CohortTooSmall, Error, Malformed, NotFinite, Replay, Unavailable, Untrusted, WrongShapes
from superswarm.updates.adapter import Adapter, AdapterSpec
from superswarm.updates.round import MemberMetrics, Round, RoundResult, Update, released
from superswarm.values import MemberId
from superswarm.wire import pack
from tests import consortia

A, B, C, STRANGER = (MemberId(name) for name in ("anna", "bert", "carl", "mallory"))
SPEC = AdapterSpec((("w", (4,)),))
OPENED = 1000.0
DEADLINE = OPENED + 60


def adapter(value: float) -> Adapter:
    return {"w": np.full(4, value, np.float32)}


def rule(minimum: int = 2, weighting: str = "examples") -> Aggregation:
    return Aggregation.model_validate(
        {"rule": "fedavg", "weighting": weighting, "minimum_cohort": minimum, "round_seconds": 60}
    )


def opened(number: int = 3, **settings: Any) -> Round:
    return Round(number=number, cohort=[A, B, C], rule=rule(**settings), spec=SPEC, opened=OPENED)


def update(sender: MemberId, value: float = 1.0, *, number: int = 3, examples: int = 10) -> Update:
    metrics = MemberMetrics(examples=examples, seconds=1.5, train_loss=value, eval_loss=value / 2)
    return Update(round=number, sender=sender, adapter=adapter(value), metrics=metrics)


def test_the_mean_is_weighted_by_examples() -> None:
    one = opened()
    one.accept(update(A, 1, examples=30), at=OPENED)
    one.accept(update(B, 2, examples=10), at=OPENED + 1)
    assert not one.ready(at=OPENED + 2)
    assert one.awaited == {C}
    one.accept(update(C, 6, examples=10), at=OPENED + 2)
    result = one.close(at=OPENED + 2)
    assert result.adapter["w"].tolist() == pytest.approx([2.2] * 4)
    assert result.round == 3
    assert set(result.metrics) == {A, B, C}


def test_equal_weighting_ignores_what_members_claim() -> None:
    one = opened(weighting="equal")
    for sender, value in ((A, 1.0), (B, 2.0), (C, 6.0)):
        one.accept(update(sender, value, examples=2**53), at=OPENED)
    assert one.close(at=OPENED).adapter["w"].tolist() == [3.0] * 4


@pytest.mark.parametrize("number", [0, 1, 2, 4, 2**40])
def test_an_update_of_another_round_is_a_replay(number: int) -> None:
    with pytest.raises(Replay):
        opened().accept(update(A, number=number), at=OPENED)


def test_a_second_update_is_a_replay_and_does_not_count_twice() -> None:
    one = opened()
    one.accept(update(A, 1), at=OPENED)
    with pytest.raises(Replay):
        one.accept(update(A, 100), at=OPENED)
    one.accept(update(B, 3), at=OPENED)
    one.accept(update(C, 2), at=OPENED)
    assert one.close(at=OPENED).adapter["w"].tolist() == [2.0] * 4


def test_a_stranger_is_refused() -> None:
    with pytest.raises(Untrusted) as caught:
        opened().accept(update(STRANGER), at=OPENED)
    assert caught.type is Untrusted


def test_a_refused_update_leaves_its_sender_awaited() -> None:
    one = opened()
    bad = dataclasses.replace(update(A), adapter={"w": np.zeros(5, np.float32)})
    with pytest.raises(WrongShapes):
        one.accept(bad, at=OPENED)
    assert A in one.awaited
    one.accept(update(A), at=OPENED)
    assert one.answered == {A}


def test_it_closes_at_the_deadline_with_those_that_answered() -> None:
    one = opened()
    one.accept(update(A, 1), at=OPENED)
    one.accept(update(B, 3), at=DEADLINE)
    assert not one.ready(at=DEADLINE)
    with pytest.raises(RuntimeError):
        one.close(at=DEADLINE)
    assert one.ready(at=DEADLINE + 0.1)
    with pytest.raises(Unavailable) as caught:
        one.accept(update(C, 5), at=DEADLINE + 0.1)
    assert caught.type is Unavailable
    assert one.close(at=DEADLINE + 0.1).adapter["w"].tolist() == [2.0] * 4


def test_too_few_answers_give_no_adapter() -> None:
    one = opened()
    one.accept(update(A), at=OPENED)
    with pytest.raises(CohortTooSmall):
        one.close(at=DEADLINE + 1)


def test_lost_members_are_not_waited_for() -> None:
    one = opened()
    one.accept(update(A), at=OPENED)
    one.lose(B)
    one.accept(update(C), at=OPENED)
    assert one.close(at=OPENED).metrics.keys() == {A, C}


def test_losing_everybody_is_too_few() -> None:
    one = opened(minimum=1)
    for member in (A, B, C):
        one.lose(member)
    with pytest.raises(CohortTooSmall):
        one.close(at=OPENED)


def test_a_closed_round_takes_nothing() -> None:
    one = opened(minimum=1)
    one.accept(update(A), at=OPENED)
    one.close(at=DEADLINE + 1)
    with pytest.raises(RuntimeError):
        one.accept(update(B), at=OPENED)
    with pytest.raises(RuntimeError):
        one.close(at=DEADLINE + 1)


# --- metrics ------------------------------------------------------------------------------------------------------

finite = st.floats(-1e12, 1e12)
member_metrics = st.builds(
    MemberMetrics,
    examples=st.integers(1, 2**53),
    seconds=st.floats(0, 1e12),
    train_loss=st.none() | finite,
    eval_loss=st.none() | finite,
)


@given(member_metrics)
def test_metrics_round_trip(metrics: MemberMetrics) -> None:
    assert MemberMetrics.parse(metrics.to_bytes()) == metrics


@pytest.mark.parametrize("field", ["seconds", "train_loss", "eval_loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_metrics_are_finite(field: str, value: float) -> None:
    with pytest.raises(NotFinite):
        MemberMetrics(**{"examples": 1, "seconds": 1.0, field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad", [{"examples": 0}, {"examples": 2**53 + 1}, {"examples": -1}, {"seconds": -1.0}, {"train_loss": 1e300}]
)
def test_metrics_that_cannot_be(bad: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        MemberMetrics(**{"examples": 1, "seconds": 1.0} | bad)


def test_a_nan_with_a_payload_carries_nothing_out() -> None:
    odd = struct.pack(">ddQ", 1.0, 1.0, 0x7FF8_0000_DEAD_BEEF)
    with pytest.raises(Malformed):
        MemberMetrics.parse(pack("superswarm/v1/metrics", 5, odd))


@given(st.binary(max_size=100))
def test_random_metrics_raise_only_our_errors(raw: bytes) -> None:
    for attempt in (raw, pack("superswarm/v1/metrics", 1, raw), pack("superswarm/v1/metrics", raw, 1)):
        try:
            MemberMetrics.parse(attempt)
        except Error:
            continue


def closed() -> RoundResult:
    one = opened()
    one.accept(update(A, 1, examples=30), at=OPENED)
    one.accept(update(B, 2, examples=10), at=OPENED)
    one.accept(update(C, 4, examples=40), at=OPENED)
    return one.close(at=OPENED)


ALL = ["train_loss", "eval_loss", "examples", "seconds"]


def manifest(
    release: list[str],
    granularity: str = "aggregate",
    to: tuple[str, ...] = ("members",),
    *,
    members: tuple[MemberId, ...] = (A, B, C),
    minimum: int = 1,
) -> Manifest:
    entries = [consortia.member(name, consortia.DATA) for name in members]
    return consortia.manifest(
        *entries,
        metrics={"release": release, "granularity": granularity, "to": to},
        aggregation=rule(minimum).model_dump(),
    )


def test_aggregates() -> None:
    assert released(closed().metrics, manifest(ALL), to="members") == {
        "train_loss": pytest.approx((30 + 20 + 160) / 80),
        "eval_loss": pytest.approx((15 + 10 + 80) / 80),
        "examples": 80,
        "seconds": 1.5,
    }


def test_nothing_leaves_by_default() -> None:
    silent = consortia.manifest(metrics={})
    assert released(closed().metrics, silent, to="members") == {}
    assert released(closed().metrics, silent, to="operator") == {}


def test_an_audience_that_is_not_named_gets_nothing() -> None:
    for granularity in ("aggregate", "member"):
        assert released(closed().metrics, manifest(ALL, granularity, ("members",)), to="operator") == {}
        assert released(closed().metrics, manifest(ALL, granularity, ("operator",)), to="members") == {}


@pytest.mark.parametrize("field", ALL)
def test_only_listed_fields_leave(field: str) -> None:
    assert released(closed().metrics, manifest([field]), to="members").keys() == {field}
    each = released(closed().metrics, manifest([field], "member"), to="members")
    assert each.keys() == {A, B, C}
    assert all(fields.keys() == {field} for fields in each.values() if isinstance(fields, dict))


def test_aggregate_granularity_names_no_member() -> None:
    assert not {A, B, C} & released(closed().metrics, manifest(ALL), to="members").keys()


def test_a_mean_of_one_of_several_stays_inside() -> None:
    metrics = {
        A: MemberMetrics(examples=5, seconds=1, train_loss=1.0, eval_loss=3.25),
        B: MemberMetrics(examples=5, seconds=1, train_loss=2.0),
    }
    assert released(metrics, manifest(["train_loss", "eval_loss"]), to="members") == {"train_loss": 1.5}


def test_a_relay_that_drops_all_answers_but_one_learns_nothing_of_it() -> None:
    left = {A: closed().metrics[A]}
    assert released(left, manifest(ALL), to="members") == {}
    two = {name: closed().metrics[name] for name in (A, B)}
    assert released(two, manifest(ALL, minimum=3), to="members") == {}
    assert released(two, manifest(ALL, minimum=2), to="members").keys() == set(ALL)


def test_whoever_trains_alone_sees_their_own() -> None:
    alone = manifest(["eval_loss"], members=(A,))
    assert released({A: closed().metrics[A]}, alone, to="members") == {"eval_loss": 0.5}


@given(st.dictionaries(st.sampled_from([A, B, C]), member_metrics, min_size=1))
def test_no_metrics_of_a_member_stop_the_aggregate(metrics: dict[MemberId, MemberMetrics]) -> None:
    assert all(math.isfinite(value) for value in released(metrics, manifest(ALL), to="members").values())


def test_of_nobody_nothing_is_said() -> None:
    assert released({}, manifest(ALL), to="members") == {}
