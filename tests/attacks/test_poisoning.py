"""Members that send anything, over the whole protocol: fedavg is steered, the robust rules are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from coordinator.flower import GridMailroom
from superswarm.errors import CohortTooSmall, Environment
from superswarm.updates.adapter import Adapter
from tests.grid import Tamper, Transit
from tests.simulator import Learner, SimulatedConsortium

NAMES = ("alice", "bob", "carol", "dave", "erin")
GOAL = 1.0  # what honest members want every value to be, give or take a tenth
ROBUST: list[dict[str, Any]] = [
    {"rule": "median"},
    {"rule": "trimmed-mean", "byzantine": 1},
    {"rule": "multi-krum", "byzantine": 1, "selected": 2},
]
OPTIMIZERS: list[dict[str, Any]] = [
    {"kind": "fedavgm", "learning_rate": 0.5, "momentum": 0.5},
    {"kind": "nesterov", "learning_rate": 0.5, "momentum": 0.5},
    {"kind": "fedadam", "learning_rate": 0.1},
    {"kind": "fedyogi", "learning_rate": 0.1},
]


@dataclass
class Poisoner(Learner):
    """Claims many examples, and sends an update of this size in one direction."""

    push: float = -1e4

    def train(self, adapter: Adapter, round_: int) -> tuple[Adapter, float]:
        self.rounds.append(round_)
        return {name: value + np.float32(self.push) for name, value in adapter.items()}, 0.0


def consortium(poisoners: int = 1, **clause: Any) -> SimulatedConsortium:
    rule = {"weighting": "equal", "minimum_cohort": 5, "round_seconds": 10}
    made = SimulatedConsortium(*NAMES, aggregation=rule | clause)
    for i, name in enumerate(NAMES):
        poisoner, learner = Poisoner(goal=0.0, examples=10**9), Learner(goal=GOAL + 0.02 * i)
        made.learners[name] = poisoner if i < poisoners else learner
        made.trainers[name] = made.trainer(name)
    return made


def farthest(adapter: Adapter) -> float:
    """How far the worst value is from what honest members want."""
    return max(float(np.abs(value - GOAL).max()) for value in adapter.values())


def honest() -> float:
    """What is left after three rounds that go half of the way each, from values of up to about three."""
    made = consortium(poisoners=0, rule="fedavg")
    return farthest(made.run(join_seconds=10.0))


@pytest.mark.parametrize("clause", ROBUST, ids=lambda clause: str(clause["rule"]))
def test_one_poisoner_of_five_does_not_steer_a_robust_rule(clause: dict[str, Any]) -> None:
    assert farthest(consortium(**clause).run(join_seconds=10.0)) < honest() + 0.2


@pytest.mark.parametrize("weighting", ["equal", "examples"])
def test_one_poisoner_steers_fedavg(weighting: str) -> None:
    assert farthest(consortium(rule="fedavg", weighting=weighting).run(join_seconds=10.0)) > 1000


def test_a_bounded_norm_bounds_what_a_poisoner_reaches() -> None:
    bound, rounds, values = 2.0, 3, 64
    start = Learner(goal=0.0).initial()
    adapter = consortium(rule="norm-bound", max_norm=bound, weighting="examples").run(join_seconds=10.0)
    moved = np.sqrt(sum(np.square(adapter[name] - start[name]).sum() for name in start))
    assert moved <= rounds * bound * 1.00001, "even with all the weight"
    fair = consortium(rule="norm-bound", max_norm_ratio=1.0).run(join_seconds=10.0)
    assert farthest(fair) < 3 + bound / np.sqrt(values)


def test_two_poisoners_are_more_than_was_agreed_to() -> None:
    """What f says is a limit: two alike are their own nearest neighbours."""
    assert farthest(consortium(poisoners=2, **ROBUST[1]).run(join_seconds=10.0)) > 1000


def test_a_relay_that_leaves_honest_members_out_stops_the_run_instead() -> None:
    """Multi-Krum of four would not tolerate its poisoner: the minimum cohort holds."""
    made = consortium(**ROBUST[2], round_seconds=2)

    class Drop(Tamper):
        def request(self, transit: Transit) -> list[Transit]:
            dropped = transit.kind == "train" and transit.peer == made.trainer_peer("erin")
            return [] if dropped else [transit]

    with pytest.raises(CohortTooSmall, match="4 of 5 members answered"):
        made.run(Drop(), join_seconds=10.0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda clause: str(clause["kind"]))
def test_the_servers_step_converges_and_carries_on_over_a_restart(optimizer: dict[str, Any]) -> None:
    """An interrupted run and one that was not give the same bytes: members hold the optimiser's state too."""
    clause = {"rule": "median", "minimum_cohort": 3, "optimizer": optimizer}
    whole, cut = consortium(poisoners=0, **clause), consortium(poisoners=0, **clause)
    expected = whole.run(join_seconds=10.0)

    class Crash(Tamper):
        def request(self, transit: Transit) -> list[Transit]:
            asked.extend([transit.kind] if transit.kind == "train" else [])
            if len(asked) == 11:  # the first of round 3
                grid.stop_run()
            return [transit]

    asked: list[str] = []
    with cut.grid(Crash()) as grid, pytest.raises(Exception, match="stopped"):
        cut.aggregator(GridMailroom(grid), join_seconds=10.0).run()
    adapter = cut.run(attempt=2, join_seconds=10.0)
    assert cut.diary("aggregator").of("continued")
    assert adapter.keys() == expected.keys() == whole.learners["alice"].initial().keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(adapter[name], value)


def test_a_trainer_that_was_restarted_gets_the_servers_state_with_the_adapter() -> None:
    rule = {"rule": "fedavg", "minimum_cohort": 2, "weighting": "equal", "round_seconds": 10}
    made = SimulatedConsortium(aggregation=rule | {"optimizer": OPTIMIZERS[2]})
    made.run(made.restarting("carol"), join_seconds=10.0)
    assert made.learners["carol"].rounds == [2, 3]
    assert made.diary("aggregator").of("round closed")[-1]["members"] == 3


def test_a_machine_too_small_for_the_updates_is_named_before_anybody_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("superswarm.io.capacity.available_memory", lambda: 1)
    made = consortium(**ROBUST[0])
    with pytest.raises(Environment, match="the updates that median keeps"):
        made.run(join_seconds=10.0)
    assert not any(learner.rounds for learner in made.learners.values())
    assert consortium(rule="fedavg", poisoners=0).run(join_seconds=10.0)
