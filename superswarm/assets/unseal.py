"""Unsealing: from ciphertext that anybody may host to files, in one pass and constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from superswarm.assets.chunks import ChunkReader, hashers
from superswarm.assets.container import AssetHead, AssetHeader, check_entries, read_head
from superswarm.bundle import unpack_files
from superswarm.crypto.stream import CHUNK, Chunks
from superswarm.errors import Mismatch
from superswarm.values import Digest


class Sink(Protocol):
    """Where files go that nobody may use yet: a hidden folder, or memory. It is discarded when `unseal` raises."""

    def create(self, name: str, size: int) -> AbstractContextManager[BinaryIO]:
        """Open the file `name` to be written from start to end. Names may have folders: `a/b.jsonl`.

        What is passed to `write` is valid during that call only, as with every file of Python's.
        """
        ...


def unseal(src: BinaryIO, key: bytes, expected: Digest, sink: Sink) -> AssetHeader:
    """Decrypt the asset that `src` holds into `sink`. Nothing in `sink` counts before this returns.

    Every chunk is opened as it is read, but that shows only that somebody with the key made it, and the owner is not
    the only one who ever has it. That it is the asset which the manifest names shows at the end: hence one pass, over
    bytes that whoever hosts them could change between two.

    Raises Mismatch for another asset, CannotOpen for another key or altered chunks, Malformed for what is none or was
    cut, and what `src` and `sink` raise.
    """
    # (1) It parses.
    head = read_head(src)
    # (2) The key is the one that it was sealed under, with this header.
    chunks = Chunks(key, head.prologue)
    with hashers() as pool:
        # (3) Each chunk was sealed under that key, at this place.
        reader = ChunkReader(src, head, pool)
        opened = _opened(reader, chunks)
        # (4) Its files have names that cannot leave the sink, and there is nothing else.
        _write(opened, sink)
        # (5) All of it is what was agreed on.
        require_digest(head, reader.root(), expected)
    return head.header


def sealed_digest(src: BinaryIO) -> tuple[AssetHead, Digest]:
    """The digest of the sealed asset that `src` holds, which takes no key. Raises Malformed for what is none."""
    head = read_head(src)
    with hashers() as pool:
        reader = ChunkReader(src, head, pool)
        for _ in reader:
            pass
        return head, head.digest(reader.root())


def require_digest(head: AssetHead, root: bytes, expected: Digest) -> None:
    """Raise Mismatch unless these chunks under this head are the asset with the expected digest."""
    digest = head.digest(root)
    if digest != expected:
        raise Mismatch(f"the sealed asset's digest is {digest}, and {expected} is expected: it is another asset")


def _opened(reader: ChunkReader, chunks: Chunks) -> Iterator[memoryview]:
    """Each chunk's plaintext, valid until the next one is asked for."""
    buffer = memoryview(bytearray(CHUNK))
    for index, sealed, last in reader:
        yield chunks.open_into(index, sealed, buffer, last=last)


def _write(opened: Iterator[memoryview], sink: Sink) -> None:
    for name, size, content in unpack_files(opened, "sealed asset", check_entries, padded=True):
        with sink.create(name, size) as file:
            for piece in content:
                file.write(piece)
