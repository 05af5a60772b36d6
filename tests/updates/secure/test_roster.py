"""Rosters and sets of members: one encoding each, and nothing else is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.errors import Malformed
from superswarm.updates.secure import messages
from superswarm.updates.secure.roster import Roster
from superswarm.values import Digest, MemberId

NAMES = tuple(MemberId(f"m{i}") for i in range(11))
ROSTER = Roster(
    manifest=Digest.of(b"manifest"),
    run="run-1",
    attempt=2,
    number=3,
    entries=tuple((name, Digest.of(name.encode())) for name in NAMES),
)
KINDS = [
    messages.Introduce,
    messages.Introduction,
    messages.Passed,
    messages.Acquaint,
    messages.Acquainted,
    messages.Advertised,
    messages.Keys,
    messages.Shared,
    messages.Deal,
    messages.Masked,
    messages.Survivors,
    messages.Signed,
    messages.Agreed,
    messages.Unmasked,
    messages.Total,
]


def test_a_roster_goes_back_and_forth() -> None:
    assert Roster.parse(ROSTER.to_bytes()) == ROSTER
    assert Roster.parse(ROSTER.to_bytes()).digest == ROSTER.digest


@given(st.binary(max_size=200), st.integers(0, 600))
def test_anything_else_is_malformed(junk: bytes, at: int) -> None:
    raw = ROSTER.to_bytes()
    at %= len(raw)
    for data in (junk, raw[:at], raw + b"\0", raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]):
        try:
            found = Roster.parse(data)
        except Malformed:
            continue
        assert found.to_bytes() == data
        assert found != ROSTER


@given(st.sets(st.sampled_from(NAMES)))
def test_a_set_goes_back_and_forth(members: set[MemberId]) -> None:
    assert ROSTER.read(ROSTER.mark(members)) == members
    assert len(ROSTER.mark(members)) == 2


@pytest.mark.parametrize("marks", [b"", b"\1", b"\0\0\1", b"\x08\0", b"\xff\xff"])
def test_a_set_of_another_length_or_beyond_the_roster_is_malformed(marks: bytes) -> None:
    with pytest.raises(Malformed):
        ROSTER.read(marks)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
@given(junk=st.binary(max_size=100))
def test_messages_take_nothing_else(kind: type[messages.Message], junk: bytes) -> None:
    with pytest.raises(Malformed):
        kind.parse(junk)


def test_every_message_has_a_kind_of_its_own() -> None:
    assert len({kind.KIND for kind in KINDS}) == len(KINDS)
