"""From an update to integers whose sum is exact, and back from the sum to the mean.

    clip to a norm -> weigh -> rotate -> round at random -> shift above zero

The rotation is a randomised Hadamard transform (Suresh et al., ICML 2017, arXiv:1611.00429): coordinates become alike
and nearly normal whatever the tails of the update, so that one bound for all wastes no bits. The vector of P values
is laid out as a matrix of `block` rows, and each column, which holds values from all over the vector, is rotated by
itself: y = H D x / sqrt(block), with the same signs D for all columns. The longer a vector, the further its largest
values stand out: in long ones 16 columns are rotated together, with signs of their own, as one of 65,536 values. Some
columns at a time, which fit into the processor's cache, make a part; the integers of a part lie together.

Rounding is stochastic, with a subtractive dither (Schuchman, IEEE Trans. Comm. 12, 1964): all members add the same
public random fraction before they round down, and whoever decodes takes it off again. No value is lost to a bias,
however small it is, and the error has half the variance of rounding with private coins: 1/12 of a squared level.

The ring is as wide as the sum of a cohort needs: nothing wraps, and a member uses all levels that the others leave.
Signs, dither and sums are public. Decoding is exact up to its last multiplication, so that all who decode one sum get
the same bytes on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from superswarm.crypto.kdf import derive
from superswarm.crypto.keystream import KeyStream
from superswarm.errors import Malformed, NotFinite
from superswarm.values import Digest

LABEL: Final = "superswarm/v1/ring"
SMALLEST, LARGEST = 64, 4096  # rows; powers of four, so that their roots are powers of two
PART: Final = 1 << 18  # values of a part, at most
MIXED: Final = 16  # columns that are rotated together, where there are MANY: padding stays below 1.5 %
MANY: Final = 1024
HEADROOM: Final = 5.5  # a rotated coordinate's bound, in its standard deviations; 1 of 26 million is beyond
FACTOR: Final = 8  # rows of the matrices that make up a rotation: small enough to be quick, large enough to be few
WHOLE: Final = 4096  # columns of what they are multiplied with; beyond, BLAS takes a way that is half as fast
FRACTION: Final = 2.0**-8  # the dither is uniform over the odd multiples of half of this below 1: sums stay exact
MOST_LEVELS: Final = 1 << 20  # what float32 resolves with room for a fraction
PAYLOAD_BITS: Final = (8, 20)  # from, to


@dataclass(frozen=True, slots=True)
class Ring:
    """The integers modulo 2**bits, and how many levels each of `members` has so that no sum of theirs wraps."""

    bits: int
    members: int

    @classmethod
    def fitting(cls, members: int, payload_bits: int) -> Ring:
        """The narrowest ring in which each of `members` has 2**payload_bits levels."""
        if members < 1 or not PAYLOAD_BITS[0] <= payload_bits <= PAYLOAD_BITS[1]:
            raise ValueError("no such cohort or payload")
        bits = 16 if members * (2**payload_bits - 1) < 2**16 else 32
        if members * (2**payload_bits - 1) >= 2**bits:
            raise Malformed(f"{members} members with {payload_bits} bits each overflow a ring of {bits} bits")
        return cls(bits, members)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("<u2") if self.bits <= 16 else np.dtype("<u4")

    @property
    def half(self) -> int:
        """A member's integers are from 0 to twice this, which stands for zero."""
        return min(((1 << self.bits) - 1) // self.members, MOST_LEVELS - 1) // 2


@dataclass(frozen=True, slots=True)
class Encoded:
    """One member's integers. `clipped` and `shrunk` are for the member alone."""

    values: NDArray[Any]  # (length,), of the ring's dtype
    clipped: int  # coordinates cut at the bound
    shrunk: float  # what the update was multiplied with to have the agreed norm: 1 where it was within


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """How one round's updates are encoded: the same for all members, and public."""

    ring: Ring
    parameters: int  # P
    clip_norm: float  # an update's largest L2 norm; a longer one is shrunk
    rotation: Digest  # names the round's signs

    @property
    def block(self) -> int:
        """Rows: as many as leave four columns, so that padding is small and each column is like the others."""
        rows = SMALLEST
        while rows < LARGEST and rows * 16 <= self.parameters:
            rows *= 4
        return rows

    @property
    def columns(self) -> int:
        return -(-self.parameters // (self.block * self.mixed)) * self.mixed

    @property
    def mixed(self) -> int:
        """Columns that are rotated together: one or MIXED, where decoding stays exact in float64."""
        largest = self.ring.members * (self.ring.half + 1) * self.block * MIXED  # of a decoded sum
        many = self.parameters > self.block * (MANY - 1)
        return MIXED if many and largest / FRACTION * 2 <= 2**53 else 1

    @property
    def length(self) -> int:
        """Ring elements that make an encoded update."""
        return self.block * self.columns

    @property
    def step(self) -> float:
        """What one level stands for, before weights."""
        return HEADROOM * self.clip_norm / math.sqrt(self.parameters) / self.ring.half

    def encode(self, update: NDArray[np.float32], share: float) -> Encoded:
        """Encode `share` (above 0, at most 1) times an update (P,).

        Raises NotFinite for NaN, infinity, or a norm beyond what float32 can square, Malformed for another size.
        """
        if update.shape != (self.parameters,) or update.dtype != np.float32:
            raise Malformed(f"an update has {self.parameters} values of float32")
        if not 0 < share <= 1:
            raise Malformed("a share is above 0 and at most 1")
        shrunk = min(1.0, self.clip_norm / max(norm(update), 1e-300))
        factor = np.float32(share * shrunk / math.sqrt(self.block * self.mixed) / self.step)
        signs = self._tiled(self._signs().astype(np.float32) * factor)
        values, clipped = np.empty(self.length, self.ring.dtype), 0
        room, dither = _Room(self, np.dtype(np.float32)), self._stream("dither")
        for start, stop in self._parts():
            part, spare = room.matrices(stop - start)
            self._gather(update, start, stop, signs, part)
            part, spare = _rotate(part, spare, self.mixed)
            part += room.dither(dither, spare)
            clipped += self._round(part, values[self.block * start : self.block * stop].reshape(part.shape))
        return Encoded(values, clipped, shrunk)

    def decode(self, total: NDArray[Any], members: int, shares: float) -> NDArray[np.float32]:
        """The weighted mean (P,) from the sum of `members` encoded updates and the sum of their shares."""
        if total.shape != (self.length,) or total.dtype != self.ring.dtype:
            raise Malformed(f"a sum has {self.length} ring elements")
        if not 0 < members <= self.ring.members or not 0 < shares <= members:
            raise Malformed("a sum is of no more members than the ring has room for, with shares of at most 1 each")
        factor = self.step / shares / math.sqrt(self.block * self.mixed)
        signs = self._tiled(self._signs().astype(np.float64) * factor)
        zero = members * (self.ring.half + FRACTION / 2 - 0.5)
        mean = np.empty((self.block, self.columns), np.float32)
        room, dither = _Room(self, np.dtype(np.float64)), self._stream("dither")
        for start, stop in self._parts():
            part, spare = room.matrices(stop - start)  # exact in float64, up to the last multiplication
            np.subtract(total[self.block * start : self.block * stop].reshape(part.shape), zero, out=part)
            added = room.dither(dither, spare)
            added *= members
            part -= added
            part, _ = _rotate(part, spare, self.mixed)
            np.multiply(part, signs[:, : stop - start], out=mean[:, start:stop], casting="same_kind")
        return mean.reshape(-1)[: self.parameters]

    def _signs(self) -> NDArray[np.int8]:
        """D (B, mixed): a sign for each value that is rotated together with others."""
        bits = np.unpackbits(self._stream("signs").take(self.block * self.mixed // 8, np.dtype("u1")))
        return np.where(bits, 1, -1).astype(np.int8).reshape(self.block, self.mixed)

    def _tiled(self, signs: NDArray[Any]) -> NDArray[Any]:
        """Signs of a part's columns (B, width), or (B, 1) where they are the same for all."""
        return signs if self.mixed == 1 else np.tile(signs, (1, PART // self.block // self.mixed))

    def _stream(self, purpose: str) -> KeyStream:
        return KeyStream(derive(self.rotation.raw, f"{LABEL}/{purpose}", b""))

    def _parts(self) -> list[tuple[int, int]]:
        width = max(1, PART // self.block)
        return [(start, min(start + width, self.columns)) for start in range(0, self.columns, width)]

    def _gather(
        self,
        update: NDArray[np.float32],
        start: int,
        stop: int,
        signs: NDArray[np.float32],
        out: NDArray[np.float32],
    ) -> None:
        """Columns `start` to `stop` of D x, into `out`; what the vector lacks is zero."""
        rows = self.parameters // self.columns
        whole = update[: rows * self.columns].reshape(rows, self.columns)
        np.multiply(whole[:, start:stop], signs[:rows, : stop - start], out=out[:rows])
        out[rows:] = 0
        rest = update[rows * self.columns :][start:stop]
        if rest.size:
            out[rows, : rest.size] = rest * signs[rows, : rest.size]

    def _round(self, dithered: NDArray[np.float32], out: NDArray[Any]) -> int:
        """Round to integers from 0 to 2·half into `out`, and count those that were cut."""
        dithered += np.float32(self.ring.half + FRACTION / 2)  # above zero, so that the cast below rounds down
        top, clipped = 2 * self.ring.half, 0
        if dithered.min() < 0 or dithered.max() >= top + 1:
            clipped = int(np.count_nonzero((dithered < 0) | (dithered >= top + 1)))
            np.clip(dithered, 0, top, out=dithered)
        np.copyto(out, dithered, casting="unsafe")
        return clipped


class _Room:
    """Memory for one part, used over and over: fresh memory costs as much as the arithmetic."""

    def __init__(self, code: Code, dtype: np.dtype[Any]) -> None:
        self._rows, width = code.block, min(code.columns, max(1, PART // code.block))
        self._one, self._other = np.empty((2, self._rows * width), dtype)
        self._raw = np.empty(self._rows * width, np.uint8)

    def matrices(self, columns: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Two of a part's shape, contiguous. What they hold is of no meaning."""
        size = self._rows * columns
        return self._one[:size].reshape(self._rows, columns), self._other[:size].reshape(self._rows, columns)

    def dither(self, stream: KeyStream, out: NDArray[Any]) -> NDArray[Any]:
        """The next dither, less half a FRACTION."""
        raw = self._raw[: out.size]
        stream.fill(raw)
        np.multiply(raw.reshape(out.shape), out.dtype.type(FRACTION), out=out)
        return out


def norm(update: NDArray[np.float32]) -> float:
    """The L2 norm of a vector; NotFinite for NaN, infinity, or where a square overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = math.fsum(float(np.dot(p, p)) for p in (update[i : i + PART] for i in range(0, update.size, PART)))
    if not math.isfinite(squares):
        raise NotFinite("an update holds NaN, infinity, or values too large to square")
    return math.sqrt(squares)


def _rotate(matrix: NDArray[Any], spare: NDArray[Any], mixed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """H times each `mixed` columns of (B, columns), unnormalised, by Sylvester's factors; and what is spare now.

    Integers in float64 stay exact in any order of summation, as long as their sums are below 2**53.
    """
    rows, columns = matrix.shape
    done = 1
    while done < rows:
        size = min(FACTOR, rows // done)
        rest = rows // (done * size) * columns
        shape = done, size, -1, rest if rest <= WHOLE else math.gcd(rest, WHOLE)
        pieces, out = (m.reshape(shape).transpose(0, 2, 1, 3) for m in (matrix, spare))
        np.matmul(_sylvester(size).astype(matrix.dtype), pieces, out=out)
        matrix, spare = spare, matrix
        done *= size
    if mixed > 1:
        np.matmul(matrix.reshape(-1, mixed), _sylvester(mixed).astype(matrix.dtype), out=spare.reshape(-1, mixed))
        matrix, spare = spare, matrix
    return matrix, spare


@cache
def _sylvester(size: int) -> NDArray[np.int8]:
    """Hadamard's matrix of a power of two."""
    if size == 1:
        return np.ones((1, 1), np.int8)
    smaller = _sylvester(size // 2)
    return np.block([[smaller, smaller], [smaller, -smaller]])
