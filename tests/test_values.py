"""Small values: written in one way, and nothing else is taken."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.errors import Malformed
from superswarm.values import LIMITS, MEMBER_ID, Digest, Measurement


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=48, max_size=48))
def test_round_trip(short: bytes, long: bytes) -> None:
    assert Digest.parse(str(Digest(short))) == Digest(short)
    assert Measurement.parse(str(Measurement(long))) == Measurement(long)
    assert str(Digest(short)).startswith("sha256:" + Digest(short).short)


def test_digest_of() -> None:
    assert Digest.of(b"abc").raw == hashlib.sha256(b"abc").digest()


GOOD = str(Digest.of(b""))


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", GOOD[:-1], GOOD + "0", GOOD + "\n", GOOD.upper(), " " + GOOD, GOOD[7:], "sha384:" + GOOD[7:]],
)
def test_other_ways_to_write_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        Digest.parse(text)
    with pytest.raises(Malformed):
        Measurement.parse(text.replace("256", "384"))


@given(st.text(max_size=90))
def test_random_text_raises_only_our_errors(text: str) -> None:
    for kind in (Digest, Measurement):
        with pytest.raises(Malformed):
            kind.parse(text)


@pytest.mark.parametrize("size", [0, 31, 33, 47, 49])
def test_sizes(size: int) -> None:
    with pytest.raises(Malformed):
        Digest(bytes(size))
    with pytest.raises(Malformed):
        Measurement(bytes(size))


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("a", True), ("a-1", True), ("9", True), ("a" * 32, True)]
    + [(bad, False) for bad in ("", "-a", "a-", "A", "a" * 33, "a b", "a/b", "a\n", "é", "..")],
)
def test_members_names(name: str, *, allowed: bool) -> None:
    assert bool(MEMBER_ID.fullmatch(name)) == allowed


def test_every_limit_is_on() -> None:
    values = [getattr(LIMITS, name) for name in LIMITS.__dataclass_fields__]
    assert all(isinstance(value, int) and value > 0 for value in values)
