"""Files in one stream: what was packed comes out, and an index that lies is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.bundle import LENGTH, Entry, File, pack_files, unpack_files
from superswarm.errors import Error, Malformed, Mismatch, TooLarge
from superswarm.values import LIMITS
from superswarm.wire import pack


def take_any(entries: list[Entry]) -> None:
    """Every index will do."""


def files_of(chunks: Iterable[bytes], *, padded: bool = False) -> dict[str, bytes]:
    unpacked = unpack_files(chunks, "bundle", take_any, padded=padded)
    return {name: b"".join(content) for name, _, content in unpacked}


def plain_of(*fields: Any, body: bytes = b"", length: int | None = None) -> bytes:
    index = pack(*fields)
    return LENGTH.pack(len(index) if length is None else length) + index + body


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"\0\0",
        plain_of("a.md", 5, body=b"1234"),
        plain_of("a.md", 5, body=b"123456"),
        plain_of("a.md", 1, "a.md", 1, body=b"12"),
        plain_of("a.md"),
        plain_of("a.md", "b.md"),
        plain_of(1, "a.md"),
        plain_of("a.md", 2**62, body=b"1"),
        plain_of("a.md", 1, body=b"1", length=2**32 - 1),
        plain_of("a.md", 1, body=b"1", length=3),
    ],
)
def test_indexes_that_lie(plain: bytes) -> None:
    with pytest.raises(Malformed):
        files_of([plain])


def test_only_zeros_may_pad_and_only_where_padding_is_expected() -> None:
    plain = plain_of("a", 1, body=b"1")
    assert files_of([plain, bytes(9)], padded=True) == {"a": b"1"}
    with pytest.raises(Malformed):
        files_of([plain, bytes(9)])
    with pytest.raises(Malformed):
        files_of([plain, bytes(9), b"\0\1"], padded=True)


def test_the_check_of_names_comes_before_any_content() -> None:
    def refuse(entries: list[Entry]) -> None:
        raise Malformed(entries[0][0])

    with pytest.raises(Malformed, match="bad"):
        next(unpack_files([plain_of("bad", 1, body=b"1")], "bundle", refuse))


@pytest.mark.parametrize("content", [b"12", b"1234"])
def test_a_file_that_changes_while_it_is_packed_is_not_packed(content: bytes) -> None:
    with pytest.raises(Mismatch):
        list(pack_files([File("a", 3, [content])]))


def test_too_many_files_are_refused_when_they_are_packed() -> None:
    with pytest.raises(TooLarge):
        list(pack_files([File.of(str(i), []) for i in range(LIMITS.fields // 2 + 1)]))


@given(st.binary(max_size=200), st.integers(1, 50))
def test_random_contents_raise_only_our_errors(plain: bytes, step: int) -> None:
    for attempt in (plain, LENGTH.pack(len(plain)) + plain):
        pieces = [attempt[at : at + step] for at in range(0, len(attempt), step)]
        with pytest.raises(Error):
            files_of(pieces)


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,8}\.json", fullmatch=True), st.binary(max_size=80)), st.integers(1, 30)
)
def test_files_round_trip(files: dict[str, bytes], step: int) -> None:
    plain = b"".join(pack_files([File.of(name, [body[:3], body[3:]]) for name, body in files.items()]))
    pieces = [plain[at : at + step] for at in range(0, len(plain), step)]
    assert files_of(pieces) == files
    unread = unpack_files(pieces, "bundle", take_any)
    assert [name for name, _, _ in unread] == list(files)
