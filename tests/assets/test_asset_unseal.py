"""Unsealing: what comes out is what the manifest's digest names, whole, or nothing counts."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superswarm.assets.container import AssetHead, read_head
from superswarm.assets.key import AssetKey
from superswarm.assets.unseal import sealed_digest, unseal
from superswarm.bundle import pack_files, pack_index
from superswarm.crypto.stream import CHUNK, SEALED_CHUNK, TAG, Chunks
from superswarm.errors import CannotOpen, DiskFull, Error, Malformed, Mismatch
from superswarm.values import Digest
from tests.sealed import CONTENTS, MemorySink, cut, files_of, sealed_asset, sealed_plaintext, unsealed

SEALED, KEY = sealed_asset()
OTHER, OTHER_KEY = sealed_asset({name: body[::-1] for name, body in CONTENTS.items()})
HEAD, CHUNKS = cut(SEALED)
PLAIN = b"".join(bytes(piece) for piece in pack_files(files_of(CONTENTS)))


def open_with(sealed: bytes, key: bytes = KEY.key, digest: Digest = KEY.digest) -> MemorySink:
    sink = MemorySink()
    unseal(io.BytesIO(sealed), key, digest, sink)
    return sink


def test_what_was_sealed_comes_out() -> None:
    assert unsealed(SEALED, KEY) == CONTENTS
    assert sealed_digest(io.BytesIO(SEALED))[1] == KEY.digest


@pytest.mark.parametrize("size", [0, 1, CHUNK - 40, CHUNK, 2 * CHUNK - 33, 2 * CHUNK])
def test_sizes_around_chunks(size: int) -> None:
    contents = {"a": b"", "b.jsonl": b"x" * size, "c/d": b"end"}
    assert unsealed(*sealed_asset(contents)) == contents


def test_short_reads_do_not_matter() -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 100_003))

    assert sealed_digest(Trickle(SEALED))[1] == KEY.digest


# --- whoever hosts the ciphertext --------------------------------------------------------------------------------

SURGERIES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "last chunk dropped": lambda c: c[:-1],
    "all dropped": lambda _: [],
    "first dropped": lambda c: c[1:],
    "middle dropped": lambda c: [c[0], *c[2:]],
    "two swapped": lambda c: [c[1], c[0], *c[2:]],
    "one repeated": lambda c: [c[0], c[0], *c[1:]],
    "one in place of another": lambda c: [c[0], c[0], *c[2:]],
    "last repeated": lambda c: [*c, c[-1]],
    "cut by a byte": lambda c: [*c[:-1], c[-1][:-1]],
    "a byte more": lambda c: [*c, b"\0"],
    "a tag's worth more": lambda c: [*c, bytes(TAG)],
    "a chunk of another asset": lambda c: [cut(OTHER)[1][0], *c[1:]],
    "all chunks of another asset": lambda _: cut(OTHER)[1],
}


@pytest.mark.parametrize("surgery", SURGERIES.values(), ids=SURGERIES)
def test_surgery_on_chunks(surgery: Callable[[list[bytes]], list[bytes]]) -> None:
    altered = HEAD + b"".join(surgery(CHUNKS))
    with pytest.raises((CannotOpen, Malformed)):
        open_with(altered)
    with suppress(Malformed):  # of another length than its header says
        assert sealed_digest(io.BytesIO(altered))[1] != KEY.digest


@settings(max_examples=40)
@given(st.lists(st.sampled_from([*CHUNKS, *cut(OTHER)[1], b"", b"\0"]), max_size=6))
def test_no_other_sequence_of_chunks_is_the_asset(pieces: list[bytes]) -> None:
    altered = HEAD + b"".join(pieces)
    if altered == SEALED:
        return
    with pytest.raises((CannotOpen, Malformed)):
        open_with(altered)


@settings(max_examples=60)
@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_any_flipped_bit_is_noticed(at: int, flip: int) -> None:
    altered = bytearray(SEALED)
    altered[at] ^= flip
    with pytest.raises(Error):
        open_with(bytes(altered))
    with suppress(Error):
        assert sealed_digest(io.BytesIO(altered))[1] != KEY.digest


def test_another_asset_in_its_place() -> None:
    """A relay or host that substitutes: another asset of the owner, or this one's header over it."""
    with pytest.raises(CannotOpen):
        open_with(OTHER)
    with pytest.raises(CannotOpen):
        open_with(cut(OTHER)[0] + b"".join(CHUNKS))
    with pytest.raises(Mismatch):
        open_with(OTHER, OTHER_KEY.key)


def test_another_header_over_the_same_chunks() -> None:
    """`demo` would have the key released to simulated TEEs."""
    for before, after in ((b'"demo":false', b'"demo":true'), (b'"owner":"north"', b'"owner":"south"')):
        assert before in HEAD
        head = HEAD.replace(before, after)
        length = (len(HEAD) - 84 + len(after) - len(before)).to_bytes(4, "big")
        head = head[:80] + length + head[84:]
        assert read_head(io.BytesIO(head + b"".join(CHUNKS))).header != KEY.header
        with pytest.raises(CannotOpen):
            open_with(head + b"".join(CHUNKS))
        assert sealed_digest(io.BytesIO(head + b"".join(CHUNKS)))[1] != KEY.digest


def test_another_key_opens_nothing_not_even_in_part() -> None:
    sink = MemorySink()
    with pytest.raises(CannotOpen):
        unseal(io.BytesIO(SEALED), OTHER_KEY.key, KEY.digest, sink)
    assert not sink.opened


def test_one_ciphertext_does_not_open_under_two_keys() -> None:
    """Its prologue commits to one key; a prologue that commits to another makes it another asset."""
    recommitted = Chunks.new(OTHER_KEY.key, KEY.header.to_json()).prologue
    altered = AssetHead(recommitted, KEY.header).to_bytes() + b"".join(CHUNKS)
    for key in (KEY, OTHER_KEY):
        with pytest.raises(CannotOpen):
            open_with(altered, key.key)
    assert sealed_digest(io.BytesIO(altered))[1] != KEY.digest


# --- the owner, who has the key ----------------------------------------------------------------------------------


def test_an_owner_cannot_seal_something_else_under_the_same_digest() -> None:
    """Same key, salt and header, so every chunk is genuine: only the digest over ciphertext tells."""
    contents = {name: body.replace(b"c", b"X") for name, body in CONTENTS.items()}
    plain = b"".join(bytes(piece) for piece in pack_files(files_of(contents))).ljust(KEY.header.size, b"\0")
    chunks = Chunks(KEY.key, read_head(io.BytesIO(SEALED)).prologue)
    pieces = [plain[at : at + CHUNK] for at in range(0, len(plain), CHUNK)]
    forged = HEAD + b"".join(chunks.seal(i, p, last=i == len(pieces) - 1) for i, p in enumerate(pieces))
    sink = MemorySink()
    with pytest.raises(Mismatch):
        unseal(io.BytesIO(forged), KEY.key, KEY.digest, sink)
    assert sink.files == contents  # it was written, but `unseal` never returned: the sink does not count


def test_padding_hides_nothing() -> None:
    for plain in (PLAIN.ljust(KEY.header.size - 1, b"\0") + b"!", PLAIN.ljust(KEY.header.size, b" ")):
        with pytest.raises(Malformed):
            open_with(sealed_plaintext(plain, KEY))


@pytest.mark.parametrize("name", ["../up", "/etc/x", ".profile", "a/../../b", "a\\b", ""])
def test_names_that_lead_out_of_the_folder(name: str) -> None:
    plain = b"".join(bytes(piece) for piece in pack_files(files_of({name: b"x"})))
    sink = MemorySink()
    with pytest.raises(Malformed):
        unseal(io.BytesIO(sealed_plaintext(plain.ljust(KEY.header.size, b"\0"), KEY)), KEY.key, KEY.digest, sink)
    assert not sink.opened


def test_an_index_that_claims_more_than_there_is() -> None:
    plain = pack_index([("a", 2**40)]).ljust(KEY.header.size, b"\0")
    with pytest.raises(Malformed):
        open_with(sealed_plaintext(plain, KEY))


# --- the machine that unseals ------------------------------------------------------------------------------------


def test_a_sink_that_fails_ends_it() -> None:
    class Full(MemorySink):
        @contextmanager
        def create(self, name: str, size: int) -> Iterator[BinaryIO]:
            raise DiskFull("no space is left")
            yield io.BytesIO()

    with pytest.raises(DiskFull):
        unseal(io.BytesIO(SEALED), KEY.key, KEY.digest, Full())


def test_memory_is_constant() -> None:
    """Of 64 chunks, only a few are held at once, whoever reads and hashes."""
    import tracemalloc

    sealed, key = sealed_asset({"a": bytes(64 * CHUNK)})

    class Nowhere(MemorySink):
        @contextmanager
        def create(self, name: str, size: int) -> Iterator[BinaryIO]:
            yield open("/dev/null", "wb")  # noqa: SIM115, PTH123

    tracemalloc.start()
    unseal(io.BytesIO(sealed), key.key, key.digest, Nowhere())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * SEALED_CHUNK


def test_a_key_says_nothing_of_itself() -> None:
    assert KEY.key.hex() not in repr(KEY)
    assert repr(KEY.key) not in repr(KEY)
    assert AssetKey.parse(KEY.to_bytes()) == KEY
    assert (KEY.asset, KEY.kind, KEY.demo) == (KEY.header.asset, "dataset", False)


@pytest.mark.parametrize(
    ("before", "after"), [(b'"key":"', b'"key":"AAAA'), (b"sha256:", b"sha512:"), (b"asset-key/1", b"asset-key/2")]
)
def test_keys_that_are_none(before: bytes, after: bytes) -> None:
    raw = KEY.to_bytes()
    assert before in raw
    with pytest.raises(Malformed):
        AssetKey.parse(raw.replace(before, after))


@given(st.binary(max_size=200))
def test_random_keys_raise_only_our_errors(raw: bytes) -> None:
    with pytest.raises(Error):
        AssetKey.parse(raw)
