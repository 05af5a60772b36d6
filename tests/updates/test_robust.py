"""Robust rules: right, in any order, in blocks, like Flower's; and what members that send anything can do to them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from superswarm.consortium.manifest import Aggregation
from superswarm.errors import Malformed, NotFinite, TooLarge, WrongShapes
from superswarm.updates import robust
from superswarm.updates.adapter import Adapter, AdapterSpec
from superswarm.updates.aggregate import Aggregate, ClippedMean, StreamingMean
from superswarm.updates.robust import Median, MultiKrum, RelativelyClippedMean, TrimmedMean
from superswarm.updates.rule import aggregate_for, kept_bytes
from superswarm.values import LIMITS

Rows: TypeAlias = NDArray[np.float32]  # (n, P): one update a row
Make: TypeAlias = Callable[[AdapterSpec, int], Aggregate]

F = 2
RULES: dict[str, Make] = {
    "median": Median,
    "trimmed-mean": lambda spec, n: TrimmedMean(spec, n, F),
    "multi-krum": lambda spec, n: MultiKrum(spec, n, F, 3),
    "norm-bound": lambda spec, n: ClippedMean(spec, 1.0),
    "norm-bound, relative": lambda spec, n: RelativelyClippedMean(spec, n, 1.5),
}
EDGE = float(np.finfo(np.float32).max)


def split(row: Rows) -> Adapter:
    """A vector as an adapter of two tensors."""
    return {"a": row[:3].reshape(3, 1), "b": row[3:]}


def apply(make: Make, rows: Rows, weights: list[float] | None = None) -> Rows:
    spec = AdapterSpec.of(split(rows[0]))
    rule = make(spec, len(rows))
    for row, weight in zip(rows, weights or [1.0] * len(rows), strict=True):
        rule.add(split(row), weight)
    result = rule.result()
    spec.check(result)
    return np.concatenate([result["a"].reshape(-1), result["b"]])


def draw(seed: int, n: int, parameters: int = 5000) -> Rows:
    return np.random.default_rng(seed).standard_t(3, (n, parameters)).astype(np.float32)


def plain(name: str, rows: Rows) -> NDArray[np.float64]:
    """The rule as its paper writes it, over the whole matrix in float64."""
    x, n = rows.astype(np.float64), len(rows)
    norms = np.linalg.norm(x, axis=1)
    match name:
        case "median":
            return np.median(x, axis=0)
        case "trimmed-mean":
            return np.sort(x, axis=0)[F : n - F].mean(axis=0)
        case "norm-bound":
            return np.mean(x * np.minimum(1, 1 / norms)[:, None], axis=0)
        case "norm-bound, relative":
            return np.mean(x * np.minimum(1, 1.5 * np.median(norms) / norms)[:, None], axis=0)
    distances = np.array([[np.square(a - b).sum() for b in x] for a in x])
    scores = [np.sort(np.delete(row, i))[: n - F - 2].sum() for i, row in enumerate(distances)]
    chosen: NDArray[np.float64] = x[np.argsort(scores)[:3]].mean(axis=0)
    return chosen


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(7, 12))
def test_equals_the_paper_over_the_whole_matrix(name: str, seed: int, n: int) -> None:
    rows = draw(seed, n, 300)
    np.testing.assert_allclose(apply(RULES[name], rows), plain(name, rows), rtol=3e-7, atol=1e-9)


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), order=st.permutations(range(8)))
def test_the_order_of_members_does_not_matter(name: str, seed: int, order: list[int]) -> None:
    rows = draw(seed, 8, 300)
    np.testing.assert_array_max_ulp(apply(RULES[name], rows[order]), apply(RULES[name], rows), maxulp=1)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("size", [1, 7, 4999, 5000, 5001])
def test_the_size_of_blocks_does_not_matter(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = draw(5, 9)
    usual = apply(RULES[name], rows)
    monkeypatch.setattr(robust, "BLOCK", size)
    np.testing.assert_array_equal(apply(RULES[name], rows), usual)


@pytest.mark.parametrize("name", RULES)
def test_a_result_may_be_asked_again_and_layout_does_not_matter(name: str) -> None:
    spec = AdapterSpec((("w", (40, 50)),))
    one, two = RULES[name](spec, 7), RULES[name](spec, 7)
    for row in draw(3, 7, 2000):
        one.add({"w": row.reshape(40, 50)}, 1)
        two.add({"w": np.asfortranarray(row.reshape(40, 50))}, 1)
    np.testing.assert_array_equal(one.result()["w"], two.result()["w"])
    np.testing.assert_array_equal(one.result()["w"], one.result()["w"])


@pytest.mark.parametrize("name", RULES)
def test_what_was_added_may_change_afterwards(name: str) -> None:
    rows = draw(3, 7)
    spec = AdapterSpec.of(split(rows[0]))
    usual, rule = apply(RULES[name], rows), RULES[name](spec, 7)
    room = np.empty_like(rows[0])
    for row in rows:
        room[:] = row
        rule.add(split(room), 1)
    assert np.array_equal(rule.result()["b"], usual[3:])


# --- Flower's arithmetic ------------------------------------------------------------------------------------------


def test_the_median_is_flowers() -> None:
    from flwr.server.strategy.aggregate import aggregate_median

    for n in (6, 7):
        rows = draw(n, n)
        np.testing.assert_allclose(
            apply(Median, rows), aggregate_median([([row], 1) for row in rows])[0], rtol=2e-7, atol=1e-9
        )


def test_the_trimmed_mean_is_flowers() -> None:
    from flwr.serverapp.strategy.fedtrimmedavg import trim_mean

    rows = draw(1, 10)
    np.testing.assert_allclose(
        apply(RULES["trimmed-mean"], rows), trim_mean(rows, (F + 0.5) / 10), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("selected", [1, 3, 6])
def test_multi_krum_selects_as_flower_does(selected: int) -> None:
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.multikrum import select_multikrum
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    rows = draw(2, 10)
    rows[3] *= 50
    contents = [
        RecordDict({"arrays": ArrayRecord({"w": Array(row)}), "metrics": MetricRecord({"num-examples": 1})})
        for row in rows.astype(np.float64)
    ]
    theirs = aggregate_arrayrecords(select_multikrum(contents, F, selected), "num-examples")["w"].numpy()
    ours = apply(lambda spec, n: MultiKrum(spec, n, F, selected), rows)
    np.testing.assert_allclose(ours, theirs, rtol=3e-7, atol=1e-8)


def test_clipping_is_flowers() -> None:
    from flwr.supercore.differential_privacy import compute_clip_model_update

    rows = draw(4, 6)
    rows[0] /= 1e4  # short already
    clipped = []
    for row in rows.astype(np.float64):
        arrays = [row.copy()]
        compute_clip_model_update(arrays, [np.zeros_like(row)], 1.0)
        clipped.append(arrays[0])
    np.testing.assert_allclose(apply(RULES["norm-bound"], rows), np.mean(clipped, axis=0), rtol=3e-7, atol=1e-9)


# --- members that send anything -----------------------------------------------------------------------------------

ATTACKS: dict[str, Callable[[Rows, int], Rows]] = {
    "huge": lambda honest, f: np.full((f, honest.shape[1]), EDGE, np.float32),
    "both ends": lambda honest, f: np.stack(
        [np.full(honest.shape[1], EDGE * (-1) ** i, np.float32) for i in range(f)]
    ),
    "opposite": lambda honest, f: np.repeat(-1e6 * honest.mean(axis=0, keepdims=True), f, axis=0),
    "identical": lambda honest, f: np.repeat(np.float32(30) + honest[:1], f, axis=0),
    "nothing": lambda honest, f: np.zeros((f, honest.shape[1]), np.float32),
}


def cluster(seed: int, n: int) -> Rows:
    """Honest updates: one direction, and noise of a tenth."""
    rng = np.random.default_rng(seed)
    return (1 + 0.1 * rng.standard_normal((n, 400))).astype(np.float32)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ["median", "trimmed-mean", "multi-krum"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), order=st.permutations(range(7)))
def test_up_to_f_members_do_not_move_the_result_out_of_the_honest_range(
    name: str, attack: str, seed: int, order: list[int]
) -> None:
    honest = cluster(seed, 7 - F)
    rows = np.concatenate([honest, ATTACKS[attack](honest, F)])[order]
    make = RULES[name] if name != "multi-krum" else lambda spec, n: MultiKrum(spec, n, F, 3)
    result = apply(make, rows)
    assert (result >= honest.min(axis=0)).all()
    assert (result <= honest.max(axis=0)).all()
    mean = apply(lambda spec, n: StreamingMean(spec), rows)
    assert not (mean <= honest.max(axis=0)).all() or not (mean >= honest.min(axis=0)).all()


@pytest.mark.parametrize(
    ("make", "bad"),
    [
        (lambda spec, n: Median(spec, n), 4),
        (lambda spec, n: TrimmedMean(spec, n, F), F + 1),
        (lambda spec, n: MultiKrum(spec, n, F, 3), 5),
    ],
    ids=["median", "trimmed-mean", "multi-krum"],
)
def test_more_members_than_tolerated_can_steer_it(make: Make, bad: int) -> None:
    honest = cluster(1, 7 - bad)
    rows = np.concatenate([honest, ATTACKS["identical"](honest, bad)])
    assert apply(make, rows).mean() > 5


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ["norm-bound", "norm-bound, relative"])
def test_a_bounded_norm_bounds_what_each_member_moves(name: str, attack: str) -> None:
    honest = cluster(1, 5)
    rows = np.concatenate([honest, ATTACKS[attack](honest, 2)])
    bound = 1.0 if name == "norm-bound" else 1.5 * float(np.linalg.norm(honest, axis=1).max())
    with_them = apply(RULES[name], rows)
    without = np.concatenate([honest, np.zeros((2, 400), np.float32)])
    if name == "norm-bound, relative":  # the same bound, without what they sent
        size = 1.5 * float(np.median(np.linalg.norm(rows.astype(np.float64), axis=1)))
        assert size <= bound
        expected = apply(lambda spec, n: ClippedMean(spec, size), without)
    else:
        expected = apply(RULES[name], without)
    assert np.linalg.norm(with_them - expected) <= 2 / 7 * bound * (1 + 1e-5)


@pytest.mark.parametrize("name", ["norm-bound", "norm-bound, relative"])
def test_forged_weights_do_not_break_the_bound(name: str) -> None:
    honest = cluster(1, 5)
    rows = np.concatenate([honest, np.full((1, 400), EDGE, np.float32)])
    bound = 1.0 if name == "norm-bound" else 1.5 * float(np.linalg.norm(honest, axis=1).max())
    assert np.linalg.norm(apply(RULES[name], rows, [1.0] * 5 + [2.0**53])) <= bound * (1 + 1e-6)


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "multi-krum"])
def test_forged_weights_mean_nothing_to_the_others(name: str) -> None:
    rows = draw(1, 7)
    np.testing.assert_array_equal(apply(RULES[name], rows, [1.0] * 6 + [2.0**53]), apply(RULES[name], rows))


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), 2**53 + 1])
@pytest.mark.parametrize("name", ["norm-bound", "norm-bound, relative"])
def test_weights_that_cannot_be(name: str, weight: float) -> None:
    rule = RULES[name](AdapterSpec.of(split(draw(0, 1)[0])), 3)
    with pytest.raises(Malformed):
        rule.add(split(draw(0, 1)[0]), weight)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda row: split(np.full_like(row, np.nan)), NotFinite),
        (lambda row: split(np.full_like(row, np.inf)), NotFinite),
        (lambda row: split(row[:-1]), WrongShapes),
        (lambda row: split(row.astype(np.float64)), WrongShapes),
        (lambda row: {"b": row[3:]}, WrongShapes),
    ],
)
def test_a_refused_update_leaves_no_trace(name: str, spoil: Any, error: type[Exception]) -> None:
    rows = draw(6, 7)
    rule = RULES[name](AdapterSpec.of(split(rows[0])), 7)
    for row in rows:
        with pytest.raises(error):
            rule.add(spoil(row), 1)
        rule.add(split(row), 1)
    np.testing.assert_array_equal(rule.result()["b"], apply(RULES[name], rows)[3:])


@pytest.mark.parametrize("name", RULES)
def test_the_largest_values_do_not_overflow(name: str) -> None:
    rows = np.concatenate([np.full((4, 9), EDGE, np.float32), np.full((4, 9), -EDGE, np.float32)])
    assert np.isfinite(apply(RULES[name], rows)).all()


def test_updates_of_nothing_are_clipped_to_nothing() -> None:
    assert not apply(RULES["norm-bound, relative"], np.zeros((5, 9), np.float32)).any()
    assert not apply(RULES["norm-bound"], np.zeros((5, 9), np.float32)).any()


# --- choice and memory --------------------------------------------------------------------------------------------


def clause(rule: str, **settings: Any) -> Aggregation:
    fields: dict[str, Any] = {"rule": rule, "weighting": "equal", "minimum_cohort": 7, "round_seconds": 60}
    return Aggregation.model_validate(fields | settings)


CLAUSES: list[tuple[Aggregation, type]] = [
    (clause("fedavg"), StreamingMean),
    (clause("norm-bound", max_norm=1.0), ClippedMean),
    (clause("norm-bound", max_norm_ratio=2.0), RelativelyClippedMean),
    (clause("median"), Median),
    (clause("trimmed-mean", byzantine=2), TrimmedMean),
    (clause("multi-krum", byzantine=2, selected=3), MultiKrum),
]


@pytest.mark.parametrize(("chosen", "kind"), CLAUSES, ids=[kind.__name__ for _, kind in CLAUSES])
def test_the_manifest_chooses_the_rule(chosen: Aggregation, kind: type) -> None:
    spec = AdapterSpec((("w", (8,)),))
    rule = aggregate_for(chosen, spec, 9)
    assert type(rule) is kind
    rows = draw(1, 9, 8)
    for row in rows:
        rule.add({"w": row}, 1)
    assert rule.result()["w"].shape == (8,)
    assert (kept_bytes(chosen, spec, 9) > 0) == (kind in (RelativelyClippedMean, Median, TrimmedMean, MultiKrum))


def test_a_cohort_whose_updates_are_too_many_to_keep_is_refused_before_it_trains() -> None:
    spec = AdapterSpec((("w", (2**28,)),))  # 1 GiB
    small = AdapterSpec((("w", (2**14,)),))
    for chosen, _ in CLAUSES:
        aggregate_for(chosen, small, LIMITS.members)
        if kept_bytes(chosen, spec, 1000):
            with pytest.raises(TooLarge, match="fedavg"):
                aggregate_for(chosen, spec, 1 + LIMITS.kept_bytes // spec.nbytes)


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "multi-krum", "norm-bound, relative"])
def test_memory_is_the_updates_and_at_most_four_more(name: str) -> None:
    members, update = 12, {"w": np.ones(1 << 20, np.float32)}  # 4 MiB each
    spec = AdapterSpec.of(update)
    tracemalloc.start()
    rule = RULES[name](spec, members)
    for _ in range(members):
        rule.add(update, 1)
    rule.result()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (members + 4) * spec.nbytes


def test_more_updates_than_members_are_our_own_fault() -> None:
    rule = Median(AdapterSpec((("w", (8,)),)), 1)
    rule.add({"w": np.zeros(8, np.float32)}, 1)
    with pytest.raises(RuntimeError):
        rule.add({"w": np.zeros(8, np.float32)}, 1)


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "multi-krum"])
def test_too_few_updates_are_our_own_fault(name: str) -> None:
    """The manifest's check and the minimum cohort exclude it."""
    spec = AdapterSpec((("w", (8,)),))
    rule = RULES[name](spec, 7)
    for _ in range(0 if name == "median" else 2 * F):
        rule.add({"w": np.zeros(8, np.float32)}, 1)
    with pytest.raises(RuntimeError):
        rule.result()
