"""Encrypted updates and their encrypted sum, as bytes that stream chunk by chunk; the aggregator needs no key.

    update   magic 8 | length 4 | packed header | chunk after chunk: first polynomial, then seed or second polynomial
    sum      magic 8 | length 4 | packed header | chunk after chunk: first polynomial,
             then the sum of the members' second polynomials (if any sent one), then the seeds of the others

Every size follows from the parameters and the header, so that a container that is cut, longer, or of other parameters
is refused before anything of it is used. The header names roster (so run and attempt), round, parameters, key pair
and sender: an update of another round or another key is refused by name, before it would spoil a sum.

The aggregator adds first polynomials modulo the primes, and forwards seeds: expanding them is left to who decrypts.
It so holds one polynomial (two with senders that have the public key only) for all members, and 64 bytes a chunk of
each member's, some 0.2 % of an update.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Self

import numpy as np
from numpy.typing import NDArray

from superswarm.crypto.he import SEED_BYTES, HeDecryptor, HeEncryptor, Values
from superswarm.crypto.he_parameters import Encryption, HeParameters
from superswarm.crypto.he_words import Words, add_words, pack_words, subtract_words, unpack_words
from superswarm.errors import Malformed, Mismatch, NotFinite, Replay, TooLarge, Untrusted
from superswarm.values import LIMITS, Digest, MemberId
from superswarm.wire import pack, unpack, unpack_list

UPDATE_MAGIC: Final = b"SSWHEUP\x01"
SUM_MAGIC: Final = b"SSWHESM\x01"
LABEL: Final = "superswarm/v1/he-sum"
LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True, kw_only=True)
class SumContext:
    """Which sum a ciphertext belongs to. Public; the same for all members of a round."""

    roster: Digest  # which names manifest, run, attempt and members
    round: int
    parameters: Digest
    pair: Digest  # of the key pair, made for this round

    def to_bytes(self) -> bytes:
        return pack(LABEL, self.roster.raw, self.round, self.parameters.raw, self.pair.raw)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Invert `to_bytes`. Raises Malformed."""
        label, roster, round_, parameters, pair = unpack(data, str, bytes, int, bytes, bytes, limit=4096)
        if label != LABEL:
            raise Malformed("not the context of an encrypted sum")
        return cls(roster=Digest(roster), round=round_, parameters=Digest(parameters), pair=Digest(pair))

    def require(self, found: SumContext) -> None:
        """Raise Replay for another roster (run, attempt) or round, Mismatch for other parameters or another key."""
        if (found.roster, found.round) != (self.roster, self.round):
            raise Replay("a ciphertext was made for another run, attempt or round")
        if found != self:
            raise Mismatch("a ciphertext belongs to other parameters or another key")


class Slots:
    """Values of a vector to the plaintexts of ciphertexts, and back: several integers side by side, or reals."""

    def __init__(self, parameters: HeParameters) -> None:
        p = self.parameters = parameters
        self.integers = p.scheme == "bfv"
        self.most = (2**p.field_bits - 1) // p.cohort if self.integers else 0  # of one member, so that sums fit
        self._shifts = np.arange(p.packed, dtype=np.uint64)[:, None] * np.uint64(p.field_bits)  # (packed, 1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of sums: the unsigned integers of the ring, or float64."""
        if not self.integers:
            return np.dtype("<f8")
        return np.dtype("<u2") if self.parameters.field_bits <= 16 else np.dtype("<u4")

    def check(self, values: NDArray[Any]) -> None:
        """Refuse what could carry into a neighbour's field, before anything is encrypted."""
        p = self.parameters
        if values.shape != (p.length,) or values.dtype.kind != ("u" if self.integers else "f"):
            raise Malformed(f"a vector to encrypt has {p.length} {'integers' if self.integers else 'real numbers'}")
        if self.integers and int(values.max()) > self.most:
            raise Malformed(f"a value to encrypt is above {self.most}: the sum of {p.cohort} could overflow")
        if not self.integers and not np.isfinite(values).all():
            raise NotFinite("a value to encrypt is NaN or infinite")

    def fill(self, part: NDArray[Any]) -> Values:
        """One chunk of values, at most `chunk`, as one plaintext."""
        if not self.integers:
            return part.astype(np.float64)
        fields = np.zeros((self.parameters.packed, self.parameters.degree), np.uint64)
        fields.reshape(-1)[: part.size] = part
        packed: NDArray[np.uint64] = np.bitwise_or.reduce(fields << self._shifts, axis=0)  # (degree,)
        return packed

    def take(self, plaintext: Values, count: int) -> NDArray[Any]:
        """Invert `fill` for the first `count` values."""
        if not self.integers:
            return plaintext[:count]
        mask = np.uint64(2**self.parameters.field_bits - 1)
        fields = (plaintext.astype(np.uint64, copy=False) >> self._shifts) & mask  # (packed, degree)
        return fields.reshape(-1)[:count].astype(self.dtype)


def encrypted_bytes(parameters: HeParameters, encryption: Encryption) -> int:
    """What the chunks of one update take on the wire."""
    return parameters.chunks * _chunk_bytes(parameters, encryption)


def encrypt_update(
    values: NDArray[Any], encryptor: HeEncryptor, context: SumContext, sender: MemberId, dst: BinaryIO
) -> None:
    """Encrypt a vector (length,) into `dst`, holding one chunk at a time.

    Raises Malformed for a value whose sum over the cohort could overflow, NotFinite for NaN or infinity.
    """
    slots, p = Slots(encryptor.parameters), encryptor.parameters
    slots.check(values)
    header = pack(LABEL, context.to_bytes(), sender, encryptor.encryption)
    dst.write(UPDATE_MAGIC + LENGTH.pack(len(header)) + header)
    for start in range(0, p.length, p.chunk):
        sealed = encryptor.encrypt(slots.fill(values[start : start + p.chunk]))
        dst.write(sealed.first)
        dst.write(sealed.second)


class HeSum:
    """The aggregator's part: adds encrypted updates of one round. Holds no key, and needs none."""

    def __init__(self, parameters: HeParameters, context: SumContext) -> None:
        p = self.parameters = parameters
        if context.parameters != p.digest:
            raise Mismatch("the context of a sum names other parameters")
        self.context = context
        shape = (len(p.primes), p.degree)
        self._first = np.zeros((p.chunks, *shape), np.uint64)
        self._second = np.zeros((p.chunks if p.encryption == "public" else 0, *shape), np.uint64)
        self._seeds: dict[MemberId, memoryview] = {}  # (chunks · 64 bytes)
        self._members: dict[MemberId, Encryption] = {}

    @property
    def members(self) -> frozenset[MemberId]:
        return frozenset(self._members)

    def add(self, data: bytes | memoryview, sender: MemberId) -> None:
        """Add the update of `sender`, as the channel authenticated it; nothing changes if it is refused.

        Raises Malformed, Replay, Mismatch, or Untrusted for an update in another member's name.
        """
        # (1) It is an update of this round, under this key, in its sender's own name, and the first.
        encryption, chunks = _read_update(data, self.parameters, self.context, sender)
        if sender in self._members:
            raise Replay(f"{sender} has already sent its update of round {self.context.round}")
        if len(self._members) >= self.parameters.cohort:
            raise Untrusted(f"more members than the {self.parameters.cohort} that the sum has room for")
        # (2) Chunk by chunk: every coefficient is below its prime, or what was added before comes off again.
        for index in range(self.parameters.chunks):
            try:
                polynomials = self._polynomials(chunks, index, encryption)
            except Malformed:
                for earlier in range(index):
                    self._change(earlier, self._polynomials(chunks, earlier, encryption), subtract_words)
                raise
            self._change(index, polynomials, add_words)
        # (3) Only now does it count.
        self._members[sender] = encryption
        if encryption == "secret":
            self._seeds[sender] = self._seeds_of(chunks)

    def write(self, dst: BinaryIO) -> None:
        """The encrypted sum so far, chunk by chunk."""
        if not self._members:
            raise RuntimeError("the sum of no updates")
        p, order = self.parameters, sorted(self._members)
        names = [field for member in order for field in (member, self._members[member])]
        header = pack(LABEL, self.context.to_bytes(), *names)
        dst.write(SUM_MAGIC + LENGTH.pack(len(header)) + header)
        for index in range(p.chunks):
            dst.write(pack_words(self._first[index], p))
            if "public" in self._members.values():
                dst.write(pack_words(self._second[index], p))
            for member in order:
                if member in self._seeds:
                    dst.write(self._seeds[member][index * SEED_BYTES : (index + 1) * SEED_BYTES])

    def _change(
        self, index: int, polynomials: Sequence[Words], change: Callable[[Words, Words, HeParameters], None]
    ) -> None:
        for total, words in zip((self._first, self._second), polynomials, strict=False):
            change(total[index], words, self.parameters)

    def _polynomials(self, chunks: memoryview, index: int, encryption: Encryption) -> list[Words]:
        """The first polynomial of a chunk, and the second one if it is not sent as a seed. Raises Malformed."""
        p, size = self.parameters, _chunk_bytes(self.parameters, encryption)
        chunk = chunks[index * size : (index + 1) * size]
        found = [unpack_words(chunk[: p.polynomial_bytes], p)]
        if encryption == "public":
            found.append(unpack_words(chunk[p.polynomial_bytes :], p))
            if not found[1].any():
                raise Malformed("a ciphertext encrypts nothing: its second polynomial is zero")
        return found

    def _seeds_of(self, chunks: memoryview) -> memoryview:
        """A copy of the seeds of an update, one after the other."""
        p, size = self.parameters, _chunk_bytes(self.parameters, "secret")
        starts = range(p.polynomial_bytes, p.chunks * size, size)
        return memoryview(b"".join(chunks[start : start + SEED_BYTES] for start in starts))


def decrypt_sum(
    data: bytes | memoryview, decryptor: HeDecryptor, context: SumContext, members: Sequence[MemberId]
) -> NDArray[Any]:
    """The sum (length,) of the updates of exactly these members, decrypted chunk by chunk.

    What the aggregator claims about the members proves nothing: whoever decrypts compares the sum's product with the
    check vector. Raises Malformed, Replay, Mismatch, CannotOpen, or Untrusted for the sum of other members.
    """
    p, slots = decryptor.parameters, Slots(decryptor.parameters)
    body, kinds = _read_sum(data, p, context)
    if list(kinds) != sorted(members):
        raise Untrusted("an encrypted sum is said to be of other members than those that signed")
    seeded = sum(kind == "secret" for kind in kinds.values())
    at_seeds = p.polynomial_bytes * (1 if seeded == len(kinds) else 2)
    size = at_seeds + seeded * SEED_BYTES
    if len(body) != p.chunks * size:
        raise Malformed(f"an encrypted sum has {len(body)} bytes of chunks, not {p.chunks * size}")
    total = np.empty(p.length, slots.dtype)
    for index in range(p.chunks):
        chunk = body[index * size : (index + 1) * size]
        first, second = chunk[: p.polynomial_bytes], chunk[p.polynomial_bytes : at_seeds]
        seeds = [bytes(chunk[start : start + SEED_BYTES]) for start in range(at_seeds, size, SEED_BYTES)]
        plaintext = decryptor.decrypt(unpack_words(first, p), seeds, unpack_words(second, p) if second else None)
        part = total[index * p.chunk : (index + 1) * p.chunk]
        part[:] = slots.take(plaintext, part.size)
    return total


def _chunk_bytes(parameters: HeParameters, encryption: Encryption) -> int:
    return parameters.polynomial_bytes + (SEED_BYTES if encryption == "secret" else parameters.polynomial_bytes)


def _read_update(
    data: bytes | memoryview, parameters: HeParameters, context: SumContext, sender: MemberId
) -> tuple[Encryption, memoryview]:
    """How the update is encrypted, and its chunks, which have the size that this asks for."""
    header, chunks = _split(data, UPDATE_MAGIC)
    label, raw, name, encryption = unpack(header, str, bytes, str, str, limit=LIMITS.head_bytes)
    if label != LABEL:
        raise Malformed("not the header of an encrypted update")
    kind = _kind(encryption, parameters)
    context.require(SumContext.parse(raw))
    if name != sender:
        raise Untrusted(f"{sender} sent an encrypted update in the name of another")
    if len(chunks) != encrypted_bytes(parameters, kind):
        raise Malformed(f"an encrypted update has {len(chunks)} bytes, not {encrypted_bytes(parameters, kind)}")
    return kind, chunks


def _read_sum(
    data: bytes | memoryview, parameters: HeParameters, context: SumContext
) -> tuple[memoryview, dict[MemberId, Encryption]]:
    """The chunks of a sum, and how each of its members, in order, encrypted."""
    header, chunks = _split(data, SUM_MAGIC)
    match unpack_list(header):
        case [str(label), bytes(raw), *names] if label == LABEL and names and len(names) % 2 == 0:
            pairs = list(zip(names[::2], names[1::2], strict=True))
        case _:
            raise Malformed("not the header of an encrypted sum")
    context.require(SumContext.parse(raw))
    kinds = {MemberId(str(name)): _kind(kind, parameters) for name, kind in pairs}
    if not all(isinstance(name, str) for name, _ in pairs) or list(kinds) != sorted(str(name) for name, _ in pairs):
        raise Malformed("the members of an encrypted sum are not in order, or one comes twice")
    if len(kinds) > parameters.cohort:
        raise Malformed(f"an encrypted sum claims more than {parameters.cohort} members")
    return chunks, kinds


def _kind(text: object, parameters: HeParameters) -> Encryption:
    if text == "secret":
        return "secret"
    if text == "public" and parameters.encryption == "public":
        return "public"
    raise Malformed("a ciphertext is encrypted in a way that these parameters do not allow")


def _split(data: bytes | memoryview, magic: bytes) -> tuple[bytes, memoryview]:
    view = memoryview(data)
    start = len(magic) + LENGTH.size
    if len(view) < start or view[: len(magic)] != magic:
        raise Malformed("not an encrypted update or sum of this version")
    (length,) = LENGTH.unpack_from(view, len(magic))
    if length > LIMITS.head_bytes:
        raise TooLarge(f"an encrypted update claims a header of {length} bytes")
    if length > len(view) - start:
        raise Malformed("the header of an encrypted update is cut short")
    return bytes(view[start : start + length]), view[start + length :]
