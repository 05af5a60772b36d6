"""Aggregation that some members cannot steer: rules that see all updates of a round together, every member equally.

Updates are kept as they came, in float32, in memory only: n updates take n times the bytes of one, and are worked on
in blocks of coordinates, so that nothing else grows with their number. Weights are ignored, as in the papers:
`aggregation_faults` refuses a manifest that wants them. The arithmetic is that of Flower's strategies, which this
layer does not import; the tests compare them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from superswarm.errors import TooLarge
from superswarm.updates.adapter import FLOAT, Adapter, AdapterSpec
from superswarm.updates.aggregate import StreamingMean, clipping, norm, require_weight
from superswarm.values import LIMITS

Vector: TypeAlias = NDArray[np.float32]
Block: TypeAlias = NDArray[np.float32]

BLOCK: Final = 4096  # coordinates of all updates that are worked on together: 50 of them fit a core's cache


class KeptUpdates:
    """The updates of one round, each a flat vector (P,). At most `members` of them; `result` may be asked again."""

    def __init__(self, spec: AdapterSpec, members: int) -> None:
        """Raises TooLarge, before anything is trained, if so many updates are more than may be kept."""
        if members * spec.nbytes > LIMITS.kept_bytes:
            raise TooLarge(
                f"this rule keeps the updates of all {members} members, {members * spec.nbytes} bytes; the limit is "
                f'{LIMITS.kept_bytes}. Choose rule = "fedavg", or "norm-bound" with max_norm, which keep none'
            )
        self.spec = spec
        self.updates: list[Vector] = []
        self._members = members

    def add(self, adapter: Adapter) -> None:
        """Keep a copy. Raises WrongShapes or NotFinite, and then keeps nothing."""
        if len(self.updates) >= self._members:
            raise RuntimeError("more updates than a cohort has members")
        self.spec.check(adapter)
        flat = np.empty(self.spec.parameters, FLOAT)
        for name, _, start, stop in self.spec.spans():
            flat[start:stop] = adapter[name].reshape(-1)
        self.updates.append(flat)

    def blocks(self) -> Iterator[tuple[slice, Block]]:
        """Coordinates, and what all updates have there: (b, n), one row a coordinate. The array is used again."""
        if not self.updates:
            raise RuntimeError("the aggregate of no updates")
        room = np.empty((BLOCK, len(self.updates)), FLOAT)
        for low in range(0, self.spec.parameters, BLOCK):
            part = slice(low, min(low + BLOCK, self.spec.parameters))
            block = room[: part.stop - low]
            for column, update in enumerate(self.updates):
                block[:, column] = update[part]
            yield part, block


class TrimmedMean:
    """Coordinate-wise trimmed mean (arXiv:1803.01498): of each coordinate's values the `cut` smallest and largest go.

    β of the paper is cut / n. Each coordinate of the result lies between values of honest members if at most `cut`
    members are not.
    """

    def __init__(self, spec: AdapterSpec, members: int, cut: int) -> None:
        self._kept = KeptUpdates(spec, members)
        self._cut = cut

    def add(self, adapter: Adapter, weight: float) -> None:
        """Keep one update, whatever its weight; nothing changes if it is refused."""
        self._kept.add(adapter)

    def result(self) -> Adapter:
        cut = self._cut_of(len(self._kept.updates))
        return _by_coordinate(self._kept, cut)

    def _cut_of(self, count: int) -> int:
        if count <= 2 * self._cut:
            raise RuntimeError(f"{count} updates, of which {self._cut} are cut at both ends")
        return self._cut


class Median(TrimmedMean):
    """Coordinate-wise median (arXiv:1803.01498): the trimmed mean that leaves one value, or two of an even number.

    Each coordinate of the result lies between values of honest members if these are more than half.
    """

    def __init__(self, spec: AdapterSpec, members: int) -> None:
        super().__init__(spec, members, 0)

    def _cut_of(self, count: int) -> int:
        return (count - 1) // 2


class MultiKrum:
    """Multi-Krum (arXiv:1703.02757): the mean of the `selected` updates that lie closest to their nearest others.

    An update's score is the sum of squared distances to its n - f - 2 nearest others, f being `byzantine`. Of equal
    scores the update that came first counts as lower.
    """

    def __init__(self, spec: AdapterSpec, members: int, byzantine: int, selected: int) -> None:
        self._kept = KeptUpdates(spec, members)
        self._byzantine, self._selected = byzantine, selected

    def add(self, adapter: Adapter, weight: float) -> None:
        """Keep one update, whatever its weight; nothing changes if it is refused."""
        self._kept.add(adapter)

    def result(self) -> Adapter:
        n, f = len(self._kept.updates), self._byzantine
        if n < 2 * f + 3 or self._selected > n - f - 2:
            raise RuntimeError(f"Multi-Krum of {n} updates, {f} of them byzantine, {self._selected} selected")
        chosen = np.argsort(self.scores(), kind="stable")[: self._selected]
        mean = StreamingMean(self._kept.spec)
        for index in sorted(chosen):
            mean.add(self._kept.spec.views(self._kept.updates[index]), 1)
        return mean.result()

    def scores(self) -> NDArray[np.float64]:
        """Each update's score, (n,)."""
        distances = squared_distances(self._kept)
        np.fill_diagonal(distances, np.inf)
        nearest: NDArray[np.float64] = np.sort(distances, axis=1)[:, : len(distances) - self._byzantine - 2]
        scores: NDArray[np.float64] = nearest.sum(axis=1)
        return scores


class RelativelyClippedMean:
    """The mean of updates clipped to `ratio` times the median of their norms, which follows training as it settles.

    The median, and so the bound, lies between norms of honest members if these are more than half.
    """

    def __init__(self, spec: AdapterSpec, members: int, ratio: float) -> None:
        self._kept = KeptUpdates(spec, members)
        self._ratio = ratio
        self._weights: list[float] = []

    def add(self, adapter: Adapter, weight: float) -> None:
        """Keep one update and its weight; nothing changes if it is refused."""
        require_weight(weight)
        self._kept.add(adapter)
        self._weights.append(weight)

    def result(self) -> Adapter:
        norms = [norm([update]) for update in self._kept.updates]
        bound = self._ratio * float(np.median(norms))
        mean = StreamingMean(self._kept.spec)
        for update, weight, size in zip(self._kept.updates, self._weights, norms, strict=True):
            mean.add(self._kept.spec.views(update), weight, scale=clipping(size, bound))
        return mean.result()


def squared_distances(kept: KeptUpdates) -> NDArray[np.float64]:
    """Squared L2 distances between the updates, (n, n), from their products in float64, block after block."""
    n = len(kept.updates)
    products = np.zeros((n, n))
    for _, block in kept.blocks():
        wide = block.astype(np.float64)
        products += wide.T @ wide
    squares = products.diagonal()
    return np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0)


def _by_coordinate(kept: KeptUpdates, cut: int) -> Adapter:
    """The mean of each coordinate's values without the `cut` smallest and largest."""
    result = np.empty(kept.spec.parameters, FLOAT)  # (P,)
    n = len(kept.updates)
    for part, block in kept.blocks():
        block.sort(axis=1)
        result[part] = block[:, cut : n - cut].mean(axis=1, dtype=np.float64)
    return kept.spec.views(result)
