"""Sealed assets in memory, for tests."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from superswarm.assets.container import MAGIC, read_head
from superswarm.assets.key import AssetKey
from superswarm.assets.seal import seal_once
from superswarm.assets.unseal import unseal
from superswarm.bundle import File
from superswarm.crypto.stream import SEALED_CHUNK, Chunks

CONTENTS = {"sub/part=1.parquet": b"PAR1" * 700_000, "train.jsonl": b'{"prompt": "p", "completion": "c"}\n' * 20_000}
"""Three full chunks and a bit."""


def files_of(contents: Mapping[str, bytes]) -> list[File]:
    return [File.of(name, [body]) for name, body in sorted(contents.items())]


def sealed_asset(contents: Mapping[str, bytes] = CONTENTS, **fields: Any) -> tuple[bytes, AssetKey]:
    dst = io.BytesIO()
    key = seal_once(files_of(contents), dst, **{"kind": "dataset", "owner": "north", "version": "1", **fields})
    return dst.getvalue(), key


class MemorySink:
    """Keeps what it gets, and remembers that something came."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.opened: list[str] = []

    @contextmanager
    def create(self, name: str, size: int) -> Iterator[BinaryIO]:
        self.opened.append(name)
        buffer = io.BytesIO()
        yield buffer
        assert len(buffer.getvalue()) == size
        self.files[name] = buffer.getvalue()


def unsealed(sealed: bytes, key: AssetKey) -> dict[str, bytes]:
    sink = MemorySink()
    assert unseal(io.BytesIO(sealed), key.key, key.digest, sink) == key.header
    return sink.files


def cut(sealed: bytes) -> tuple[bytes, list[bytes]]:
    """What stands before the chunks, and the chunks."""
    at = read_head(io.BytesIO(sealed)).chunks_at
    return sealed[:at], [sealed[i : i + SEALED_CHUNK] for i in range(at, len(sealed), SEALED_CHUNK)]


def sealed_plaintext(plain: bytes, key: AssetKey) -> bytes:
    """What an owner with tools of its own makes of any plaintext, under the header and key of another asset."""
    chunks = Chunks.new(key.key, key.header.to_json())
    pieces = [plain[at : at + (1 << 20)] for at in range(0, len(plain), 1 << 20)]
    body = [chunks.seal(i, piece, last=i == len(pieces) - 1) for i, piece in enumerate(pieces)]
    return MAGIC + chunks.prologue.to_bytes() + b"".join(body)
