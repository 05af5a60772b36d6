"""Sealing that is interrupted and gone on with: no nonce ever has two plaintexts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superswarm.assets.key import AssetKey
from superswarm.assets.seal import BATCH, Sealing, SourceChanged, seal, seal_once
from superswarm.bundle import File
from superswarm.crypto.merkle import leaf_hash
from superswarm.crypto.stream import CHUNK, SEALED_CHUNK
from superswarm.errors import CannotOpen, Error, Malformed, Mismatch
from tests.sealed import cut, files_of, unsealed

CONTENTS = {"a.jsonl": b"a" * 2 * BATCH * CHUNK, "b.jsonl": b"b" * 5 * CHUNK}  # several batches


class Interrupted(Exception):
    """Somebody pulled the plug."""


class Disk:
    """A journal and a file that last when the process does not. `room` is after how many chunks the plug is pulled.

    `seen` is every chunk that was ever let out of memory: a host that keeps copies of its disk has all of them.
    """

    def __init__(self) -> None:
        self.leaves: dict[int, bytes] = {}
        self.seen: list[tuple[int, bytes]] = []
        self.room = 10**9
        self.records = 10**9

    def recall(self, index: int) -> bytes | None:
        return self.leaves.get(index)

    def record(self, first: int, leaves: Sequence[bytes]) -> None:
        if not self.records:
            raise Interrupted
        self.records -= 1
        self.leaves |= dict(enumerate(leaves, first))

    def attempt(self, sealing: Sealing, files: Sequence[File]) -> tuple[bytes, AssetKey]:
        """Seal from the beginning to an empty file, or as far as it gets."""
        written: list[bytes] = []

        class Dst(io.RawIOBase):
            def write(_, data: Any) -> int:  # noqa: N805 - `self` is the disk
                if len(written) > self.room:
                    raise Interrupted
                if written:
                    self.seen.append((len(written) - 1, bytes(data)))
                written.append(bytes(data))
                return len(data)

        key = seal(files, sealing, Dst(), self)  # type: ignore[arg-type]
        return b"".join(written), key

    def require_no_nonce_twice(self) -> None:
        chunks: dict[int, bytes] = {}
        for index, chunk in self.seen:
            assert chunks.setdefault(index, chunk) == chunk


def begin(contents: dict[str, bytes] = CONTENTS) -> Sealing:
    entries = [(name, len(body)) for name, body in sorted(contents.items())]
    return Sealing.new(entries, kind="dataset", owner="north", version="1", demo=False)


@settings(max_examples=12)
@given(st.lists(st.integers(0, 2 * BATCH + 4), min_size=1, max_size=3))
def test_a_sealing_goes_on_to_the_same_file(stops: list[int]) -> None:
    disk, sealing = Disk(), begin()
    for room in stops:
        disk.room = room
        with pytest.raises(Interrupted):
            disk.attempt(sealing, files_of(CONTENTS))
        sealing = Sealing.parse(sealing.to_bytes())
    disk.room = 10**9
    sealed, key = disk.attempt(sealing, files_of(CONTENTS))
    assert unsealed(sealed, key) == CONTENTS
    disk.require_no_nonce_twice()


@pytest.mark.parametrize("room", [1, 5, BATCH, 2 * BATCH + 3])
@pytest.mark.parametrize("at", [0, 100, BATCH * CHUNK, (BATCH + 5) * CHUNK])
def test_a_source_that_changed_is_never_sealed_under_the_same_nonces(room: int, at: int) -> None:
    """Also where a chunk was let out and lost: what a host saw, and what goes on, must not differ under one nonce."""
    disk, sealing = Disk(), begin()
    disk.room = room
    with pytest.raises(Interrupted):
        disk.attempt(sealing, files_of(CONTENTS))
    disk.room = 10**9
    body = bytearray(CONTENTS["a.jsonl"])
    body[at] ^= 1
    changed = CONTENTS | {"a.jsonl": bytes(body)}
    let_out = any(index == at // CHUNK for index, _ in disk.seen)
    if let_out:
        with pytest.raises(SourceChanged):
            disk.attempt(sealing, files_of(changed))
    else:  # the journal may know the chunk all the same, and refuse
        try:
            sealed, key = disk.attempt(sealing, files_of(changed))
        except SourceChanged:
            pass
        else:
            assert unsealed(sealed, key) == changed
    disk.require_no_nonce_twice()


def test_nothing_is_let_out_before_the_journal_has_it() -> None:
    disk, sealing = Disk(), begin()
    disk.records = 1
    with pytest.raises(Interrupted):
        disk.attempt(sealing, files_of(CONTENTS))
    assert {index for index, _ in disk.seen} <= disk.leaves.keys()
    assert all(disk.leaves[index] == leaf_hash(chunk) for index, chunk in disk.seen)
    assert len(disk.leaves) == BATCH


@pytest.mark.parametrize(
    "changed",
    [
        CONTENTS | {"a.jsonl": CONTENTS["a.jsonl"] + b"a" * CHUNK},
        CONTENTS | {"c.jsonl": b""},
        {"a.jsonl": CONTENTS["a.jsonl"], "c.jsonl": CONTENTS["b.jsonl"]},
    ],
)
def test_other_files_are_another_asset(changed: dict[str, bytes]) -> None:
    disk, sealing = Disk(), begin()
    disk.room = 1
    with pytest.raises(Interrupted):
        disk.attempt(sealing, files_of(CONTENTS))
    disk.room = 10**9
    with pytest.raises(SourceChanged):
        disk.attempt(sealing, files_of(changed))
    disk.require_no_nonce_twice()


@pytest.mark.parametrize("size", [CHUNK, 40 * CHUNK])
def test_files_of_another_size_than_the_header_says(size: int) -> None:
    """Also where nothing was let out yet, and the journal knows of no chunk."""
    disk = Disk()
    with pytest.raises(SourceChanged):
        disk.attempt(begin(), files_of(CONTENTS | {"b.jsonl": bytes(size)}))
    assert not disk.seen


def test_a_file_that_changes_while_it_is_sealed() -> None:
    for body in (b"12", b"1234"):
        with pytest.raises(Mismatch):
            seal_once([File("a", 3, [body])], io.BytesIO(), kind="dataset", owner="north", version="1")


def test_files_out_of_order_are_refused() -> None:
    files = list(reversed(files_of(CONTENTS)))
    with pytest.raises(Malformed):
        seal_once(files, io.BytesIO(), kind="dataset", owner="north", version="1")


def test_keys_salts_and_ids_are_fresh() -> None:
    one, two = begin(), begin()
    assert one.key != two.key
    assert one.head.prologue.salt != two.head.prologue.salt
    assert one.head.header.asset != two.head.header.asset


def test_state_that_was_put_together_from_two_sealings_is_refused() -> None:
    one, two = begin(), begin()
    with pytest.raises(CannotOpen):
        Sealing.parse(Sealing(one.head, two.key).to_bytes())
    assert one.key.hex() not in repr(one)


@given(st.binary(max_size=200))
def test_random_state_raises_only_our_errors(raw: bytes) -> None:
    with pytest.raises(Error):
        Sealing.parse(raw)


def test_every_chunk_but_the_last_is_full() -> None:
    disk = Disk()
    sealed, key = disk.attempt(begin(), files_of(CONTENTS))
    chunks = cut(sealed)[1]
    assert len(chunks) == key.header.chunks
    assert {len(chunk) for chunk in chunks[:-1]} == {SEALED_CHUNK}
