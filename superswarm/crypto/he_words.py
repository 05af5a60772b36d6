"""Polynomials of ciphertexts as bytes and as words: fixed sizes, every coefficient below its prime.

What a peer sends is read here and nowhere else: the library that encrypts never parses a peer's bytes. Adding two
ciphertexts is adding their words modulo the primes, which is all that an aggregator does.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from superswarm.crypto.he_parameters import HeParameters
from superswarm.errors import Malformed

Words: TypeAlias = NDArray[np.uint64]
"""One polynomial, (primes, degree): row j holds the coefficients modulo prime j."""


def pack_words(words: Words, parameters: HeParameters) -> bytes:
    """The bits that each coefficient needs, and no more; `parameters.polynomial_bytes` bytes."""
    return b"".join(_pack_row(row, prime.bit_length()) for row, prime in zip(words, parameters.primes, strict=True))


def unpack_words(data: bytes | memoryview, parameters: HeParameters) -> Words:
    """Invert `pack_words`. Raises Malformed for another size, or a coefficient that is not below its prime."""
    if len(data) != parameters.polynomial_bytes:
        raise Malformed(f"a polynomial has {len(data)} bytes, not {parameters.polynomial_bytes}")
    words = np.empty((len(parameters.primes), parameters.degree), np.uint64)
    start = 0
    for row, prime in zip(words, parameters.primes, strict=True):
        size = parameters.degree // 8 * prime.bit_length()
        row[:] = _unpack_row(np.frombuffer(data, np.uint8, size, start), prime.bit_length())
        if row.max() >= prime:
            raise Malformed("a coefficient of a polynomial is not below its prime")
        start += size
    return words


def add_words(total: Words, words: Words, parameters: HeParameters) -> None:
    """total += words, modulo the primes, in place."""
    total += words  # below 2**61: nothing is carried out
    for row, prime in zip(total, parameters.primes, strict=True):
        np.minimum(row, row - np.uint64(prime), out=row)  # the difference wraps where it would be negative


def subtract_words(total: Words, words: Words, parameters: HeParameters) -> None:
    """total -= words, modulo the primes, in place: inverts `add_words`."""
    total -= words
    for row, prime in zip(total, parameters.primes, strict=True):
        np.minimum(row, row + np.uint64(prime), out=row)  # what is negative wrapped, and comes back


def _pack_row(row: Words, width: int) -> bytes:
    octets = row.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)  # (N, 8)
    bits = np.unpackbits(octets, axis=1, bitorder="little", count=width)  # (N, width)
    return np.packbits(bits.reshape(-1), bitorder="little").tobytes()


def _unpack_row(packed: NDArray[np.uint8], width: int) -> Words:
    """Eight values take `width` bytes: the i-th of each eight is read where its bits begin, and shifted down."""
    groups = packed.size // width
    padded = np.zeros(packed.size + 9, np.uint8)
    padded[: packed.size] = packed
    values = np.empty((8, groups), np.uint64)
    for index, value in enumerate(values):
        start, shift = divmod(index * width, 8)
        words = np.ndarray((groups,), "<u8", padded, start, (width,))
        np.right_shift(words, np.uint64(shift), out=value)
        if shift + width > 64:  # the rest is in a ninth byte
            value |= padded[start + 8 :: width][:groups].astype(np.uint64) << np.uint64(64 - shift)
    values &= np.uint64(2**width - 1)
    return values.T.reshape(-1)
