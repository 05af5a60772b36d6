"""The check of a sum: exact for honest sums of every width, and failing for every other sum that can be made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.errors import CannotOpen, Malformed
from superswarm.updates.secure.check import PRIME, ROW, ROWS, CheckVector, open_value, seal_value

SEED, OTHER = bytes(range(32)), bytes(32)
NAMES = ("alice", "bob", "carol")


def vectors(size: int, dtype: Any = np.uint16, limit: int = 20_000) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(size)
    return [rng.integers(0, limit, size).astype(dtype) for _ in NAMES]


def slow_dot(check: CheckVector, values: np.ndarray[Any, Any]) -> int:
    """The definition, with Python's integers."""
    limbs = values.dtype.itemsize // 2
    width = ROW // limbs
    rows, columns, total = check._known, check._columns.tolist(), 0
    for i, value in enumerate(values.tolist()):
        row, column = divmod(i, width)
        total += rows[row] * columns[column] * value
    return total % PRIME


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("size", [1, 5, ROW // 4, ROW, ROW + 1, ROW * ROWS + 17, 3 * ROW * ROWS])
def test_the_product_is_exact(dtype: Any, size: int) -> None:
    top = min(np.iinfo(dtype).max, PRIME - 1)
    values = np.random.default_rng(size).integers(0, top, size, dtype=dtype, endpoint=True)
    values[: size // 2] = top  # the largest sums that a row can have
    check = CheckVector(SEED, 1, b"context")
    assert check.dot(values) == slow_dot(check, values)


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=50), st.integers(1, 3))
def test_it_is_linear(numbers: list[int], factor: int) -> None:
    values, check = np.array(numbers, np.uint32), CheckVector(SEED, 1, b"")
    assert check.dot(values * np.uint32(factor)) == factor * check.dot(values) % PRIME


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_an_honest_sum_passes_and_any_other_fails(dtype: Any) -> None:
    xs, check = vectors(10_000, dtype), CheckVector(SEED, 3, b"run")
    tags = sum(check.tag(name, x) for name, x in zip(NAMES, xs, strict=True)) % PRIME
    total = sum(xs[1:], xs[0])
    assert check.accepts(total, tags, NAMES)
    for i in (0, 9_999):
        changed = total.copy()
        changed[i] += 1
        assert not check.accepts(changed, tags, NAMES)
    assert not check.accepts(total, tags, NAMES[:2])
    assert not check.accepts(total, (tags + 1) % PRIME, NAMES)


def test_the_sum_of_weights_is_checked_too() -> None:
    xs, check, weights = vectors(500), CheckVector(SEED, 3, b"run"), (1, 2**40, 7)
    tags = sum(check.tag(name, x, w) for name, x, w in zip(NAMES, xs, weights, strict=True))
    total = sum(xs[1:], xs[0])
    assert check.accepts(total, tags, NAMES, sum(weights))
    assert not check.accepts(total, tags, NAMES, sum(weights) + 1)
    assert not check.accepts(total, tags, NAMES)


def test_one_members_vector_does_not_pass_as_the_sum() -> None:
    xs, check = vectors(500), CheckVector(SEED, 3, b"run")
    tags = [check.tag(name, x) for name, x in zip(NAMES, xs, strict=True)]
    assert not check.accepts(xs[0], sum(tags), NAMES)
    assert not check.accepts(xs[0], tags[0], NAMES)


def test_multiples_of_the_sum_and_of_the_tags_do_not_pass() -> None:
    """Linearity alone would let 2X with twice the tags pass; the pads do not."""
    xs, check = vectors(500), CheckVector(SEED, 3, b"run")
    tags = sum(check.tag(name, x) for name, x in zip(NAMES, xs, strict=True))
    total = sum(xs[1:], xs[0])
    assert not check.accepts(total * np.uint16(2), 2 * tags, NAMES)
    assert not check.accepts(total * np.uint16(0), 0, NAMES)


@pytest.mark.parametrize(
    "other", [CheckVector(OTHER, 3, b"run"), CheckVector(SEED, 4, b"run"), CheckVector(SEED, 3, b"other run")]
)
def test_tags_of_another_round_run_or_group_do_not_pass(other: CheckVector) -> None:
    xs, check = vectors(500), CheckVector(SEED, 3, b"run")
    tags = sum(other.tag(name, x) for name, x in zip(NAMES, xs, strict=True))
    assert not check.accepts(sum(xs[1:], xs[0]), tags, NAMES)


def test_what_is_not_an_unsigned_integer_is_our_bug() -> None:
    with pytest.raises(TypeError):
        CheckVector(SEED, 1, b"").dot(np.zeros(4, np.float32))


def test_an_integer_that_the_field_would_reduce_is_refused() -> None:
    """Adding p to a value would change the sum and not its product."""
    with pytest.raises(Malformed):
        CheckVector(SEED, 1, b"").dot(np.array([PRIME], np.uint64))


def test_sealed_values_open_in_their_context_only() -> None:
    sealed = seal_value(SEED, b"round 1", "alice", 123)
    assert open_value(SEED, b"round 1", "alice", sealed) == 123
    for seed, context, member in (
        (OTHER, b"round 1", "alice"),
        (SEED, b"round 2", "alice"),
        (SEED, b"round 1", "bob"),
    ):
        with pytest.raises(CannotOpen):
            open_value(seed, context, member, sealed)
