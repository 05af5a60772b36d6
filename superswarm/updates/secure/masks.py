"""Masks: what makes a member's integers uniform, and goes away in the sum.

A member's contribution is its encoded update in the ring, its weight modulo 2**64, and its tag modulo p; one stream
gives masks for all three. Whole contributions are never copied: masks are added in blocks, in constant memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from superswarm.crypto.keystream import BLOCK, KeyStream
from superswarm.errors import WrongShapes
from superswarm.updates.secure.check import PRIME, WORD
from superswarm.updates.secure.ring import Code

Sign: TypeAlias = Literal[1, -1]
WEIGHTS: Final = 2**64
TAIL_BYTES: Final = 16  # weight and tag, 8 bytes each
AT_ONCE: Final = 128  # streams read side by side


@dataclass(slots=True)
class Contribution:
    """A member's integers, masked or not; or their sum. Secret unless masked."""

    values: NDArray[Any] = field(repr=False)  # (length,), of the ring's dtype
    weight: int = field(repr=False)  # modulo 2**64
    tag: int = field(repr=False)  # modulo p

    @classmethod
    def zero(cls, code: Code) -> Self:
        return cls(np.zeros(code.length, code.ring.dtype), 0, 0)

    def to_bytes(self) -> bytes:
        return b"".join((self.values.data, self.weight.to_bytes(8, "little"), self.tag.to_bytes(8, "little")))

    @classmethod
    def parse(cls, data: bytes, code: Code) -> Self:
        """Invert `to_bytes`, as a view of `data`. WrongShapes for another length, or a tag outside the field."""
        size = code.length * code.ring.dtype.itemsize
        if len(data) != size + TAIL_BYTES:
            raise WrongShapes(f"a masked update has {size + TAIL_BYTES} bytes, not {len(data)}")
        weight, tag = np.frombuffer(data, WORD, 2, size).tolist()
        if tag >= PRIME:
            raise WrongShapes("a masked update's tag is not in the field")
        return cls(np.frombuffer(data, code.ring.dtype, code.length), weight, tag)

    def add(self, other: Contribution) -> None:
        """Add in the ring, in place."""
        self.values += other.values
        self._shift(other.weight, other.tag)

    def apply(self, masks: Iterable[tuple[bytes, Sign]]) -> None:
        """Add (1) or take off (-1) the masks of these keys (32 bytes each), in place."""
        group: list[tuple[KeyStream, Sign]] = []
        for key, sign in masks:
            group.append((KeyStream(key), sign))
            if len(group) == AT_ONCE:
                self._apply(group)
                group = []
        self._apply(group)

    def _apply(self, streams: list[tuple[KeyStream, Sign]]) -> None:
        step = BLOCK // self.values.itemsize
        scratch = np.empty(min(step, self.values.size), self.values.dtype)
        for start in range(0, self.values.size, step):
            part = self.values[start : start + step]
            mask = scratch[: part.size]
            for stream, sign in streams:
                stream.fill(mask)
                (np.add if sign == 1 else np.subtract)(part, mask, out=part)
        for stream, sign in streams:
            weight, tag = stream.take(2, WORD).tolist()
            self._shift(sign * weight, sign * tag)

    def _shift(self, weight: int, tag: int) -> None:
        self.weight = (self.weight + weight) % WEIGHTS
        self.tag = (self.tag + tag) % PRIME
