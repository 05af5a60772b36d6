"""Encryption of any size in constant memory: chunked AEAD with key commitment.

    prologue    magic 8 | salt 32 | commitment 32 | header length 4 | header
    chunk i     AES-256-GCM(1 MiB of plaintext), nonce = i in 11 bytes, then 1 for the last chunk and 0 before

The chunks are the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015, eprint 2015/189): the
nonce's counter refuses chunks that are reordered, repeated or taken from elsewhere, its last byte refuses truncation.
Only the last chunk is short, and it is empty only in an empty file, so one plaintext has one chunking.

Salt, key and header give one subkey and one commitment (HKDF-SHA256). A fresh salt means a fresh subkey, so counters
are safe nonces. GCM alone does not commit: one ciphertext can open under two keys (Grubbs, Lu, Ristenpart, CRYPTO
2017; Albertini et al., USENIX Security 2022). The commitment, collision resistant as SHA-256 is, is compared before
any chunk is opened, and binds the key and the header (Bellare, Hoang, EUROCRYPT 2022, eprint 2022/268).

Chunks have 1 MiB: AES-GCM reaches there the speed of one unbroken pass (10.2 GB/s where it was measured, against 7.3
with 64 KiB), a few chunks are all that is held, and a tag of 16 bytes adds 15 millionths. With at most 2**24 chunks
(16 TiB) a subkey encrypts 2**40 blocks, which tells it from random with an advantage under 2**-48.
"""

from __future__ import annotations

import hmac
import io
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from superswarm.crypto.kdf import KEY_BYTES, derive
from superswarm.errors import CannotOpen, Malformed, TooLarge
from superswarm.values import LIMITS, Digest
from superswarm.wire import pack

MAGIC: Final = b"SSWSTRM\x01"
LABEL: Final = "superswarm/v1/stream"
CHUNK: Final = 1 << 20  # bytes of plaintext in every chunk but the last
TAG: Final = 16
SEALED_CHUNK: Final = CHUNK + TAG
MAX_CHUNKS: Final = 1 << 24
FIXED = struct.Struct(">8s32s32sI")
_ALTERED: Final = "chunk {} of an encrypted stream was altered, moved, or is not the last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prologue:
    """What stands before the chunks. Public; proves nothing until `Chunks` has compared its commitment."""

    salt: bytes
    commitment: bytes
    header: bytes  # the caller's, public and authenticated

    def to_bytes(self) -> bytes:
        return FIXED.pack(MAGIC, self.salt, self.commitment, len(self.header)) + self.header

    @classmethod
    def read(cls, src: BinaryIO, *, limit: int = LIMITS.head_bytes) -> Self:
        """Read a prologue; the first chunk follows. Raises Malformed, or TooLarge for a header over `limit` bytes."""
        fixed = read_up_to(src, FIXED.size)
        if len(fixed) != FIXED.size or not fixed.startswith(MAGIC):
            raise Malformed("not an encrypted stream of this version")
        _, salt, commitment, length = FIXED.unpack(fixed)
        if length > limit:
            raise TooLarge(f"an encrypted stream claims a header of {length} bytes; the limit is {limit}")
        header = read_up_to(src, length)
        if len(header) != length:
            raise Malformed("the header of an encrypted stream is cut short")
        return cls(salt=salt, commitment=commitment, header=header)

    def offset(self, index: int) -> int:
        """Where the chunk with this index starts, counted from the prologue's first byte."""
        return FIXED.size + len(self.header) + index * SEALED_CHUNK


class Chunks:
    """The subkey of one stream: seals and opens its chunks by index, in any order."""

    def __init__(self, key: bytes, prologue: Prologue) -> None:
        """Raises CannotOpen unless the stream was made under this key with this header."""
        subkey, commitment = _derive(key, prologue.salt, prologue.header)
        if not hmac.compare_digest(commitment, prologue.commitment):
            raise CannotOpen("an encrypted stream was not made under this key and header")
        self.prologue = prologue
        self._aead = AESGCM(subkey)

    @classmethod
    def new(cls, key: bytes, header: bytes) -> Self:
        """A fresh stream under this key."""
        salt = secrets.token_bytes(32)
        _, commitment = _derive(key, salt, header)
        return cls(key, Prologue(salt=salt, commitment=commitment, header=header))

    def seal(self, index: int, plaintext: bytes | memoryview, *, last: bool) -> bytes:
        """Encrypt one chunk. The caller uses every index once."""
        _require_plain(len(plaintext), last=last)
        return self._aead.encrypt(_nonce(index, last=last), plaintext, None)

    def seal_into(self, index: int, plaintext: bytes | memoryview, buffer: memoryview, *, last: bool) -> memoryview:
        """`seal` to the beginning of `buffer`, which has SEALED_CHUNK bytes: large streams take no new memory."""
        _require_plain(len(plaintext), last=last)
        sealed = buffer[: len(plaintext) + TAG]
        self._aead.encrypt_into(_nonce(index, last=last), plaintext, None, sealed)
        return sealed

    def open(self, index: int, sealed: bytes, *, last: bool) -> bytes:
        """Decrypt one chunk that stands at this index, and is or is not the last. Raises CannotOpen."""
        _require_sealed(len(sealed), index, last=last)
        try:
            return self._aead.decrypt(_nonce(index, last=last), sealed, None)
        except InvalidTag:
            raise CannotOpen(_ALTERED.format(index)) from None

    def open_into(self, index: int, sealed: bytes | memoryview, buffer: memoryview, *, last: bool) -> memoryview:
        """`open` to the beginning of `buffer`, which has CHUNK bytes. What it holds counts if this returns."""
        _require_sealed(len(sealed), index, last=last)
        plaintext = buffer[: len(sealed) - TAG]
        try:
            self._aead.decrypt_into(_nonce(index, last=last), sealed, None, plaintext)
        except InvalidTag:
            raise CannotOpen(_ALTERED.format(index)) from None
        return plaintext


class StreamWriter:
    """Encrypts what is written to it. Without `close` the stream has no end, and does not open."""

    def __init__(self, dst: BinaryIO, key: bytes, *, header: bytes) -> None:
        self._chunks = Chunks.new(key, header)
        self._dst = dst
        self._held = bytearray()
        self._index = 0
        dst.write(self._chunks.prologue.to_bytes())

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data).cast("B")
        while view:
            if len(self._held) == CHUNK:  # more follows, so this chunk is not the last
                self._flush(last=False)
            if not self._held and len(view) > CHUNK:  # straight from the caller's memory
                self._emit(view[:CHUNK], last=False)
                view = view[CHUNK:]
            else:
                taken = view[: CHUNK - len(self._held)]
                self._held += taken
                view = view[len(taken) :]

    def close(self) -> None:
        """Write the last chunk; the file below stays open."""
        self._flush(last=True)

    def _flush(self, *, last: bool) -> None:
        with memoryview(self._held) as held:
            self._emit(held, last=last)
        self._held.clear()

    def _emit(self, plaintext: memoryview, *, last: bool) -> None:
        self._dst.write(self._chunks.seal(self._index, plaintext, last=last))
        self._index += 1


def encrypt_stream(src: BinaryIO, dst: BinaryIO, key: bytes, *, header: bytes) -> None:
    """Encrypt all of `src` to `dst` under a 32-byte key. `header` is public and authenticated.

    `dst` takes all that it is given at once, as buffered files do.
    """
    chunks = Chunks.new(key, header)
    dst.write(chunks.prologue.to_bytes())
    for index, plaintext, last in _split(src, CHUNK):
        dst.write(chunks.seal(index, plaintext, last=last))


def decrypt_stream(src: BinaryIO, dst: BinaryIO, key: bytes) -> bytes:
    """Decrypt to `dst`, chunk by authenticated chunk, and return the header.

    What `dst` has got is genuine but may be only a beginning when CannotOpen is raised: discard it then.
    """
    chunks = Chunks(key, Prologue.read(src))
    for plaintext in open_chunks(src, chunks):
        dst.write(plaintext)
    return chunks.prologue.header


def open_chunks(src: BinaryIO, chunks: Chunks) -> Iterator[bytes]:
    """Decrypt the chunks that follow in `src`, up to its end. Raises CannotOpen at the first that does not hold."""
    for index, sealed, last in _split(src, SEALED_CHUNK):
        yield chunks.open(index, sealed, last=last)


class StreamReader:
    """Random access to a stream in a seekable file that holds nothing else. Its length is authenticated first."""

    def __init__(self, src: BinaryIO, key: bytes) -> None:
        src.seek(0)
        self._src = src
        self._chunks = Chunks(key, Prologue.read(src))
        self.header = self._chunks.prologue.header
        self._bytes = src.seek(0, io.SEEK_END) - self._chunks.prologue.offset(0)
        self.count = max(1, -(-self._bytes // SEALED_CHUNK))
        self.size = (self.count - 1) * CHUNK + len(self.chunk(self.count - 1))  # bytes of plaintext

    def chunk(self, index: int) -> bytes:
        """The plaintext of one chunk, 0 to `count` - 1. Raises CannotOpen."""
        if not 0 <= index < self.count:
            raise IndexError(f"a stream of {self.count} chunks has no chunk {index}")
        self._src.seek(self._chunks.prologue.offset(index))
        return self._chunks.open(index, read_up_to(self._src, SEALED_CHUNK), last=index == self.count - 1)


def seal_bytes(plaintext: bytes, key: bytes, *, header: bytes) -> bytes:
    """Encrypt something small under a context, which `open_bytes` must name; the context is readable."""
    dst = io.BytesIO()
    encrypt_stream(io.BytesIO(plaintext), dst, key, header=header)
    return dst.getvalue()


def open_bytes(sealed: bytes, key: bytes, *, header: bytes) -> bytes:
    """Invert `seal_bytes` under the same key and context. Raises CannotOpen or Malformed."""
    src, dst = io.BytesIO(sealed), io.BytesIO()
    if not hmac.compare_digest(decrypt_stream(src, dst, key), header):
        raise CannotOpen("something sealed was sealed under another context")
    return dst.getvalue()


def read_up_to(src: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, or what there is before the end: one `read` of a pipe or socket may give fewer."""
    data = src.read(size)
    if len(data) in (0, size):
        return data
    parts = [data]
    missing = size - len(data)
    while missing and (data := src.read(missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def read_into(src: BinaryIO, view: memoryview) -> int:
    """Fill `view` like `read_up_to`, without a copy where `src` can; returns how many bytes there were."""
    filled = 0
    while filled < len(view):
        rest = view[filled:]
        if isinstance(src, io.IOBase) and hasattr(src, "readinto"):
            count = src.readinto(rest) or 0
        else:
            data = src.read(len(rest))
            rest[: len(data)], count = data, len(data)
        if not count:
            break
        filled += count
    return filled


def _split(src: BinaryIO, size: int) -> Iterator[tuple[int, bytes, bool]]:
    """Cut what follows in `src` into pieces of `size` bytes: index, piece, and whether it is the last."""
    index, piece = 0, read_up_to(src, size)
    while following := read_up_to(src, size):
        yield index, piece, False
        index, piece = index + 1, following
    yield index, piece, True


def _derive(key: bytes, salt: bytes, header: bytes) -> tuple[bytes, bytes]:
    if len(key) != KEY_BYTES:
        raise Malformed(f"the key of an encrypted stream has {KEY_BYTES} bytes")
    both = derive(key, LABEL, pack(MAGIC, CHUNK, Digest.of(header).raw), 2 * KEY_BYTES, salt=salt)
    return both[:KEY_BYTES], both[KEY_BYTES:]


def _require_plain(size: int, *, last: bool) -> None:
    if size != CHUNK and not (last and size < CHUNK):
        raise ValueError("only the last chunk of a stream is short")


def _require_sealed(size: int, index: int, *, last: bool) -> None:
    full, empty = size == SEALED_CHUNK, size == TAG
    if not (full or (last and TAG <= size < SEALED_CHUNK)) or (empty and index > 0):
        raise CannotOpen("an encrypted stream is cut short or has a chunk of another size")


def _nonce(index: int, *, last: bool) -> bytes:
    if not 0 <= index < MAX_CHUNKS:
        raise TooLarge(f"an encrypted stream has at most {MAX_CHUNKS} chunks")
    return index.to_bytes(11, "big") + bytes([last])
