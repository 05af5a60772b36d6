"""Aggregation by means, one update at a time: memory does not grow with the number of members.

`robust` has the rules that must see all updates of a round together, `rule` chooses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from superswarm.errors import Malformed
from superswarm.updates.adapter import BLOCK, FLOAT, Adapter, AdapterSpec
from superswarm.values import LIMITS

HEAVIEST = 2**53  # the last weight below which float64 holds every whole number


class Aggregate(Protocol):
    """What becomes of one round's updates. An update that `add` refuses leaves no trace."""

    def add(self, adapter: Adapter, weight: float) -> None: ...

    def result(self) -> Adapter: ...


class StreamingMean:
    """Weighted federated averaging (arXiv:1602.05629), one update at a time: Σ wᵢ·xᵢ / Σ wᵢ.

    Sums in float64: of 16 heavy-tailed updates that gives the exact mean, rounded once to float32 (6e-8 of each
    value). A compensated float32 sum takes as much memory and more time, and a plain one half of both, but either may
    be off by a large part of a value near zero (`benchmarks/aggregation.py`). Holds twice the bytes of one update;
    `result` makes one more.
    """

    def __init__(self, spec: AdapterSpec) -> None:
        self.spec = spec
        self.count = 0
        self._weight = 0.0
        self._sum = np.zeros(spec.parameters)  # (P,), float64
        self._scratch = np.empty(min(BLOCK, spec.parameters))

    def add(self, adapter: Adapter, weight: float, *, scale: float = 1.0) -> None:
        """Take one update, times `scale`, into the sum; nothing changes if it is refused.

        Raises WrongShapes, NotFinite, or Malformed for a weight that is not above 0 and at most 2**53.
        """
        require_weight(weight)
        if self.count >= LIMITS.members:
            raise RuntimeError("more updates than a cohort has members")
        self.spec.check(adapter)
        for name, _, start, stop in self.spec.spans():
            values = adapter[name].reshape(-1)
            for low in range(start, stop, BLOCK):
                high = min(low + BLOCK, stop)
                scaled = self._scratch[: high - low]
                np.multiply(values[low - start : high - start], float(weight) * scale, out=scaled, dtype=np.float64)
                self._sum[low:high] += scaled
        self._weight += weight
        self.count += 1

    def result(self) -> Adapter:
        """The mean so far, as float32 views of one new vector. More updates may follow."""
        if not self.count:
            raise RuntimeError("the mean of no updates")
        mean = np.empty(self.spec.parameters, FLOAT)  # (P,)
        np.divide(self._sum, self._weight, out=mean, dtype=np.float64, casting="same_kind")
        return self.spec.views(mean)


class ClippedMean:
    """Each update clipped to an L2 norm over all its parameters, then averaged (norm bounding, arXiv:1911.07963).

    Whatever a member sends moves the weighted mean by at most its share of the weight times `max_norm`.
    """

    def __init__(self, spec: AdapterSpec, max_norm: float) -> None:
        self._mean = StreamingMean(spec)
        self._max_norm = max_norm

    def add(self, adapter: Adapter, weight: float) -> None:
        """Take one update; nothing changes if it is refused, as `StreamingMean.add` says."""
        self._mean.spec.check(adapter)
        self._mean.add(adapter, weight, scale=clipping(norm(adapter.values()), self._max_norm))

    def result(self) -> Adapter:
        return self._mean.result()


def require_weight(weight: float) -> None:
    """Raise Malformed for a weight that is not above 0 and at most 2**53."""
    if not (math.isfinite(weight) and 0 < weight <= HEAVIEST):
        raise Malformed("an update's weight is not above 0 and at most 2**53")


def norm(arrays: Iterable[NDArray[np.float32]]) -> float:
    """The L2 norm of all values together, in float64: no float32 is so large that its square overflows.

    Without BLAS, whose threads would wait for each other on a shared machine.
    """
    flat = (array.reshape(-1) for array in arrays)
    return math.sqrt(math.fsum(float(np.einsum("i,i->", x, x, dtype=np.float64)) for x in flat))


def clipping(size: float, most: float) -> float:
    """What scales a vector of norm `size` to norm `most`, unless it is no longer anyway."""
    return 1.0 if size <= most else most / size
