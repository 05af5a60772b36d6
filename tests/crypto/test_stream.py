"""The chunked AEAD: whole, in order, under one key and one header, or not at all."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from superswarm.crypto import stream
from superswarm.crypto.kdf import derive
from superswarm.crypto.stream import (
    CHUNK,
    FIXED,
    SEALED_CHUNK,
    TAG,
    Chunks,
    Prologue,
    StreamReader,
    StreamWriter,
    decrypt_stream,
    encrypt_stream,
    open_bytes,
    seal_bytes,
)
from superswarm.errors import CannotOpen, Error, Malformed, TooLarge
from superswarm.values import Digest
from superswarm.wire import pack

KEY, OTHER = b"k" * 32, b"o" * 32
HEADER = b"public"
BODY = FIXED.size + len(HEADER)
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1, 3 * CHUNK, 3 * CHUNK + 7]


def encrypt(plaintext: bytes, key: bytes = KEY, header: bytes = HEADER) -> bytes:
    dst = io.BytesIO()
    encrypt_stream(io.BytesIO(plaintext), dst, key, header=header)
    return dst.getvalue()


def decrypt(sealed: bytes, key: bytes = KEY) -> bytes:
    dst = io.BytesIO()
    decrypt_stream(io.BytesIO(sealed), dst, key)
    return dst.getvalue()


def chunks_of(sealed: bytes) -> list[bytes]:
    return [sealed[at : at + SEALED_CHUNK] for at in range(BODY, len(sealed), SEALED_CHUNK)]


PLAIN = os.urandom(3 * CHUNK + 100)
SEALED = encrypt(PLAIN)


@pytest.mark.parametrize("size", SIZES)
def test_round_trip(size: int) -> None:
    plain = PLAIN[:size]
    sealed = encrypt(plain)
    assert decrypt(sealed) == plain
    assert len(sealed) == BODY + size + TAG * max(1, -(-size // CHUNK))
    assert decrypt_stream(io.BytesIO(sealed), io.BytesIO(), KEY) == HEADER


@pytest.mark.parametrize("size", SIZES)
def test_random_access(size: int) -> None:
    reader = StreamReader(io.BytesIO(encrypt(PLAIN[:size])), KEY)
    assert reader.size == size
    assert reader.header == HEADER
    for index in reversed(range(reader.count)):
        assert reader.chunk(index) == PLAIN[:size][index * CHUNK : (index + 1) * CHUNK]
    for index in (-1, reader.count):
        with pytest.raises(IndexError):
            reader.chunk(index)


@given(st.lists(st.integers(0, CHUNK + 100), max_size=6))
def test_pieces_written_do_not_matter(sizes: list[int]) -> None:
    dst = io.BytesIO()
    writer = StreamWriter(dst, KEY, header=HEADER)
    plain = b""
    for number, size in enumerate(sizes):
        piece = bytes([number]) * size
        writer.write(piece)
        plain += piece
    writer.close()
    assert decrypt(dst.getvalue()) == plain


class Trickle(io.RawIOBase):
    """A source that gives a few bytes at a time, as sockets and pipes do."""

    def __init__(self, data: bytes, step: int) -> None:
        self._src, self._step = io.BytesIO(data), step

    def read(self, size: int = -1) -> bytes:
        return self._src.read(min(size, self._step))


def test_short_reads_do_not_matter() -> None:
    dst = io.BytesIO()
    decrypt_stream(Trickle(SEALED, 100_003), dst, KEY)  # type: ignore[arg-type]
    assert dst.getvalue() == PLAIN
    again = io.BytesIO()
    encrypt_stream(Trickle(PLAIN, 70_001), again, KEY, header=HEADER)  # type: ignore[arg-type]
    assert decrypt(again.getvalue()) == PLAIN


def test_the_format_is_what_the_documentation_says() -> None:
    magic, salt, commitment, length = FIXED.unpack_from(SEALED)
    assert (magic, length) == (b"SSWSTRM\x01", len(HEADER))
    context = pack(magic, 1 << 20, Digest.of(HEADER).raw)
    derived = derive(KEY, "superswarm/v1/stream", context, 64, salt=salt)
    assert derived[32:] == commitment
    first, *_, last = chunks_of(SEALED)
    aead = AESGCM(derived[:32])
    assert aead.decrypt(bytes(12), first, None) == PLAIN[:CHUNK]
    assert aead.decrypt(bytes(10) + b"\x03\x01", last, None) == PLAIN[3 * CHUNK :]


SURGERIES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "last chunk dropped": lambda c: c[:-1],
    "all but the first dropped": lambda c: c[:1],
    "all dropped": lambda _: [],
    "first dropped": lambda c: c[1:],
    "middle dropped": lambda c: [c[0], *c[2:]],
    "two swapped": lambda c: [c[1], c[0], *c[2:]],
    "one repeated": lambda c: [c[0], c[0], *c[1:]],
    "last repeated": lambda c: [*c, c[-1]],
    "last put first": lambda c: [c[-1], *c[:-1]],
    "cut by a byte": lambda c: [*c[:-1], c[-1][:-1]],
    "a byte more": lambda c: [*c, b"\0"],
    "a tag's worth more": lambda c: [*c, bytes(TAG)],
    "the last one's tag cut": lambda c: [*c[:-1], c[-1][: TAG - 1]],
    "an empty last chunk of the right key": lambda c: [
        *c[:-1],
        c[-1],
        Chunks(KEY, prologue()).seal(4, b"", last=True),
    ],
    "a chunk of another file, same key": lambda c: [*c[:-1], chunks_of(encrypt(PLAIN))[-1]],
    "all chunks of another file, same key": lambda _: chunks_of(encrypt(PLAIN)),
}


def prologue() -> Prologue:
    return Prologue.read(io.BytesIO(SEALED))


def read_at_random(sealed: bytes) -> list[bytes]:
    reader = StreamReader(io.BytesIO(sealed), KEY)
    return [reader.chunk(index) for index in reversed(range(reader.count))]


@pytest.mark.parametrize("cut", SURGERIES.values(), ids=SURGERIES)
def test_surgery_on_chunks(cut: Callable[[list[bytes]], list[bytes]]) -> None:
    altered = SEALED[:BODY] + b"".join(cut(chunks_of(SEALED)))
    with pytest.raises(CannotOpen):
        decrypt(altered)
    with pytest.raises(CannotOpen):
        read_at_random(altered)


def test_an_empty_last_chunk_is_no_second_way_to_write_a_full_file() -> None:
    chunks = Chunks.new(KEY, HEADER)
    body = chunks.seal(0, PLAIN[:CHUNK], last=False) + chunks.seal(1, b"", last=True)
    with pytest.raises(CannotOpen):
        decrypt(chunks.prologue.to_bytes() + body)


def test_only_authenticated_plaintext_is_released() -> None:
    altered = bytearray(SEALED)
    altered[BODY + 2 * SEALED_CHUNK + 5] ^= 1
    dst = io.BytesIO()
    with pytest.raises(CannotOpen):
        decrypt_stream(io.BytesIO(altered), dst, KEY)
    assert dst.getvalue() == PLAIN[: 2 * CHUNK]


@given(st.integers(0, BODY + 200), st.integers(1, 255))
def test_any_bit_of_the_beginning_counts(at: int, flip: int) -> None:
    sealed = bytearray(encrypt(b"x" * 300))
    sealed[at] ^= flip
    with pytest.raises((CannotOpen, Malformed)):
        decrypt(bytes(sealed))


def test_a_changed_header_is_refused() -> None:
    sealed = encrypt(b"secret")
    assert HEADER in sealed
    with pytest.raises(CannotOpen):
        decrypt(sealed.replace(HEADER, b"PUBLIC"))
    moved = sealed[:BODY].replace(struct.pack(">I", 6), struct.pack(">I", 7)) + sealed[BODY:]
    with pytest.raises(CannotOpen):
        decrypt(moved)


def test_another_key_is_refused_before_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> bytes:
        raise AssertionError("a chunk was opened")

    monkeypatch.setattr(Chunks, "open", never)
    with pytest.raises(CannotOpen):
        decrypt(SEALED, OTHER)


def gcm_collision(one: bytes, two: bytes, nonce: bytes) -> bytes:
    """16 bytes of ciphertext and a tag that AES-GCM accepts under both keys (Grubbs, Lu, Ristenpart 2017, §3)."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    def block(key: bytes, data: bytes) -> int:
        encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - to attack GCM
        return int.from_bytes(encryptor.update(data), "big")

    def times(x: int, y: int) -> int:  # GF(2**128) as GCM has it
        product = 0
        for bit in range(127, -1, -1):
            if y >> bit & 1:
                product ^= x
            x = x >> 1 ^ (0xE1 << 120 if x & 1 else 0)
        return product

    def power(x: int, exponent: int) -> int:
        result = 1 << 127
        while exponent:
            if exponent & 1:
                result = times(result, x)
            x, exponent = times(x, x), exponent >> 1
        return result

    h = [block(key, bytes(16)) for key in (one, two)]
    pad = [block(key, nonce + b"\0\0\0\1") for key in (one, two)]
    # tag = c·h² ^ length·h ^ pad must be the same under both keys: solve for c.
    length = 128
    right = times(length, h[0]) ^ times(length, h[1]) ^ pad[0] ^ pad[1]
    left = times(h[0], h[0]) ^ times(h[1], h[1])
    c = times(right, power(left, 2**128 - 2))
    tag = times(c, times(h[0], h[0])) ^ times(length, h[0]) ^ pad[0]
    return c.to_bytes(16, "big") + tag.to_bytes(16, "big")


def test_a_ciphertext_that_gcm_opens_under_two_keys_opens_here_under_one() -> None:
    """The attack that key commitment is for, performed: bare AES-GCM takes it, the stream does not."""
    salt, nonce = bytes(32), bytes(11) + b"\x01"
    derived = {key: stream._derive(key, salt, HEADER) for key in (KEY, OTHER)}
    forged = gcm_collision(derived[KEY][0], derived[OTHER][0], nonce)
    opened = {AESGCM(subkey).decrypt(nonce, forged, None) for subkey, _ in derived.values()}
    assert len(opened) == 2  # bare GCM: one ciphertext, two plaintexts
    taken = []
    for _, commitment in derived.values():
        sealed = Prologue(salt=salt, commitment=commitment, header=HEADER).to_bytes() + forged
        for key in (KEY, OTHER):
            try:
                taken.append((sealed, decrypt(sealed, key)))
            except CannotOpen:
                continue
    assert len(taken) == 2
    assert len({sealed for sealed, _ in taken}) == 2  # each ciphertext opens under one key only


def test_salts_are_fresh() -> None:
    assert len({encrypt(b"same")[:72] for _ in range(50)}) == 50


@pytest.mark.parametrize("claim", [2**32 - 1, 2**30])
def test_a_gigabyte_of_header_claimed(claim: int) -> None:
    with pytest.raises(TooLarge):
        decrypt(FIXED.pack(stream.MAGIC, bytes(32), bytes(32), claim))


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_our_errors(raw: bytes) -> None:
    for attempt in (raw, stream.MAGIC + raw, FIXED.pack(stream.MAGIC, bytes(32), bytes(32), 3) + raw):
        with pytest.raises(Error):
            decrypt(attempt)


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(Malformed):
        encrypt(b"x", key=b"short")


def test_too_many_chunks_are_refused() -> None:
    chunks = Chunks.new(KEY, b"")
    with pytest.raises(TooLarge):
        chunks.seal(stream.MAX_CHUNKS, bytes(CHUNK), last=False)
    with pytest.raises(ValueError, match="short"):
        chunks.seal(0, b"short", last=False)


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_small_things(plain: bytes, header: bytes) -> None:
    sealed = seal_bytes(plain, KEY, header=header)
    assert open_bytes(sealed, KEY, header=header) == plain
    with pytest.raises(CannotOpen):
        open_bytes(sealed, KEY, header=header + b"!")
    with pytest.raises(CannotOpen):
        open_bytes(sealed, OTHER, header=header)


def test_memory_is_constant() -> None:
    class Zeros(io.RawIOBase):
        left = 64 * CHUNK

        def read(self, size: int = -1) -> bytes:
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    class Sink(io.RawIOBase):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            return len(data)

    tracemalloc.start()
    encrypt_stream(Zeros(), Sink(), KEY, header=b"")  # type: ignore[arg-type]
    high = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert high < 6 * CHUNK
