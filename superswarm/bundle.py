"""Several files as one stream of bytes: an index of names and sizes, then the contents. No time, owner or mode.

    index length 4 | packed names and sizes | the contents, one after the other

Which names are fit to be written to a disk, and in which order they stand, is for each use to say: reading takes a
`check` of the index, and runs it before anything that follows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from superswarm.errors import Malformed, Mismatch, TooLarge
from superswarm.values import LIMITS
from superswarm.wire import Field, pack, unpack_list

LENGTH: Final = struct.Struct(">I")
Piece: TypeAlias = bytes | memoryview
Entry: TypeAlias = tuple[str, int]
"""A file's name and its size in bytes."""


@dataclass(frozen=True, slots=True)
class File:
    """A file to pack. Its content is read once, when its turn comes."""

    name: str
    size: int
    content: Iterable[Piece]

    @classmethod
    def of(cls, name: str, parts: Sequence[Piece]) -> Self:
        """A file whose content is in memory."""
        return cls(name, sum(len(part) for part in parts), parts)


def pack_index(entries: Iterable[Entry]) -> bytes:
    """What stands before the contents. Raises TooLarge for more files than any reader takes."""
    fields: list[Field] = [field for entry in entries for field in entry]
    index = pack(*fields)
    if len(fields) > LIMITS.fields or len(index) > LIMITS.document_bytes:
        raise TooLarge(f"{len(fields) // 2} files are too many: at most {LIMITS.fields // 2} go together")
    return LENGTH.pack(len(index)) + index


def pack_files(files: Sequence[File]) -> Iterator[Piece]:
    """Index and contents, piece by piece. Raises Mismatch where a content has not the size that the index says."""
    yield pack_index((file.name, file.size) for file in files)
    for file in files:
        missing = file.size
        for piece in file.content:
            missing -= len(piece)
            if missing < 0:
                break
            yield piece
        if missing:
            raise Mismatch(f"{file.name} grew or shrank while it was read")


def unpack_files(
    chunks: Iterable[Piece], what: str, check: Callable[[list[Entry]], None], *, padded: bool = False
) -> Iterator[tuple[str, int, Iterator[Piece]]]:
    """Invert `pack_files` in constant memory: each file's name and size, and its content piece by piece.

    A piece is valid until the next one is asked for. After the last file nothing follows, or, if `padded`, zeros.
    Raises what `check` raises for the index, and Malformed or TooLarge for anything that `pack_files` would not have
    written; `what` names it in messages.
    """
    plain = _Plain(iter(chunks), what)
    (length,) = LENGTH.unpack(b"".join(plain.take(LENGTH.size)))
    if length > LIMITS.document_bytes:
        raise TooLarge(f"a {what} claims an index of {length} bytes")
    entries = _entries(unpack_list(b"".join(plain.take(length)), limit=LIMITS.document_bytes), what)
    check(entries)
    for name, size in entries:
        content = plain.take(size)
        yield name, size, content
        for _ in content:  # what the caller left unread
            pass
    for piece in plain.rest():
        if not padded or piece.count(0) != len(piece):
            raise Malformed(f"a {what} holds more than its index says")


def _entries(fields: list[Field], what: str) -> list[Entry]:
    pairs = list(zip(fields[::2], fields[1::2], strict=False))
    entries = [(name, size) for name, size in pairs if isinstance(name, str) and isinstance(size, int)]
    if 2 * len(entries) != len(fields) or len(dict(entries)) != len(entries):
        raise Malformed(f"a {what}'s index is not a list of distinct files")
    return entries


class _Plain:
    """Reads plaintext, which comes in chunks, in other portions."""

    def __init__(self, chunks: Iterator[Piece], what: str) -> None:
        self._chunks = chunks
        self._what = what
        self._left = memoryview(b"")

    def take(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes, in pieces."""
        while size:
            if not self._more():
                raise Malformed(f"a {self._what} holds less than its index says")
            piece = self._left[:size]
            self._left = self._left[len(piece) :]
            size -= len(piece)
            yield piece

    def rest(self) -> Iterator[bytes]:
        """What is left; reads, and so authenticates, up to the stream's end."""
        while self._more():
            yield bytes(self._left)
            self._left = memoryview(b"")

    def _more(self) -> bool:
        while not self._left:
            following = next(self._chunks, None)
            if following is None:
                return False
            self._left = memoryview(following)
        return True
