"""Sealing: files become ciphertext under a key of their own, in one pass and constant memory.

A sealing that was interrupted goes on under the same key and salt, which is safe only if no chunk is ever encrypted
to two plaintexts: two GCM ciphertexts under one nonce give away the difference of their plaintexts and the
authentication key (Joux 2006). The source may have changed meanwhile, and ciphertext that this machine lost in a
crash may have been seen by whoever holds its disk. So a `Journal` durably has the hash of each sealed chunk *before*
the chunk is let out of memory, and a sealing that goes on seals all chunks again, in memory: encryption under one
nonce is a function, so the same hash means the same plaintext, and the same ciphertext is written once more or left.
Another hash means that the source changed; then nothing is let out, and the sealing starts over under a fresh key.
"""

from __future__ import annotations

import base64
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Protocol, Self

from superswarm.assets.chunks import AHEAD, hashers
from superswarm.assets.container import AssetHead, AssetHeader, Kind, size_of
from superswarm.assets.key import AssetKey
from superswarm.bundle import Entry, File, Piece, pack_files
from superswarm.consortium.documents import decode_base64, dump_json, load_json, require_fields
from superswarm.crypto.kdf import KEY_BYTES
from superswarm.crypto.merkle import MerkleRoot, leaf_hash
from superswarm.crypto.stream import CHUNK, SEALED_CHUNK, Chunks, Prologue
from superswarm.errors import Malformed, Mismatch
from superswarm.values import LIMITS

FORMAT: Final = "superswarm-sealing/1"
WHAT: Final = "an unfinished sealing"
BATCH: Final = AHEAD  # chunks that the journal takes at once: a disk's flush is slow


class SourceChanged(Mismatch):
    """What is to be sealed is not what a sealing under this key began with."""


class Journal(Protocol):
    """Remembers which ciphertext each index was used for."""

    def recall(self, index: int) -> bytes | None:
        """The hash recorded for a chunk, 32 bytes, or None if there never was one."""
        ...

    def record(self, first: int, leaves: Sequence[bytes]) -> None:
        """Keep the hashes of chunks `first`, `first` + 1, …; they are durable when this returns."""
        ...


class _Once:
    """The journal of a sealing that cannot be gone on with, since its key is lost when it is interrupted."""

    def recall(self, index: int) -> bytes | None:
        return None

    def record(self, first: int, leaves: Sequence[bytes]) -> None:
        """Nothing is kept."""


@dataclass(frozen=True, slots=True)
class Sealing:
    """Header, salt and key of one asset: with its journal, what it takes to go on after an interruption."""

    head: AssetHead
    key: bytes = field(repr=False)

    @classmethod
    def new(cls, entries: Iterable[Entry], *, kind: Kind, owner: str, version: str, demo: bool) -> Self:
        """A fresh key and id for files of these names and sizes. Raises Malformed or TooLarge."""
        header = AssetHeader.new(entries, kind=kind, owner=owner, version=version, demo=demo)
        key = secrets.token_bytes(KEY_BYTES)
        return cls(AssetHead(Chunks.new(key, header.to_json()).prologue, header), key)

    def to_bytes(self) -> bytes:
        """In the clear: for a file that is sealed, and for nothing else."""
        prologue = self.head.prologue
        fields = {
            "salt": prologue.salt,
            "commitment": prologue.commitment,
            "header": prologue.header,
            "key": self.key,
        }
        return dump_json({"format": FORMAT, **{name: base64.b64encode(raw).decode() for name, raw in fields.items()}})

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Invert `to_bytes`. Raises Malformed, or CannotOpen where the parts do not belong together."""
        data = load_json(raw, WHAT, limit=LIMITS.mail_bytes)
        require_fields(data, WHAT, FORMAT, {"salt", "commitment", "header", "key"})
        match data:
            case {"salt": str(salt), "commitment": str(commitment), "header": str(header), "key": str(key)}:
                public = [decode_base64(text, WHAT) for text in (salt, commitment, header)]
                prologue = Prologue(salt=public[0], commitment=public[1], header=public[2])
                sealing = cls(AssetHead(prologue, AssetHeader.parse(prologue.header)), decode_base64(key, WHAT))
            case _:
                raise Malformed(f"{WHAT} does not have the expected fields")
        Chunks(sealing.key, prologue)
        return sealing


def seal_once(
    files: Sequence[File], dst: BinaryIO, *, kind: Kind, owner: str, version: str, demo: bool = False
) -> AssetKey:
    """Seal `files`, sorted by name, to `dst` under a fresh key. If it is interrupted, it can only start over."""
    entries = [(file.name, file.size) for file in files]
    sealing = Sealing.new(entries, kind=kind, owner=owner, version=version, demo=demo)
    return seal(files, sealing, dst, _Once())


def seal(files: Sequence[File], sealing: Sealing, dst: BinaryIO, journal: Journal) -> AssetKey:
    """Seal `files`, sorted by name, to `dst`, and return the asset's key with the digest for the manifest.

    `journal` is the one that this sealing had from its beginning: another one lets a nonce be used twice.
    `dst` takes the whole sealed file from its first byte on. Raises SourceChanged where a chunk is not the one that
    the journal has for its index, Mismatch where a file is not as long as it was said to be, and what reading the
    files and writing to `dst` raise. Until it returns, what `dst` has got is only a beginning.
    """
    head, tree = sealing.head, MerkleRoot()
    if size_of([(file.name, file.size) for file in files]) != head.header.size:
        raise SourceChanged("what is to be sealed has another size than its sealing began with")
    dst.write(head.to_bytes())
    with hashers() as pool:
        for leaf, sealed in _journalled(_sealed(files, sealing, pool), journal):
            tree.add(leaf)
            dst.write(sealed)
    return AssetKey(header=head.header, digest=head.digest(tree.root()), key=sealing.key)


def _sealed(
    files: Sequence[File], sealing: Sealing, pool: ThreadPoolExecutor
) -> Iterator[tuple[Future[bytes], memoryview]]:
    """Each sealed chunk, and its hash, which is in the making. Nothing of it has left memory.

    The memory of a chunk is used again when 2 * BATCH more are asked for.
    """
    header = sealing.head.header
    ring = [memoryview(bytearray(SEALED_CHUNK)) for _ in range(min(2 * BATCH, header.chunks))]
    chunks = Chunks(sealing.key, sealing.head.prologue)
    for index, plaintext in enumerate(_split(pack_files(files), header.size)):
        sealed = chunks.seal_into(index, plaintext, ring[index % len(ring)], last=index == header.chunks - 1)
        yield pool.submit(leaf_hash, sealed), sealed


def _journalled(
    sealed: Iterator[tuple[Future[bytes], memoryview]], journal: Journal
) -> Iterator[tuple[bytes, memoryview]]:
    """Hash and chunk, once the journal has the hash: batch by batch, the next one being made meanwhile."""
    waiting: deque[tuple[Future[bytes], memoryview]] = deque()
    index = 0
    while True:
        while len(waiting) < 2 * BATCH and (made := next(sealed, None)) is not None:
            waiting.append(made)
        batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
        if not batch:
            return
        leaves = [leaf.result() for leaf, _ in batch]
        _keep(journal, index, leaves)
        yield from zip(leaves, (chunk for _, chunk in batch), strict=True)
        index += len(batch)


def _keep(journal: Journal, first: int, leaves: list[bytes]) -> None:
    """Compare with what the journal has, then let it record the rest."""
    known = 0
    for index, leaf in enumerate(leaves, first):
        recorded = journal.recall(index)
        if recorded is None:
            break
        if recorded != leaf:
            raise SourceChanged("what is to be sealed changed since its sealing was interrupted")
        known += 1
    if known < len(leaves):
        journal.record(first + known, leaves[known:])


def _split(pieces: Iterable[Piece], size: int) -> Iterator[memoryview]:
    """Pieces and then zeros, `size` bytes in all, cut into chunks. Each is valid until the next is asked for."""
    buffer = bytearray(CHUNK)
    view, filled, left = memoryview(buffer), 0, size
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            taken = rest[: CHUNK - filled]
            view[filled : filled + len(taken)] = taken
            filled, rest = filled + len(taken), rest[len(taken) :]
            if filled == min(CHUNK, left):
                yield view[:filled]
                left, filled = left - filled, 0
    while left:
        view[filled : min(CHUNK, left)] = bytes(min(CHUNK, left) - filled)
        yield view[: min(CHUNK, left)]
        left, filled = left - min(CHUNK, left), 0
