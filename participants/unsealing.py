"""Sealed assets inside a trainer's TEE: fetched as ciphertext, decrypted into memory, used once the digest holds."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO, cast

from superswarm.assets.container import AssetHeader, read_head
from superswarm.assets.unseal import Sink, unseal
from superswarm.consortium.manifest import Asset
from superswarm.errors import Misconfigured
from superswarm.io.memory import MemoryFiles
from superswarm.io.progress import Bar, progress
from superswarm.io.sources import Source, open_source
from superswarm.values import MEMBER_ID, Digest


def locations(settings: Iterable[str]) -> dict[str, str]:
    """Read `NAME=LOCATION` texts. Misconfigured for what is none, or names an asset twice."""
    found: dict[str, str] = {}
    for setting in settings:
        name, equals, location = setting.partition("=")
        if not equals or not location or not MEMBER_ID.fullmatch(name):
            raise Misconfigured("an asset's place is written NAME=PLACE: its name in the manifest, a file or address")
        if name in found:
            raise Misconfigured(f"the place of {name} is given twice")
        found[name] = location
    return found


def look(asset: Asset, location: str) -> None:
    """Check that a sealed asset can be reached, and is of the kind that the manifest says, before its key is needed.

    Raises Misconfigured, Environment, Unavailable, Malformed or Mismatch. Its content is compared when it is opened.
    """
    with open_source(location).open() as src:
        read_head(src).header.require(asset)


def unseal_into(sink: Sink, asset: Asset, location: str, key: bytes) -> Digest:
    """Decrypt an asset into `sink`, which the caller discards if this raises; the digest that was compared."""
    expected, source = Digest.parse(asset.digest), open_source(location)
    with progress(f"opening {asset.name}", source.size, "bytes") as bar, _watched(source, bar) as src:
        header: AssetHeader = unseal(src, key, expected, sink)
    header.require(asset)
    return expected


class DataFiles:
    """Keeps a dataset's files in memory; those in folders below, which no dataset's layout has, are let go."""

    def __init__(self, files: MemoryFiles) -> None:
        self._files = files

    def create(self, name: str, size: int) -> AbstractContextManager[BinaryIO]:
        return self._files.create(name, size) if "/" not in name else _dropped()


@contextmanager
def _dropped() -> Iterator[BinaryIO]:
    yield cast("BinaryIO", _Nothing())


class _Nothing(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]  # any buffer
        return memoryview(data).nbytes


@contextmanager
def _watched(source: Source, bar: Bar) -> Iterator[BinaryIO]:
    """The source's bytes, each counted as it is read."""
    with source.open() as raw, io.BufferedReader(_Counted(raw, bar), 1 << 20) as src:
        yield cast("BinaryIO", src)


class _Counted(io.RawIOBase):
    def __init__(self, src: BinaryIO, bar: Bar) -> None:
        super().__init__()
        self._src, self._bar = src, bar

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any buffer
        data = self._src.read(len(buffer))
        buffer[: len(data)] = data
        self._bar.advance(len(data))
        return len(data)
