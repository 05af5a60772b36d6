"""Fine-tuning as the protocol sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from superswarm.consortium.manifest import Job
from superswarm.updates.adapter import Adapter, AdapterSpec


class Learner(Protocol):
    """What trains: one adapter on one base model, with one member's data."""

    @property
    def spec(self) -> AdapterSpec: ...
    @property
    def examples(self) -> int:
        """How many training examples the member has."""
        ...

    def initial(self) -> Adapter:
        """The adapter before round 1; the same for every member."""
        ...

    def train(self, adapter: Adapter, round_: int) -> tuple[Adapter, float]:
        """Train from `adapter` for one round: the new adapter, and the mean training loss."""
        ...

    def evaluate(self, adapter: Adapter) -> float:
        """The mean loss a completion token on the member's held-out split."""
        ...


class Learners(Protocol):
    """Loads what trains a job: the base model and the member's data."""

    def load(self, job: Job, keys: Mapping[str, bytes]) -> Learner:
        """Load a job's learner. `keys` are those of its sealed assets, by the assets' names.

        Raises Malformed, Untrusted or Environment where model or data are not what the manifest names, or do not fit.
        """
        ...


class LoadedLearner:
    """A learner that was loaded before there was a job: it serves any."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def load(self, job: Job, keys: Mapping[str, bytes]) -> Learner:
        del job, keys
        return self._learner
