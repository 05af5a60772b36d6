"""Masks hide a contribution, cancel in pairs, and take every length of the ring."""

from __future__ import annotations

import numpy as np
import pytest

from superswarm.crypto.keystream import BLOCK
from superswarm.errors import WrongShapes
from superswarm.updates.secure.check import PRIME
from superswarm.updates.secure.masks import AT_ONCE, Contribution
from superswarm.updates.secure.ring import Code, Ring
from superswarm.values import Digest

KEYS = [bytes([i]) * 32 for i in range(AT_ONCE + 3)]


def code(size: int, members: int = 3) -> Code:
    return Code(ring=Ring.fitting(members, 12), parameters=size, clip_norm=1.0, rotation=Digest.of(b""))


def contribution(agreed: Code) -> Contribution:
    values = np.random.default_rng(0).integers(0, 100, agreed.length).astype(agreed.ring.dtype)
    return Contribution(values, 17, PRIME - 1)


@pytest.mark.parametrize("size", [1, 64, BLOCK // 2 + 1, BLOCK * 2])
@pytest.mark.parametrize("members", [3, 1000])
def test_what_is_added_comes_off_again(size: int, members: int) -> None:
    agreed = code(size, members)
    plain, masked = contribution(agreed), contribution(agreed)
    masked.apply([(key, 1) for key in KEYS])
    assert (masked.values == plain.values).mean() < 0.1
    assert (masked.weight, masked.tag) != (plain.weight, plain.tag)
    masked.apply([(key, -1) for key in reversed(KEYS)])
    assert masked.to_bytes() == plain.to_bytes()


def test_masks_of_a_pair_cancel_in_the_sum() -> None:
    agreed = code(1000)
    first, second, total = contribution(agreed), contribution(agreed), Contribution.zero(agreed)
    first.apply([(KEYS[0], 1)])
    second.apply([(KEYS[0], -1)])
    total.add(first)
    total.add(second)
    assert total.values.tolist() == (2 * contribution(agreed).values).tolist()
    assert (total.weight, total.tag) == (34, PRIME - 2)


def test_a_masked_update_is_uniform_over_the_ring() -> None:
    """Each byte of 2 MiB of masked zeros: a chi-squared of 255 degrees of freedom, far inside six deviations."""
    masked = Contribution.zero(code(1 << 20))
    masked.apply([(KEYS[1], 1)])
    counts = np.bincount(masked.values.view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 6 * np.sqrt(2 * 255)


def test_bytes_go_back_and_forth() -> None:
    agreed = code(100)
    mine = contribution(agreed)
    found = Contribution.parse(mine.to_bytes(), agreed)
    assert (found.to_bytes(), found.weight, found.tag) == (mine.to_bytes(), 17, PRIME - 1)


@pytest.mark.parametrize("change", [-1, 1, 2])
def test_another_length_is_refused(change: int) -> None:
    agreed = code(100)
    raw = contribution(agreed).to_bytes()
    with pytest.raises(WrongShapes):
        Contribution.parse(raw[:change] if change < 0 else raw + bytes(change), agreed)


def test_a_tag_outside_the_field_is_refused() -> None:
    agreed = code(100)
    with pytest.raises(WrongShapes):
        Contribution.parse(Contribution.zero(agreed).to_bytes()[:-8] + PRIME.to_bytes(8, "little"), agreed)


def test_secrets_are_not_printed() -> None:
    assert "17" not in repr(contribution(code(100)))
