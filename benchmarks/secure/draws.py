"""Made-up updates, with tails that are heavier than those of the updates that were measured.

Student's t with 4 degrees of freedom, times a log-normal scale (σ = 0.5) for each of 64 parts: of a million values
the largest is about a hundred times the root mean square. Of SmolLM2-135M's LoRA updates after 8 steps of AdamW it is
2.5 times, with scales of σ = 0.15 (`superswarm bench tails`): real ones are easier to encode. What still heavier
tails do is measured by `superswarm bench encoding`. Members' updates are independent, which is the hardest case: they
cancel in the mean, and an error of the mean is the larger against it. Each has an L2 norm drawn uniformly from 0.7
to 1 of the norm that is agreed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
CLIP_NORM: Final = 1.0
DEGREES: Final = 4
PARTS: Final = 64
SIGMA: Final = 0.5
SMALLEST_NORM: Final = 0.7
BLOCK: Final = 1 << 20
TINY: Final = np.float32(1e-12)  # of two degrees, float32 draws a zero now and then


@dataclass(frozen=True, slots=True)
class Draws:
    """The updates of one cell; the same numbers for the same seed."""

    parameters: int
    seed: int
    degrees: int = DEGREES  # of Student's t; 0: normal
    sigma: float = SIGMA

    def of(self, member: int) -> Vector:
        """A member's update (P,)."""
        rng = np.random.default_rng([self.seed, member])
        update = np.empty(self.parameters, np.float32)
        for start in range(0, self.parameters, BLOCK):
            part = update[start : start + BLOCK]
            rng.standard_normal(out=part, dtype=np.float32)
            if self.degrees:
                chi_square = rng.standard_gamma(self.degrees / 2, part.size, np.float32)
                chi_square *= np.float32(2 / self.degrees)
                np.maximum(chi_square, TINY, out=chi_square)
                part /= np.sqrt(chi_square, out=chi_square)
        for part in np.array_split(update, PARTS):
            part *= np.float32(rng.lognormal(sigma=self.sigma))
        norm = float(np.sqrt(sum(float(np.dot(p, p)) for p in np.array_split(update, PARTS))))
        update *= np.float32(rng.uniform(SMALLEST_NORM, 1.0) * CLIP_NORM / norm)
        return update


class Truth:
    """The exact mean of what was added, in float64, and how far another is from it."""

    def __init__(self, parameters: int) -> None:
        self._sum, self._count = np.zeros(parameters), 0

    def add(self, update: Vector) -> None:
        self._sum += update
        self._count += 1

    def error(self, mean: NDArray[np.float32] | NDArray[np.float64]) -> float:
        """The L2 norm of the difference over the mean's."""
        exact = self._sum / self._count
        return float(np.linalg.norm(mean - exact) / np.linalg.norm(exact))
