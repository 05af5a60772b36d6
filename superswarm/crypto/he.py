"""Homomorphic encryption for sums, by Microsoft SEAL as TenSEAL brings it: the only module that imports TenSEAL.

BFV (eprint 2012/144) sums integers exactly; CKKS (eprint 2016/421) sums real numbers with an error. A ciphertext is
two polynomials. Whoever holds the secret key encrypts under it, and sends the first polynomial and the seed of 64
bytes that the second one is drawn from; whoever has the public key only sends both.

SEAL reads and writes files of its own format only, here in anonymous memory. It is given what this module framed:
every size, type and identifier comes from the parameters, and a peer decides nothing but coefficients, which
`he_words` has read. SEAL compresses what it writes (zstd), and only such bytes are decompressed.

CKKS is not IND-CPA-D (eprint 2020/1533): who has ciphertexts and sees their decryptions, noise included, can find the
secret key. Decryptions stay among the holders of the key.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from superswarm.crypto.he_parameters import Encryption, HeParameters
from superswarm.crypto.he_words import Words, pack_words, unpack_words
from superswarm.errors import Environment, Malformed, Mismatch
from superswarm.values import Digest
from superswarm.wire import pack, unpack

Values: TypeAlias = NDArray[np.uint64] | NDArray[np.float64]
SECRET_LABEL: Final = "superswarm/v1/he-secret-key"  # noqa: S105 - a label
PUBLIC_LABEL: Final = "superswarm/v1/he-public-key"
SEED_BYTES: Final = 64
SEAL_HEADER = struct.Struct("<HBBBBHQ")  # magic, its own size, version (2), compression, reserved, size
SEAL_MAGIC: Final = 0xA15E
ZSTD: Final = 2
CIPHERTEXT_PREFIX: Final = 97  # identifier 32, form 1, five numbers, then the header and count of the array
PLAINTEXT_PREFIX: Final = 72
SEED_TAIL: Final = 81  # header 16, generator 1, seed 64
KEY_LIMIT: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HeSecretKey:
    """A secret key: one polynomial. It decrypts every ciphertext of its parameters and round; never printed."""

    parameters: Digest
    pair: Digest  # of the public key
    polynomial: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        return pack(SECRET_LABEL, self.parameters.raw, self.pair.raw, self.polynomial)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Invert `to_bytes`. Raises Malformed or TooLarge."""
        parameters, pair, polynomial = _fields(data, SECRET_LABEL, 3)
        return cls(Digest(parameters), Digest(pair), polynomial)


@dataclass(frozen=True, slots=True)
class HePublicKey:
    """A public key: two polynomials."""

    parameters: Digest
    polynomials: bytes = field(repr=False)

    @property
    def pair(self) -> Digest:
        """The name of the key pair."""
        return Digest.of(self.to_bytes())

    def to_bytes(self) -> bytes:
        return pack(PUBLIC_LABEL, self.parameters.raw, self.polynomials)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Invert `to_bytes`. Raises Malformed or TooLarge."""
        parameters, polynomials = _fields(data, PUBLIC_LABEL, 2)
        return cls(Digest(parameters), polynomials)


@dataclass(frozen=True, slots=True)
class Encrypted:
    """One fresh ciphertext: its first polynomial, and the seed (64 bytes) or the bytes of the second."""

    first: bytes
    second: bytes


def _fields(data: bytes, label: str, count: int) -> list[bytes]:
    found, *fields = unpack(data, str, *[bytes] * count, limit=KEY_LIMIT)
    if found != label:
        raise Malformed("not a key of homomorphic encryption of this kind")
    return fields


class HeContext:
    """SEAL, set up for one set of parameters. Makes keys, encryptors and decryptors."""

    def __init__(self, parameters: HeParameters) -> None:
        """Raises Malformed for parameters that SEAL refuses, Environment where SEAL or Linux are missing."""
        self.parameters = parameters
        self.seal = _import_seal()
        self.context = self._make_context()
        self.scratch = _Scratch()
        self.frames = _Frames(self)

    def generate(self) -> tuple[HeSecretKey, HePublicKey]:
        """A fresh key pair, from the operating system's randomness."""
        generator = self.seal.KeyGenerator(self.context)
        public = self.seal.PublicKey()
        generator.create_public_key(public)
        digest, frames = self.parameters.digest, self.frames
        shared = HePublicKey(digest, b"".join(frames.read(public, frames.public_prefix, 2)))
        (polynomial,) = frames.read(generator.secret_key(), frames.secret_prefix, 1)
        return HeSecretKey(digest, shared.pair, polynomial), shared

    def encryptor(self, key: HeSecretKey | HePublicKey) -> HeEncryptor:
        """Raises Mismatch for a key of other parameters, Malformed for one that is none."""
        if isinstance(key, HePublicKey) and self.parameters.encryption == "secret":
            raise Mismatch("these parameters leave no room for the noise of encryption under a public key")
        return HeEncryptor(self, key)

    def decryptor(self, key: HeSecretKey) -> HeDecryptor:
        """Raises Mismatch for a key of other parameters, Malformed for one that is none."""
        return HeDecryptor(self, key)

    def _make_context(self) -> Any:
        p, seal = self.parameters, self.seal
        setting = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV if p.scheme == "bfv" else seal.SCHEME_TYPE.CKKS)
        try:
            setting.set_poly_modulus_degree(p.degree)
            setting.set_coeff_modulus([seal.Modulus(prime) for prime in p.primes])
            if p.scheme == "bfv":
                setting.set_plain_modulus(seal.Modulus(p.plain_modulus))
            context = seal.SEALContext(setting, False, seal.SEC_LEVEL_TYPE.TC128)  # noqa: FBT003 - positional only
        except (RuntimeError, ValueError, TypeError):
            raise Malformed("parameters that homomorphic encryption cannot have") from None
        if not context.parameters_set() or context.using_keyswitching():
            raise Malformed(f"parameters that SEAL refuses: {context.parameters_error_name()}")
        return context


class HeEncryptor:
    """Encrypts chunks under one key. Every ciphertext is of fresh randomness."""

    def __init__(self, context: HeContext, key: HeSecretKey | HePublicKey) -> None:
        self.parameters = context.parameters
        self.encryption: Encryption = "secret" if isinstance(key, HeSecretKey) else "public"
        self._context = context
        loaded = context.frames.load_key(key)
        self._encryptor = context.seal.Encryptor(context.context, loaded)
        self._encoder = _Encoder(context)

    def encrypt(self, values: Values) -> Encrypted:
        """Encrypt one plaintext: at most `slots` integers below the plaintext modulus, or real numbers."""
        plaintext, frames = self._encoder.encode(values), self._context.frames
        if self.encryption == "secret":
            return Encrypted(*frames.read_seeded(self._encryptor.encrypt_symmetric(plaintext)))
        ciphertext = self._context.seal.Ciphertext()
        self._encryptor.encrypt(plaintext, ciphertext)
        return Encrypted(*frames.read(ciphertext, frames.full_prefix, 2))


class HeDecryptor:
    """Decrypts sums of ciphertexts."""

    def __init__(self, context: HeContext, key: HeSecretKey) -> None:
        self.parameters = context.parameters
        self._context = context
        self._decryptor = context.seal.Decryptor(context.context, context.frames.load_key(key))
        self._evaluator = context.seal.Evaluator(context.context)
        self._encoder = _Encoder(context)

    def decrypt(self, first: Words, seeds: Sequence[bytes], second: Words | None) -> Values:
        """All slots of one sum: its first polynomial, and the second as seeds of addends and the sum of others.

        What does not come of encryptions decrypts to anything; only a check on the values can tell. Raises Malformed
        where second polynomials cancel out, which those of encryptions do not.
        """
        frames, parts = self._context.frames, []
        if second is not None:
            parts.append(frames.full(first, second))
            first = np.zeros_like(first)
        for seed in seeds:
            parts.append(frames.seeded(first, seed))
            first = np.zeros_like(first)
        total, *others = parts
        try:
            for part in others:
                self._evaluator.add_inplace(total, part)
        except RuntimeError:
            raise Malformed("a sum of ciphertexts encrypts nothing: its second polynomial is zero") from None
        plaintext = self._context.seal.Plaintext()
        self._decryptor.decrypt(total, plaintext)
        return self._encoder.decode(plaintext)


class _Encoder:
    """Between arrays and SEAL's plaintexts: integers in slots (batching), or real numbers at a scale."""

    def __init__(self, context: HeContext) -> None:
        self._context = context
        self._bfv = context.parameters.scheme == "bfv"
        encoder = context.seal.BatchEncoder if self._bfv else context.seal.CKKSEncoder
        self._encoder = encoder(context.context)

    def encode(self, values: Values) -> Any:
        plaintext = self._context.seal.Plaintext()
        if self._bfv:
            self._encoder.encode(values.tolist(), plaintext)
        else:
            self._encoder.encode(values.tolist(), 2.0**self._context.parameters.scale_bits, plaintext)
        return plaintext

    def decode(self, plaintext: Any) -> Values:
        if self._bfv:
            return np.array(self._encoder.decode_uint64(plaintext), np.uint64)
        return np.array(self._encoder.decode_double(plaintext), np.float64)


class _Frames:
    """SEAL's objects from and to polynomials; what surrounds these in SEAL's format is copied from SEAL's own."""

    def __init__(self, context: HeContext) -> None:
        self._context, self._scratch = context, context.scratch
        self._words = 8 * context.parameters.words  # bytes of one polynomial in SEAL's format
        seal, generator = context.seal, context.seal.KeyGenerator(context.context)
        secret, public = generator.secret_key(), seal.PublicKey()
        generator.create_public_key(public)
        encryptor = seal.Encryptor(context.context, public, secret)
        plaintext = _Encoder(context).encode(np.ones(1, np.uint64 if context.parameters.scheme == "bfv" else float))
        ciphertext = seal.Ciphertext()
        encryptor.encrypt(plaintext, ciphertext)
        self.secret_prefix = self._sample(secret, PLAINTEXT_PREFIX, 1)
        self.public_prefix = self._sample(public, CIPHERTEXT_PREFIX, 2)
        self.full_prefix = self._sample(ciphertext, CIPHERTEXT_PREFIX, 2)
        sample = self._inner(encryptor.encrypt_symmetric(plaintext), CIPHERTEXT_PREFIX + self._words + SEED_TAIL)
        self.seeded_prefix = sample[:CIPHERTEXT_PREFIX]
        self.seeded_tail = sample[CIPHERTEXT_PREFIX + self._words : -SEED_BYTES]
        self._check_layout()

    def read(self, sealed: Any, prefix: bytes, count: int) -> list[bytes]:
        """The `count` polynomials of an object of ours, packed."""
        inner = self._inner(sealed, len(prefix) + count * self._words)
        if not inner.startswith(prefix):
            raise RuntimeError("an object of another kind or level than its sample")
        return [self._packed(inner, len(prefix) + index * self._words) for index in range(count)]

    def read_seeded(self, sealed: Any) -> tuple[bytes, bytes]:
        """The first polynomial of a ciphertext of ours, packed, and the seed of its second."""
        inner = self._inner(sealed, len(self.seeded_prefix) + self._words + SEED_TAIL)
        if not inner.startswith(self.seeded_prefix):
            raise RuntimeError("an object of another kind or level than its sample")
        return self._packed(inner, len(self.seeded_prefix)), inner[-SEED_BYTES:]

    def full(self, first: Words, second: Words) -> Any:
        return self._load(self._context.seal.Ciphertext(), self.full_prefix + first.tobytes() + second.tobytes())

    def seeded(self, first: Words, seed: bytes) -> Any:
        if len(seed) != SEED_BYTES:
            raise Malformed(f"the seed of a ciphertext has {SEED_BYTES} bytes")
        framed = self.seeded_prefix + first.tobytes() + self.seeded_tail + seed
        return self._load(self._context.seal.Ciphertext(), framed)

    def load_key(self, key: HeSecretKey | HePublicKey) -> Any:
        """SEAL's key object. Raises Mismatch for a key of other parameters, Malformed for one that is none."""
        p = self._context.parameters
        if key.parameters != p.digest:
            raise Mismatch("a key of homomorphic encryption belongs to other parameters")
        if isinstance(key, HeSecretKey):
            words = unpack_words(key.polynomial, p).tobytes()
            return self._load(self._context.seal.SecretKey(), self.secret_prefix + words)
        halves = key.polynomials[: p.polynomial_bytes], key.polynomials[p.polynomial_bytes :]
        words = b"".join(unpack_words(half, p).tobytes() for half in halves)
        return self._load(self._context.seal.PublicKey(), self.public_prefix + words)

    def _load(self, target: Any, inner: bytes) -> Any:
        header = (SEAL_MAGIC, SEAL_HEADER.size, *self._version, 0, 0, SEAL_HEADER.size + len(inner))
        try:
            self._scratch.load(target, self._context.context, SEAL_HEADER.pack(*header) + inner)
        except (RuntimeError, ValueError, IndexError):
            raise Malformed("SEAL refuses a key or a ciphertext") from None
        return target

    def _inner(self, sealed: Any, size: int) -> bytes:
        """What SEAL wrote, without its header and compression: `size` bytes, or this SEAL is not understood."""
        import pyarrow as pa

        raw = self._scratch.save(sealed)
        magic, length, major, minor, compression, _, total = SEAL_HEADER.unpack_from(raw)
        if (magic, length, compression, total) != (SEAL_MAGIC, SEAL_HEADER.size, ZSTD, len(raw)):
            raise Environment(UNKNOWN_SEAL)
        self._version = (major, minor)
        try:
            return bytes(pa.decompress(raw[SEAL_HEADER.size :], size, codec="zstd", asbytes=True))
        except (OSError, ValueError):
            raise Environment(UNKNOWN_SEAL) from None

    def _sample(self, sealed: Any, prefix: int, count: int) -> bytes:
        return self._inner(sealed, prefix + count * self._words)[:prefix]

    def _packed(self, inner: bytes, start: int) -> bytes:
        p = self._context.parameters
        words = np.frombuffer(inner, np.uint64, p.words, start).reshape(len(p.primes), p.degree)
        return pack_words(words, p)

    def _check_layout(self) -> None:
        """The lengths where the arrays begin are what the parameters say, or this SEAL is not understood."""
        counts = {self.secret_prefix: 1, self.public_prefix: 2, self.full_prefix: 2, self.seeded_prefix: 1}
        words = self._context.parameters.words
        for prefix, polynomials in counts.items():
            if int.from_bytes(prefix[-8:], "little") != polynomials * words:
                raise Environment(UNKNOWN_SEAL)


class _Scratch:
    """A file without a name, in memory, since SEAL's bindings know paths only. Holds secrets: never on a disk."""

    def __init__(self) -> None:
        if not sys.platform.startswith("linux"):
            raise Environment("homomorphic encryption needs Linux: it passes data in anonymous memory (memfd_create)")
        self._file = os.memfd_create("superswarm", os.MFD_CLOEXEC)
        self._path = f"/proc/self/fd/{self._file}"

    def save(self, target: Any) -> bytes:
        target.save(self._path)
        return os.pread(self._file, os.fstat(self._file).st_size, 0)

    def load(self, target: Any, context: Any, data: bytes) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, data, 0)
        target.load(context, self._path)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


UNKNOWN_SEAL: Final = "this TenSEAL writes another format than 0.3.16: install tenseal>=0.3.16,<0.4"


def _import_seal() -> Any:
    try:
        import tenseal.sealapi
    except ImportError:
        raise Environment("homomorphic encryption needs TenSEAL: install superswarm[participant]") from None
    return tenseal.sealapi
