"""Aggregation: what becomes of the members' updates. Memory does not grow with their number."""

from __future__ import annotations

import math

import numpy as np

from superswarm.errors import Malformed
from superswarm.updates.adapter import BLOCK, FLOAT, Adapter, AdapterSpec
from superswarm.values import LIMITS

HEAVIEST = 2**53  # the last weight below which float64 holds every whole number


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

    def add(self, adapter: Adapter, weight: float) -> None:
        """Take one update into the sum; nothing changes if it is refused.

        Raises WrongShapes, NotFinite, or Malformed for a weight that is not above 0 and at most 2**53.
        """
        if not (math.isfinite(weight) and 0 < weight <= HEAVIEST):
            raise Malformed("an update's weight is not above 0 and at most 2**53")
        if self.count >= LIMITS.members:
            raise RuntimeError("more updates than a cohort has members")
        self.spec.check(adapter)
        for name, _, start, stop in self.spec.spans():
            values = adapter[name].reshape(-1)
            for low in range(start, stop, BLOCK):
                high = min(low + BLOCK, stop)
                scaled = self._scratch[: high - low]
                np.multiply(values[low - start : high - start], float(weight), out=scaled, dtype=np.float64)
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
