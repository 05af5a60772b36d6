"""That a sum is the sum: a one-time linear authenticator whose key the trainers share and the aggregator lacks.

Let p = 2**61 - 1. A secret seed that only trainers know gives, for each round, a vector r over the field of p
elements and for each member a pad. A member whose integers are x sends its tag <r, x> + pad: uniform to everybody
without the seed, so it needs no further encryption. Sums that do not wrap are linear over the field, so the sum X of
the members S must satisfy <r, X> = (sum of tags) - (sum of pads) over S. Whoever does not know r passes any other X
of integers below p with a probability of at most 2/p, however it chooses X and the sum of tags (Carter and Wegman,
JCSS 22, 1981; as the linear MAC of SPDZ, eprint 2011/535). The pads keep even multiples of X from passing.

r is a product: the integers form a matrix M of rows of 8 KiB, and <r, x> = a M b for random vectors a and b. By the
lemma of Schwartz and Zippel a M b hits a given value for M != 0 with a probability of at most 2/p, and only a and b
need to be made. All is exact: limbs of 16 bits in float64, where a row's sums stay below 2**44.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from superswarm.crypto.kdf import derive
from superswarm.crypto.keystream import KeyStream
from superswarm.errors import CannotOpen, Malformed
from superswarm.wire import pack

PRIME: Final = 2**61 - 1
LABEL: Final = "superswarm/v1/sum-check"
ROW: Final = 4096  # limbs of 16 bits in a row: 8 KiB
ROWS: Final = 16  # multiplied at a time
LIMB: Final = np.dtype("<u2")
WORD: Final = np.dtype("<u8")
VALUE_BYTES: Final = 8


class CheckVector:
    """The round's random vector r. The seed (32 bytes) is secret, the context names the round and whose it is."""

    def __init__(self, seed: bytes, round_: int, context: bytes) -> None:
        self._seed, self._context = seed, pack(round_, context)
        columns = KeyStream(derive(seed, f"{LABEL}/columns", self._context)).take(ROW, WORD)
        self._columns = [_field(value) for value in columns.tolist()]
        self._rows = KeyStream(derive(seed, f"{LABEL}/rows", self._context))
        self._known: list[int] = []
        raw = derive(seed, f"{LABEL}/weight", self._context, 16)
        self._weight = int.from_bytes(raw, "big") % PRIME

    def dot(self, values: NDArray[Any], weight: int = 0) -> int:
        """<r, (values, weight)> modulo p, for unsigned integers of 2, 4 or 8 bytes. Malformed for one not below p."""
        flat = np.ascontiguousarray(values).reshape(-1)
        if flat.dtype.kind != "u" or flat.dtype.itemsize not in (2, 4, 8):
            raise TypeError("only unsigned integers of 2, 4 or 8 bytes have a product with the check vector")
        if not 0 <= weight < PRIME or (flat.dtype.itemsize == 8 and flat.size and int(flat.max()) >= PRIME):
            raise Malformed("an integer in a sum is not below 2**61 - 1")
        limbs = flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(LIMB)
        matrix = self._limbs_of_columns(flat.dtype.itemsize // 2)
        total, whole = weight * self._weight, limbs.size // ROW * ROW
        scratch = np.empty((ROWS, ROW))
        for start in range(0, whole, ROWS * ROW):
            block = limbs[start : min(start + ROWS * ROW, whole)].reshape(-1, ROW)
            total += self._product(start // ROW, block, scratch[: len(block)], matrix)
        if whole < limbs.size:
            rest = limbs[whole:].reshape(1, -1)
            total += self._product(whole // ROW, rest, scratch[:1, : rest.size], matrix[: rest.size])
        return total % PRIME

    def pad(self, member: str) -> int:
        """What hides this member's product."""
        raw = derive(self._seed, f"{LABEL}/pad", pack(self._context, member), 16)
        return int.from_bytes(raw, "big") % PRIME

    def tag(self, member: str, values: NDArray[Any], weight: int = 0) -> int:
        """What the member sends: its product under its pad. Once a round, or the difference shows."""
        return (self.dot(values, weight) + self.pad(member)) % PRIME

    def accepts(self, total: NDArray[Any], tags: int, members: Iterable[str], weight: int = 0) -> bool:
        """Whether these are the sums of the values, tags and weights of exactly these members."""
        pads = sum(self.pad(member) for member in members)
        return (self.dot(total, weight) + pads - tags) % PRIME == 0

    def _product(
        self, first: int, block: NDArray[np.uint16], scratch: NDArray[np.float64], matrix: NDArray[np.float64]
    ) -> int:
        """Rows `first` and following: sum of a_i * (block_i . b), where `matrix` (ROW, 4) has the limbs of b."""
        np.copyto(scratch, block)
        sums = (scratch @ matrix).astype(np.uint64).tolist()  # (rows, 4), each below 2**44
        return sum(
            self._row(first + i) * (s0 + (s1 << 16) + (s2 << 32) + (s3 << 48))
            for i, (s0, s1, s2, s3) in enumerate(sums)
        )

    def _row(self, index: int) -> int:
        while index >= len(self._known):
            self._known += [_field(value) for value in self._rows.take(ROWS, WORD).tolist()]
        return self._known[index]

    def _limbs_of_columns(self, limbs: int) -> NDArray[np.float64]:
        """b as four limbs of 16 bits (ROW, 4); the limbs of one integer share its b, times their place value."""
        values = [(self._columns[i] << 16 * j) % PRIME for i in range(ROW // limbs) for j in range(limbs)]
        return np.array(values, WORD).view(LIMB).reshape(ROW, 4).astype(np.float64)


def seal_value(seed: bytes, context: bytes, member: str, value: int) -> bytes:
    """Encrypt one field element for the others who know the seed. A member seals one value under a context."""
    if not 0 <= value < PRIME:
        raise ValueError("not an element of the field")
    return _value_key(seed, context, member).encrypt(bytes(12), value.to_bytes(VALUE_BYTES, "big"), None)


def open_value(seed: bytes, context: bytes, member: str, sealed: bytes) -> int:
    """Invert `seal_value`. Raises CannotOpen for another seed, context or member, Malformed outside the field."""
    try:
        value = int.from_bytes(_value_key(seed, context, member).decrypt(bytes(12), sealed, None), "big")
    except (InvalidTag, ValueError):
        raise CannotOpen(f"the check value of {member} does not open in this context") from None
    if value >= PRIME:
        raise Malformed("a check value is not an element of the field")
    return value


def _value_key(seed: bytes, context: bytes, member: str) -> AESGCM:
    return AESGCM(derive(seed, f"{LABEL}/value", pack(context, member)))


def _field(word: int) -> int:
    """61 of a word's bits as an element of the field; 0 is twice as likely as any other, which 2**-61 bounds."""
    return (word >> 3) % PRIME
