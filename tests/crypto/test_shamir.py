"""Shamir's secret sharing: any k of n, never k - 1, and nothing that is no share."""

from __future__ import annotations

import contextlib
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.crypto import shamir
from superswarm.crypto.shamir import PRIME, VALUE_BYTES, Share, combine, split
from superswarm.errors import Malformed
from superswarm.values import LIMITS

SECRET = bytes(range(32))


def test_every_choice_of_k_shares_gives_the_secret() -> None:
    shares = split(SECRET, 3, 5)
    for chosen in combinations(shares, 3):
        assert combine(chosen, 3, 32) == SECRET
    assert combine(shares, 3, 32) == SECRET


@given(secret=st.binary(min_size=1, max_size=64), data=st.data())
def test_any_secret_any_threshold(secret: bytes, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    threshold = data.draw(st.integers(1, count))
    shares = data.draw(st.permutations(split(secret, threshold, count)))
    assert combine(shares[:threshold], threshold, len(secret)) == secret


def test_the_largest_cohort() -> None:
    shares = split(SECRET, LIMITS.members, LIMITS.members)
    assert combine(shares, LIMITS.members, 32) == SECRET


def test_fewer_than_k_shares_fit_every_secret() -> None:
    """Perfect secrecy: for the k - 1 shares that are known, each secret has exactly one polynomial."""
    known = split(SECRET, 3, 5)[:2]
    for other in (bytes(32), b"\xff" * 32, SECRET):
        points = {0: int.from_bytes(other, "big")} | {s.index: int.from_bytes(s.value, "big") for s in known}
        value = _interpolate(points, 3)
        third = Share(3, value.to_bytes(VALUE_BYTES, "big"))
        assert combine([*known, third], 3, 32) == other


def test_fewer_than_k_shares_are_refused_or_give_something_else() -> None:
    shares = split(SECRET, 3, 5)
    with pytest.raises(Malformed, match="too few"):
        combine(shares[:2], 3, 32)
    assert _combined(shares[:2]) != SECRET


def test_a_share_of_another_secret_does_not_give_it() -> None:
    shares, others = split(SECRET, 2, 3), split(bytes(32), 2, 3)
    assert _combined([shares[0], others[1]]) not in (SECRET, bytes(32))


def test_a_share_that_comes_twice_is_refused() -> None:
    share = split(SECRET, 2, 3)[0]
    with pytest.raises(Malformed, match="twice"):
        combine([share, share], 2, 32)


def test_shares_survive_their_bytes() -> None:
    for share in split(SECRET, 2, 3):
        assert Share.parse(share.to_bytes()) == share


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, bytes(66)),
        (LIMITS.members + 1, bytes(66)),
        (1, bytes(65)),
        (1, PRIME.to_bytes(66, "big")),
        (1, b"\xff" * 66),
    ],
)
def test_what_is_no_share(index: int, value: bytes) -> None:
    with pytest.raises(Malformed):
        Share(index, value)


@pytest.mark.parametrize(
    ("secret", "threshold", "count"),
    [(b"", 1, 1), (bytes(65), 1, 1), (SECRET, 0, 3), (SECRET, 4, 3), (SECRET, 1, LIMITS.members + 1)],
)
def test_what_cannot_be_shared(secret: bytes, threshold: int, count: int) -> None:
    with pytest.raises(Malformed):
        split(secret, threshold, count)


@given(st.binary(max_size=120))
def test_parsing_raises_our_errors_only(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        Share.parse(data)


def test_no_share_is_printed() -> None:
    share = split(SECRET, 2, 2)[0]
    assert "value" not in repr(share)


def _combined(shares: list[Share]) -> bytes | None:
    """What two shares give; None where it is refused."""
    try:
        return combine(shares, 2, 32)
    except Malformed:
        return None


def _interpolate(points: dict[int, int], x: int) -> int:
    """Lagrange at any x, written apart from the code under test."""
    total = 0
    for i, yi in points.items():
        term = yi
        for j in points:
            if j != i:
                term = term * (x - j) * pow(i - j, -1, shamir.PRIME) % shamir.PRIME
        total += term
    return total % shamir.PRIME
