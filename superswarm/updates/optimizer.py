"""The server's step: what becomes of the global adapter, given the mean of a round's updates.

The steps act on the mean alone, which is public among those who get the next adapter, so they fit every mode in which
somebody holds their state. That state is part of what members hold (docs/adr/0009): whoever has the adapter and the
mean update makes the next adapter, bit for bit, since each operation is one rounded float32 operation (IEEE 754).
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from superswarm.consortium.aggregation import Adaptive, Momentum, Optimizer
from superswarm.updates.adapter import FLOAT, Adapter, AdapterSpec, require_finite

Vector: TypeAlias = NDArray[np.float32]

FIRST: Final = "server.first-moment"
SECOND: Final = "server.second-moment"


class ServerOptimizer:
    """Makes the next held adapter of the last one and the mean update. Pure: the state is in what is held.

    What is *held* is the global adapter and, beside its tensors, the optimiser's state as further vectors (P,).
    Without an optimiser in the manifest it is the adapter alone, and a step adds the mean update to it.
    """

    def __init__(self, clause: Optimizer | None, spec: AdapterSpec) -> None:
        self.spec = spec
        self._clause = clause
        state = () if clause is None else (FIRST,) if isinstance(clause, Momentum) else (FIRST, SECOND)
        vectors = tuple((name, (spec.parameters,)) for name in state)
        self.held = AdapterSpec(tuple(sorted((*spec.shapes, *vectors))))

    def start(self, adapter: Adapter) -> Adapter:
        """The first held adapter: no momentum, and a second moment of τ² (arXiv:2003.00295, algorithm 2)."""
        self.spec.check(adapter)
        held = dict(adapter)
        if self._clause is not None:
            held[FIRST] = np.zeros(self.spec.parameters, FLOAT)
        if isinstance(self._clause, Adaptive):
            held[SECOND] = np.full(self.spec.parameters, self._clause.tau**2, FLOAT)
        return held

    def adapter(self, held: Adapter) -> Adapter:
        """The part of what is held that is trained, evaluated and published."""
        return {name: held[name] for name, _ in self.spec.shapes}

    def step(self, held: Adapter, delta: Adapter) -> Adapter:
        """What is held after a round whose mean update is `delta`; neither changes.

        Raises WrongShapes, and NotFinite also where the result would not be finite.
        """
        self.held.check(held)
        self.spec.check(delta)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            stepped = self._step(held, delta)
        for array in stepped.values():
            require_finite(array)
        return stepped

    def _step(self, held: Adapter, delta: Adapter) -> Adapter:
        clause = self._clause
        if clause is None:
            return {name: held[name] + delta[name] for name, _ in self.spec.shapes}
        mean = _flat(delta, self.spec)  # (P,)
        if isinstance(clause, Momentum):
            move, state = _momentum(clause, mean, held[FIRST])
        else:
            move, state = _adaptive(clause, mean, held[FIRST], held[SECOND])
        moves = self.spec.views(move)
        return {name: held[name] + moves[name] for name, _ in self.spec.shapes} | state


def _momentum(clause: Momentum, mean: Vector, velocity: Vector) -> tuple[Vector, Adapter]:
    """v ← μv + Δ; fedavgm moves by ηv (arXiv:1909.06335), nesterov by η(Δ + μv), as torch.optim.SGD does."""
    rate, decay = np.float32(clause.learning_rate), np.float32(clause.momentum)
    velocity = decay * velocity + mean
    along = mean + decay * velocity if clause.kind == "nesterov" else velocity
    return rate * along, {FIRST: velocity}


def _adaptive(clause: Adaptive, mean: Vector, first: Vector, second: Vector) -> tuple[Vector, Adapter]:
    """m ← β₁m + (1 - β₁)Δ; v by Adam or Yogi; move by ηm / (√v + τ), without bias correction (arXiv:2003.00295)."""
    first = np.float32(clause.beta1) * first + np.float32(1 - clause.beta1) * mean
    square = mean * mean
    fresh = np.float32(1 - clause.beta2)
    if clause.kind == "fedadam":
        second = np.float32(clause.beta2) * second + fresh * square
    else:
        second = second - fresh * square * np.sign(second - square)
    spread: Vector = np.sqrt(second) + np.float32(clause.tau)
    move: Vector = np.divide(np.float32(clause.learning_rate) * first, spread)
    return move, {FIRST: first, SECOND: second}


def _flat(adapter: Adapter, spec: AdapterSpec) -> Vector:
    return np.concatenate([adapter[name].reshape(-1) for name, _ in spec.shapes])
