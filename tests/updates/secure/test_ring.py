"""The ring encoding: exact sums, small errors on heavy tails, and nothing that wraps or hides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.errors import Malformed, NotFinite
from superswarm.updates.secure import ring
from superswarm.updates.secure.ring import LARGEST, MIXED, PART, SMALLEST, Code, Ring, norm
from superswarm.values import Digest

Vector = np.ndarray[Any, np.dtype[np.float32]]
ROTATION = Digest.of(b"round 1")


def code(size: int, clip_norm: float, members: int = 3, bits: int = 12) -> Code:
    return Code(ring=Ring.fitting(members, bits), parameters=size, clip_norm=clip_norm, rotation=ROTATION)


def updates(count: int, size: int, *, shared: float = 0.5) -> list[Vector]:
    """Heavy-tailed updates whose scale differs from layer to layer, as LoRA's do."""
    rng = np.random.default_rng(count)
    scale = np.repeat(np.exp(rng.normal(0, 1, 256)), -(-size // 256))[:size] * 1e-3
    base = rng.standard_normal(size)
    return [((shared * base + 0.8 * rng.standard_t(4, size)) * scale).astype(np.float32) for _ in range(count)]


def relative_error(found: Vector, wanted: Vector) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize(("members", "payload", "bits"), [(1, 12, 16), (16, 12, 16), (17, 12, 32), (1024, 20, 32)])
def test_the_ring_widens_with_the_cohort(members: int, payload: int, bits: int) -> None:
    ring = Ring.fitting(members, payload)
    assert ring.bits == bits
    assert members * 2 * ring.half < 2**bits, "no sum wraps"
    assert 2 * ring.half >= 2**payload - 2


def test_a_cohort_that_overflows_every_ring_is_refused_in_advance() -> None:
    with pytest.raises(Malformed, match="overflow"):
        Ring.fitting(2**13, 20)


@pytest.mark.parametrize("members", [2, 3, 16])
def test_two_bytes_a_parameter_at_a_thousandth_of_error(members: int) -> None:
    xs = updates(members, 1 << 17, shared=0.0)
    agreed = code(1 << 17, max(norm(x) for x in xs), members)
    encoded = [agreed.encode(x, 1.0).values for x in xs]
    mean = agreed.decode(sum(encoded[1:], encoded[0]), members, members)
    assert relative_error(mean, np.mean(xs, axis=0)) < 1e-3
    assert encoded[0].nbytes == 2 * (1 << 17)


def test_without_the_rotation_the_error_is_far_larger() -> None:
    """What a bound for the largest value costs where tails are heavy."""
    xs = updates(10, 1 << 17)
    levels = 2**12 - 1
    bound = max(float(np.abs(x).max()) for x in xs)
    rounded = [np.rint(x / bound * levels / 2) * bound * 2 / levels for x in xs]
    assert relative_error(np.mean(rounded, axis=0), np.mean(xs, axis=0)) > 5e-3


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000, 65_535, 65_536, 70_001, 2 * PART + 1])
@pytest.mark.parametrize("members", [2, 40])
def test_any_size_comes_back(size: int, members: int) -> None:
    xs = [np.random.default_rng(i).standard_normal(size).astype(np.float32) for i in range(members)]
    agreed = code(size, max(norm(x) for x in xs) * 4, members, 16)
    total = sum((agreed.encode(x, 1.0).values for x in xs[1:]), agreed.encode(xs[0], 1.0).values)
    mean, scale = agreed.decode(total, members, members), math.sqrt(size)
    assert mean.shape == (size,)
    assert np.linalg.norm(mean - np.mean(xs, axis=0)) < 1e-3 * max(norm(x) for x in xs) + 1e-4 / scale


@pytest.mark.parametrize("size", [4097 * 16, 65_536 * 2 - 1, 300_000, 2 * PART + 1])
@pytest.mark.parametrize("members", [2, 40])
def test_long_vectors_come_back_too(size: int, members: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where columns are rotated together: here already in vectors that are not long."""
    monkeypatch.setattr(ring, "MANY", 2)
    assert code(size, 1.0, members).mixed == MIXED
    test_any_size_comes_back(size, members)


def test_only_where_decoding_stays_exact_are_columns_rotated_together() -> None:
    long = LARGEST * ring.MANY
    assert code(long, 1.0, 512).mixed == MIXED
    assert code(long, 1.0, 1024).mixed == 1
    assert code(long - LARGEST, 1.0, 3).mixed == 1


def test_in_a_long_vector_a_value_may_stand_out_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4 million values some are hundreds of times the root mean square, where tails are heavy."""
    size = LARGEST * ring.MANY
    x = np.random.default_rng(1).standard_normal(size, np.float32)
    x[12345] = 400.0
    agreed = code(size, norm(x))
    encoded = agreed.encode(x, 1.0)
    assert encoded.clipped < 50
    assert agreed.length < 1.015 * size
    assert relative_error(agreed.decode(encoded.values, 1, 1.0), x) < 1e-3
    monkeypatch.setattr(ring, "MANY", 2**30)
    assert agreed.encode(x, 1.0).clipped > 2000, "a column by itself has no room for it"


def test_neighbours_that_are_alike_do_not_add_up_where_columns_are_rotated_together() -> None:
    """The same value in all columns of a row, which one sign for all of them would gather in one column."""
    size = LARGEST * ring.MANY
    rows = np.random.default_rng(2).standard_normal((LARGEST, 1), np.float32)
    x = np.repeat(rows, size // LARGEST, axis=1).reshape(-1)
    agreed = code(size, norm(x))
    assert agreed.encode(x, 1.0).clipped < 100


def test_weights_scale_before_rounding() -> None:
    xs, weights = updates(3, 5000), (10, 20, 40)
    agreed = code(5000, max(norm(x) for x in xs))
    encoded = [agreed.encode(x, w / 40).values for x, w in zip(xs, weights, strict=True)]
    mean = agreed.decode(sum(encoded[1:], encoded[0]), 3, sum(weights) / 40)
    assert relative_error(mean, np.average(xs, axis=0, weights=weights).astype(np.float32)) < 1e-3


def test_rounding_has_no_bias_however_small_the_update() -> None:
    """A thousandth of a level, on every coordinate: rounding to the nearest would lose it entirely."""
    size = 1 << 17
    tiny = np.full(size, 1e-6, np.float32)
    agreed = code(size, 1.0, 16)
    means = [
        float(np.vdot(c.decode(c.encode(tiny, 1.0).values, 1, 1.0), tiny) / np.vdot(tiny, tiny))
        for seed in range(8)
        for c in [Code(ring=agreed.ring, parameters=size, clip_norm=1.0, rotation=Digest.of(bytes([seed])))]
    ]
    assert abs(np.mean(means) - 1) < 0.3


def test_a_long_update_is_shrunk_and_the_member_knows() -> None:
    (x,) = updates(1, 5000)
    encoded = code(5000, norm(x) / 4).encode(x, 1.0)
    assert encoded.shrunk == pytest.approx(0.25, rel=1e-5)
    mean = code(5000, norm(x) / 4).decode(encoded.values, 1, 1.0)
    assert relative_error(mean, x / 4) < 1e-3


def test_what_is_cut_is_counted_and_never_wraps() -> None:
    """An update made to be one coordinate after the rotation exceeds any bound for alike ones."""
    agreed = code(1024 * 4, 1.0)
    spike = np.zeros((1024, 4), np.float32)
    spike[:, 0] = agreed._signs()[:, 0] / 32.0  # of norm 1, in a single column, aligned with the signs
    encoded = agreed.encode(spike.reshape(-1), 1.0)
    assert encoded.clipped == 1
    assert encoded.values.max() <= 2 * agreed.ring.half
    assert agreed.encode(-spike.reshape(-1), 1.0).clipped == 1


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 3e38])
def test_what_is_not_finite_never_leaves(poison: float) -> None:
    x = np.zeros(1000, np.float32)
    x[77] = poison
    with pytest.raises(NotFinite):
        code(1000, 1.0).encode(x, 1.0)


@pytest.mark.parametrize("bad", [np.zeros(999, np.float32), np.zeros((10, 100), np.float32), np.zeros(1000)])
def test_another_size_or_type_never_leaves(bad: Any) -> None:
    with pytest.raises(Malformed):
        code(1000, 1.0).encode(bad, 1.0)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.0001, math.nan, math.inf])
def test_a_share_outside_its_range_never_leaves(share: float) -> None:
    with pytest.raises(Malformed):
        code(1000, 1.0).encode(np.zeros(1000, np.float32), share)


def test_a_sum_of_other_length_type_or_count_is_refused() -> None:
    agreed = code(1000, 1.0)
    good = np.zeros(agreed.length, np.uint16)
    for total, members, shares in (
        (good[:-1], 3, 3.0),
        (good.astype(np.uint32), 3, 3.0),
        (good, 4, 4.0),
        (good, 0, 0.0),
        (good, 2, 2.5),
        (good, 2, math.nan),
    ):
        with pytest.raises(Malformed):
            agreed.decode(total, members, shares)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(SMALLEST * 3, 1), (LARGEST * 17, 1), (LARGEST * 17, MIXED)]))
def test_decoding_is_the_same_in_any_order_of_summation(seed: int, given: tuple[int, int]) -> None:
    """What a matrix product sums in an order of its own, integers make exact: compared with Python's integers."""
    size, mixed = given
    members = 1000 if mixed == 1 else 500
    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(ring, "MANY", 2 if mixed > 1 else ring.MANY)
        agreed = code(size, 1.0, members)
        assert agreed.mixed == mixed
        total = np.random.default_rng(seed).integers(0, members * 2 * agreed.ring.half, agreed.length, np.uint32)
        mean = agreed.decode(total, members, float(members))
        width = min(agreed.columns, PART // agreed.block)
        together = total[: agreed.block * width].reshape(agreed.block, width)[:, :mixed]
        dither = agreed._stream("dither").take(agreed.block * width, np.dtype("u1"))
        fractions = dither.reshape(agreed.block, -1)[:, :mixed]
        zero = 512 * agreed.ring.half - 256
        doubled = [
            512 * int(v) - members * (zero + 2 * int(d) + 1)
            for v, d in zip(together.flat, fractions.flat, strict=True)
        ]
        first = sum(doubled) / 512  # the first row of H is all ones
        root = math.sqrt(agreed.block * mixed)
        assert mean[0] == np.float32(first * (int(agreed._signs()[0, 0]) * (agreed.step / members / root)))
