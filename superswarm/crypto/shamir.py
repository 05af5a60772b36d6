"""Shamir's secret sharing (Communications of the ACM 22(11), 1979): any k of n shares give the secret, k - 1 nothing.

Over the integers modulo the Mersenne prime 2**521 - 1, which holds secrets of up to 64 bytes and has a share for
every member of the largest cohort. A share proves nothing about itself: whoever combines shares compares the secret
with something that commits to it. Python's integers are not constant in time; shares are made and combined where no
attacker measures.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from superswarm.errors import Malformed
from superswarm.values import LIMITS
from superswarm.wire import pack, unpack

PRIME: Final = 2**521 - 1
VALUE_BYTES: Final = 66
SECRET_BYTES: Final = 64  # at most
LABEL: Final = "superswarm/v1/share"


@dataclass(frozen=True, slots=True)
class Share:
    """One point of the polynomial: `index` from 1 to the number of shares, and its value (66 bytes). Secret."""

    index: int
    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.index <= LIMITS.members:
            raise Malformed(f"a share's index is from 1 to {LIMITS.members}")
        if len(self.value) != VALUE_BYTES or int.from_bytes(self.value, "big") >= PRIME:
            raise Malformed(f"a share's value is a number below 2**521 - 1, in {VALUE_BYTES} bytes")

    def to_bytes(self) -> bytes:
        return pack(LABEL, self.index, self.value)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Invert `to_bytes`. Raises Malformed."""
        match unpack(data, str, int, bytes, limit=256):
            case [label, int(index), bytes(value)] if label == LABEL:
                return cls(index, value)
            case _:
                raise Malformed("not a share")


def split(secret: bytes, threshold: int, count: int) -> list[Share]:
    """Split a secret of at most 64 bytes into `count` shares, `threshold` of which give it back."""
    if not 1 <= len(secret) <= SECRET_BYTES:
        raise Malformed(f"a secret to share has 1 to {SECRET_BYTES} bytes")
    if not 1 <= threshold <= count <= LIMITS.members:
        raise Malformed(f"a threshold is from 1 to the number of shares, of which there are at most {LIMITS.members}")
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return [Share(x, _evaluate(coefficients, x).to_bytes(VALUE_BYTES, "big")) for x in range(1, count + 1)]


def combine(shares: Sequence[Share], threshold: int, length: int) -> bytes:
    """The secret of `length` bytes that these shares are of. Malformed for too few, or for one that comes twice.

    Shares that do not belong together give a wrong secret, or Malformed where it does not fit into `length` bytes:
    compare what comes out with a commitment.
    """
    points = {share.index: int.from_bytes(share.value, "big") for share in shares}
    if len(points) != len(shares):
        raise Malformed("a share comes twice")
    if len(points) < threshold:
        raise Malformed(f"{len(points)} shares are too few: it takes {threshold}")
    secret = _at_zero(dict(sorted(points.items())[:threshold]))
    if secret >> (8 * length):
        raise Malformed("the shares do not belong together")
    return secret.to_bytes(length, "big")


def _evaluate(coefficients: Sequence[int], x: int) -> int:
    """The polynomial's value at x, by Horner's rule; the constant term comes first."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return value


def _at_zero(points: dict[int, int]) -> int:
    """Lagrange interpolation at 0."""
    numerators, denominators = [], []
    for x, y in points.items():
        top, bottom = y, 1
        for other in points:
            if other != x:
                top = top * other % PRIME
                bottom = bottom * (other - x) % PRIME
        numerators.append(top)
        denominators.append(bottom)
    return sum(top * pow(bottom, -1, PRIME) for top, bottom in zip(numerators, denominators, strict=True)) % PRIME
