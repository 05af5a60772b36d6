"""Canonical bytes: injective, strict to read, and the same for ever."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.errors import Error, Malformed, TooLarge, VersionMismatch
from superswarm.values import LIMITS, PROTOCOL_VERSION, Digest, MemberId, Role
from superswarm.wire import (
    MAGIC,
    Header,
    Parcel,
    join,
    pack,
    parse_party,
    party,
    require_version,
    split,
    unpack,
    unpack_list,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
fields = st.one_of(st.binary(max_size=20), texts, st.integers(0, 2**63 - 1))
lists = st.lists(fields, max_size=6)


def typed(values: list[Any]) -> list[tuple[type, Any]]:
    """0 and b"" and "" are different fields."""
    return [(type(value), value) for value in values]


@given(lists)
def test_round_trip(values: list[Any]) -> None:
    assert typed(unpack_list(pack(*values))) == typed(values)
    assert typed(unpack(pack(*values), *(type(v) for v in values))) == typed(values)


@given(lists, lists)
def test_different_lists_have_different_bytes(one: list[Any], two: list[Any]) -> None:
    assert (pack(*one) == pack(*two)) == (typed(one) == typed(two))


@given(lists, st.data())
def test_boundaries_between_fields_count(values: list[Any], data: st.DataObject) -> None:
    text = data.draw(texts)
    at = data.draw(st.integers(0, len(text)))
    assert pack(*values, text[:at], text[at:]) != pack(*values, text)
    assert pack(*values, pack(text)) != pack(*values, text)


@given(lists, lists)
def test_no_encoding_begins_another(one: list[Any], two: list[Any]) -> None:
    a, b = pack(*one), pack(*two)
    assert a == b or not (a.startswith(b) or b.startswith(a))


@pytest.mark.parametrize(
    ("values", "hexed"),
    [
        ([], "53535701 00000000"),
        (
            [b"", "", 0],
            "53535701 00000003 62 0000000000000000 73 0000000000000000 69 0000000000000008 0000000000000000",
        ),
        (
            ["superswarm/v1", b"\x00\xff", 2**63 - 1, "é"],
            (
                "53535701 00000004 73 000000000000000d 7375706572737761726d2f7631 62 0000000000000002 00ff"
                "69 0000000000000008 7fffffffffffffff 73 0000000000000002 c3a9"
            ),
        ),
    ],
)
def test_known_answers(values: list[Any], hexed: str) -> None:
    """What was signed once must verify for ever: these bytes never change."""
    assert pack(*values) == bytes.fromhex(hexed)


@pytest.mark.parametrize("value", [-1, 2**63, True, None, 1.0, bytearray(b"x"), memoryview(b"x"), [b"x"]])
def test_what_cannot_be_packed_is_our_own_fault(value: Any) -> None:
    with pytest.raises(TypeError):
        pack(value)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(Malformed):
        pack("\ud800")


@given(lists, st.data())
def test_every_other_bytes_are_refused_or_another_list(values: list[Any], data: st.DataObject) -> None:
    raw = bytearray(pack(*values))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        changed = unpack_list(bytes(raw))
    except Error:
        return
    assert pack(*changed) == raw
    assert typed(changed) != typed(values)


@given(st.binary(max_size=120))
def test_random_bytes_raise_only_our_errors(raw: bytes) -> None:
    for attempt in (raw, MAGIC + raw, MAGIC + b"\0\0\0\1" + raw, MAGIC + b"\0\0\0\1s" + raw):
        for parse in (unpack_list, split, Header.parse):
            try:
                parse(attempt)
            except Error:
                continue


@given(lists, st.integers(1, 40))
def test_cut_or_longer_is_refused(values: list[Any], count: int) -> None:
    raw = pack(*values)
    for attempt in (raw[:-count], raw + bytes(count)):
        with pytest.raises(Malformed):
            unpack_list(attempt)


@pytest.mark.parametrize(
    "raw",
    [
        MAGIC + struct.pack(">IcQ", 1, b"b", 2**30),
        MAGIC + struct.pack(">IcQ", 1, b"b", 2**64 - 1),
        MAGIC + struct.pack(">IcQ", 1, b"i", 9) + bytes(9),
        MAGIC + struct.pack(">IcQ", 1, b"i", 8) + b"\x80" + bytes(7),
        MAGIC + struct.pack(">IcQ", 1, b"x", 0),
        MAGIC + struct.pack(">IcQ", 1, b"s", 1) + b"\xff",
        MAGIC + struct.pack(">IcQ", 1, b"s", 3) + b"\xed\xa0\x80",
        MAGIC + struct.pack(">I", 2**32 - 1),
        b"SSW\x02" + bytes(4),
        b"",
    ],
)
def test_claims_that_are_not_true(raw: bytes) -> None:
    with pytest.raises(Malformed):
        unpack_list(raw)


def test_sizes_are_limited() -> None:
    with pytest.raises(TooLarge):
        unpack_list(pack(bytes(100)), limit=100)
    with pytest.raises(TooLarge):
        unpack_list(MAGIC + struct.pack(">I", LIMITS.fields + 1))
    with pytest.raises(TooLarge):
        Parcel(bytes(LIMITS.head_bytes + 1))


@pytest.mark.parametrize("kinds", [(bytes,), (str, bytes), (bytes, str, int), (bytes, int), ()])
def test_fields_of_other_types_are_refused(kinds: tuple[type, ...]) -> None:
    with pytest.raises(Malformed):
        unpack(pack(b"x", "y"), *kinds)


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_join_and_split(items: list[bytes]) -> None:
    assert split(join(items)) == items


def test_split_takes_only_bytes() -> None:
    with pytest.raises(Malformed):
        split(pack(b"x", "y"))


HEADER = Header(
    manifest=Digest.of(b"m"),
    run="run-1",
    round=2,
    sender="aggregator",
    receiver="trainer/a",
    kind="train",
    sequence=3,
)


@pytest.mark.parametrize(
    "change",
    [
        {"manifest": Digest.of(b"n")},
        {"run": "run-2"},
        {"round": 3},
        {"sender": "trainer/a"},
        {"receiver": "trainer/b"},
        {"kind": "evaluate"},
        {"sequence": 4},
    ],
)
def test_a_header_speaks_for_all_its_fields(change: dict[str, Any]) -> None:
    other = dataclasses.replace(HEADER, **change)
    assert other.to_bytes() != HEADER.to_bytes()
    assert Header.parse(other.to_bytes()) == other


def test_headers_of_another_version_say_who_must_upgrade() -> None:
    for version, side in ((PROTOCOL_VERSION + 1, "this side"), (PROTOCOL_VERSION - 1, "the peer")):
        with pytest.raises(VersionMismatch, match=f"upgrade {side}"):
            Header.parse(pack(version, "fields of the future"))
        with pytest.raises(VersionMismatch):
            require_version(version)
    for nothing in (None, "1", b"1"):
        with pytest.raises(Malformed):
            require_version(nothing)


@pytest.mark.parametrize(
    ("role", "member", "name"),
    [
        (Role.AGGREGATOR, None, "aggregator"),
        (Role.TRAINER, MemberId("a-1"), "trainer/a-1"),
        (Role.NODE, MemberId("b"), "node/b"),
    ],
)
def test_parties(role: Role, member: MemberId | None, name: str) -> None:
    assert party(role, member) == name
    assert parse_party(name) == (role, member)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "trainer",
        "trainer/",
        "aggregator/",
        "aggregator/a",
        "node/A",
        "node/a/b",
        "nodes/a",
        "trainer/a\n",
        "/a",
        "a",
    ],
)
def test_names_of_nobody(name: str) -> None:
    with pytest.raises(Malformed):
        parse_party(name)
