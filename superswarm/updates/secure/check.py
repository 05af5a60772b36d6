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
from operator import mul
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
        self._columns = _field(KeyStream(derive(seed, f"{LABEL}/columns", self._context)).take(ROW, WORD))
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
        whole = limbs.size // ROW * ROW
        sums = np.zeros((-(-limbs.size // ROW), 4))  # of each row, with each limb of b: below 2**44
        scratch = np.empty((ROWS, ROW))
        for start in range(0, whole, ROWS * ROW):
            block = limbs[start : min(start + ROWS * ROW, whole)].reshape(-1, ROW)
            here = scratch[: len(block)]
            np.copyto(here, block)
            np.matmul(here, matrix, out=sums[start // ROW : start // ROW + len(block)])
        if whole < limbs.size:
            sums[-1] = limbs[whole:].astype(np.float64) @ matrix[: limbs.size - whole]
        return (weight * self._weight + self._weighed(sums)) % PRIME

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

    def _weighed(self, sums: NDArray[np.float64]) -> int:
        """The rows' sums (rows, 4) times their a, added up."""
        missing = len(sums) - len(self._known)
        if missing > 0:
            self._known += _field(self._rows.take(missing, WORD)).tolist()
        columns = sums.astype(np.uint64).T.tolist()
        return sum(sum(map(mul, self._known, column)) << 16 * j for j, column in enumerate(columns))

    def _limbs_of_columns(self, limbs: int) -> NDArray[np.float64]:
        """b as four limbs of 16 bits (ROW, 4); the limbs of one integer share its b, times their place value."""
        used = self._columns[: ROW // limbs]
        times = [_rotated(used, 16 * j) for j in range(limbs)]  # times 2**16j modulo p
        return np.stack(times, axis=1).view(LIMB).reshape(ROW, 4).astype(np.float64)


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


def _field(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """61 of each word's bits as an element of the field; 0 is twice as likely as any other, which 2**-61 bounds."""
    return (words >> WORD.type(3)) % WORD.type(PRIME)


def _rotated(elements: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    """Elements of the field times 2**bits, for fewer bits than 61: modulo a Mersenne prime, bits go around."""
    return (elements << WORD.type(bits) | elements >> WORD.type(61 - bits)) & WORD.type(PRIME)
