"""Federated averaging: right, in any order, in flat memory, and deaf to what it must refuse."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.errors import Malformed, NotFinite, WrongShapes
from superswarm.updates.adapter import Adapter, AdapterSpec
from superswarm.updates.aggregate import StreamingMean

SHAPES = {"a": (3, 5), "b": (70_001,)}
weights = st.one_of(st.integers(1, 2**53), st.floats(1e-3, 2.0**53))


def make(seed: int, scale: float = 1.0) -> Adapter:
    rng = np.random.default_rng(seed)
    return {name: (rng.standard_t(3, shape) * scale).astype(np.float32) for name, shape in SHAPES.items()}


def mean_of(updates: list[tuple[Adapter, float]]) -> Adapter:
    mean = StreamingMean(AdapterSpec.of(updates[0][0]))
    for adapter, weight in updates:
        mean.add(adapter, weight)
    return mean.result()


def small(values: list[float]) -> Adapter:
    return {"x": np.array(values, np.float32)}


@given(
    st.lists(
        st.tuples(st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=2, max_size=2), weights), min_size=1
    )
)
def test_equals_exact_arithmetic(pairs: list[tuple[list[float], float]]) -> None:
    mean = mean_of([(small(values), weight) for values, weight in pairs])["x"]
    total = sum(Fraction(weight) for _, weight in pairs)
    for column in range(2):
        exact = sum(Fraction(values[column]) * Fraction(weight) for values, weight in pairs) / total
        size = sum(abs(Fraction(values[column])) * Fraction(weight) for values, weight in pairs) / total
        allowed = abs(exact) * Fraction(2**-23) + size * Fraction(2**-45) + Fraction(2**-149)
        assert abs(Fraction(float(mean[column])) - exact) <= allowed


def test_equals_the_plain_formula() -> None:
    updates = [(make(seed), float(seed * 37 + 1)) for seed in range(8)]
    mean = mean_of(updates)
    for name in SHAPES:
        plain = np.average([a[name].astype(np.float64) for a, _ in updates], axis=0, weights=[w for _, w in updates])
        np.testing.assert_allclose(mean[name], plain, rtol=1.2e-7, atol=0)
        assert mean[name].dtype == np.float32
        assert mean[name].shape == SHAPES[name]


def test_order_does_not_matter_but_for_the_last_bit() -> None:
    updates = [(make(seed), 10.0**seed) for seed in range(6)]
    one, two = mean_of(updates), mean_of(updates[::-1])
    for name in SHAPES:
        np.testing.assert_array_max_ulp(one[name], two[name], maxulp=1)


def test_one_update_is_its_own_mean() -> None:
    update = make(1)
    mean = mean_of([(update, 7)])
    np.testing.assert_array_max_ulp(mean["b"], update["b"], maxulp=0)


def test_the_largest_values_and_weights_do_not_overflow() -> None:
    edge = float(np.finfo(np.float32).max)
    assert mean_of([(small([edge, -edge]), 2.0**53)] * 5)["x"].tolist() == [edge, -edge]


def test_layout_of_the_arrays_does_not_matter() -> None:
    update = make(3)
    turned = {name: np.asfortranarray(array) for name, array in update.items()}
    np.testing.assert_array_equal(mean_of([(update, 2)])["a"], mean_of([(turned, 2)])["a"])


@pytest.mark.parametrize("weight", [0, -1, -0.5, float("nan"), float("inf"), -float("inf"), 2**53 + 1, 1e300])
def test_weights_that_cannot_be(weight: float) -> None:
    mean = StreamingMean(AdapterSpec.of(make(0)))
    with pytest.raises(Malformed):
        mean.add(make(0), weight)
    assert mean.count == 0


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"a": np.zeros((3, 5), np.float32)}, WrongShapes),
        (make(0) | {"c": np.zeros(1, np.float32)}, WrongShapes),
        (make(0) | {"a": np.zeros((5, 3), np.float32)}, WrongShapes),
        (make(0) | {"a": np.zeros((3, 5))}, WrongShapes),
        (make(0) | {"b": np.full(70_001, np.nan, np.float32)}, NotFinite),
        (make(0) | {"b": np.full(70_001, -np.inf, np.float32)}, NotFinite),
    ],
)
def test_a_refused_update_leaves_no_trace(bad: Any, error: type[Exception]) -> None:
    mean = StreamingMean(AdapterSpec.of(make(0)))
    mean.add(make(1), 3)
    before = mean.result()
    with pytest.raises(error):
        mean.add(bad, 3)
    assert mean.count == 1
    assert all(np.array_equal(mean.result()[name], before[name]) for name in SHAPES)


def test_a_mean_of_nothing_is_our_own_fault() -> None:
    with pytest.raises(RuntimeError):
        StreamingMean(AdapterSpec.of(make(0))).result()


def test_memory_is_flat_in_members_and_at_most_three_updates() -> None:
    update = {"w": np.ones(1 << 21, np.float32)}  # 8 MiB
    spec = AdapterSpec.of(update)

    def peak(members: int) -> int:
        tracemalloc.start()
        mean = StreamingMean(spec)
        for _ in range(members):
            mean.add(update, 5)
        mean.result()
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    few, many = peak(2), peak(24)
    assert many < few * 1.02
    assert many < 3.1 * spec.nbytes
