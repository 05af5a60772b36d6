"""The sealed chunks of an asset, read in order and hashed beside whatever else is done with them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Final

from superswarm.assets.container import AssetHead
from superswarm.crypto.merkle import MerkleRoot, leaf_hash
from superswarm.crypto.stream import SEALED_CHUNK, read_into
from superswarm.errors import Malformed

AHEAD: Final = 8  # chunks that wait to be hashed: this much memory, in MiB


def hashers() -> ThreadPoolExecutor:
    """Threads that hash: SHA-256 takes five times as long as AES-GCM, and lets other threads run meanwhile."""
    return ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="asset-hash")


class ChunkReader:
    """Reads all chunks of a sealed asset once, from first to last, and no byte more or less than its header says."""

    def __init__(self, src: BinaryIO, head: AssetHead, pool: ThreadPoolExecutor) -> None:
        """`src` stands at the first chunk."""
        self._src, self._head, self._pool = src, head, pool
        self._pending: deque[tuple[Future[bytes], memoryview]] = deque()  # a hash in the making, and what it is of
        self._tree = MerkleRoot()

    def __iter__(self) -> Iterator[tuple[int, memoryview, bool]]:
        """Index, sealed chunk, and whether it is the last. A chunk is valid until the next one is asked for.

        Raises Malformed for a file that is cut or goes on.
        """
        header = self._head.header
        for index in range(header.chunks):
            buffer = self._buffer()
            sealed = buffer[: header.chunk_bytes(index)]
            if read_into(self._src, sealed) != len(sealed):
                raise Malformed("a sealed asset is cut short")
            self._pending.append((self._pool.submit(leaf_hash, sealed), buffer))
            yield index, sealed, index == header.chunks - 1
        if self._src.read(1):
            raise Malformed("a sealed asset has bytes after its end")

    def root(self) -> bytes:
        """The Merkle root over all chunks, once all are read."""
        while self._pending:
            self._hashed()
        if self._tree.count != self._head.header.chunks:
            raise RuntimeError("the root of an asset that was not read to its end")
        return self._tree.root()

    def _buffer(self) -> memoryview:
        """Memory for a chunk: that of one which has been hashed, as soon as there are enough."""
        return self._hashed() if len(self._pending) == AHEAD else memoryview(bytearray(SEALED_CHUNK))

    def _hashed(self) -> memoryview:
        """Take the oldest hash into the tree; returns the memory of its chunk."""
        leaf, buffer = self._pending.popleft()
        self._tree.add(leaf.result())
        return buffer
