"""The whole protocol, in one process: what honest members get, who may drop out, who may come back."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.flower import GridMailroom
from superswarm.errors import CohortTooSmall, NotVouched
from tests.grid import Recorder, Relay, Tamper, Transit, drop
from tests.simulator import Learner, SimulatedConsortium


def test_three_members_get_the_weighted_mean() -> None:
    consortium = SimulatedConsortium()
    adapter = consortium.run()
    for name, value in consortium.expected().items():
        np.testing.assert_allclose(adapter[name], value, rtol=1e-6, atol=1e-6)
    assert [learner.rounds for learner in consortium.learners.values()] == [[1, 2, 3]] * 3


def test_equal_weighting_ignores_the_number_of_examples() -> None:
    clause = {"rule": "fedavg", "weighting": "equal", "minimum_cohort": 2, "round_seconds": 60}
    consortium = SimulatedConsortium(aggregation=clause)
    adapter = consortium.run()
    for learner in consortium.learners.values():
        learner.examples = 1
    for name, value in consortium.expected().items():
        np.testing.assert_allclose(adapter[name], value, rtol=1e-6, atol=1e-6)


def test_a_lone_member_trains_alone() -> None:
    consortium = SimulatedConsortium("solo")
    consortium.run()
    assert consortium.learners["solo"].rounds == [1, 2, 3]


def test_the_result_reaches_the_recipients_only() -> None:
    consortium = SimulatedConsortium(result={"recipients": ["bob"]})
    consortium.run()
    assert [len(consortium.results[name].stored) for name in consortium.names] == [0, 1, 0]
    run, container, _ = consortium.results["bob"].stored[0]
    assert (run, container) == ("run-1", b"container")


def test_the_broadcast_is_encrypted_once_and_shared() -> None:
    consortium, recorder = SimulatedConsortium(), Recorder()
    consortium.run(recorder)
    second = [t.parcel for t in recorder.requests if t.kind == "train"][3:6]
    assert len({parcel.body for parcel in second}) == 1
    assert len({parcel.head for parcel in second}) == 3
    first = [t.parcel.body for t in recorder.requests if t.kind == "train"][:3]
    assert first == [b"", b"", b""], "everybody holds the initial adapter already"


def test_a_round_closes_without_a_member_that_vanished() -> None:
    consortium = SimulatedConsortium()
    adapter = consortium.run(Relay(request=drop("train", peers={consortium.trainer_peer("carol")})), join_seconds=5)
    for name, value in consortium.expected("alice", "bob").items():
        np.testing.assert_allclose(adapter[name], value, rtol=1e-6, atol=1e-6)


def test_a_run_stops_when_too_few_answer() -> None:
    clause = {"rule": "fedavg", "weighting": "examples", "minimum_cohort": 3, "round_seconds": 2}
    consortium = SimulatedConsortium(aggregation=clause)
    with pytest.raises(CohortTooSmall, match="2 of 3 members answered"):
        consortium.run(Relay(request=drop("train", peers={consortium.trainer_peer("carol")})))


def test_a_round_closes_at_its_deadline() -> None:
    clause = {"rule": "fedavg", "weighting": "examples", "minimum_cohort": 2, "round_seconds": 1}
    consortium = SimulatedConsortium(aggregation=clause)
    consortium.learners["carol"].delay = 4.0
    consortium.run()
    assert consortium.diary("aggregator").of("left out")[0]["member"] == "carol"


def test_a_restarted_trainer_is_admitted_again() -> None:
    """It lost its keys; the next round's admission asks for new evidence and a new vouch."""
    consortium = SimulatedConsortium()
    consortium.run(consortium.restarting("carol"))
    assert consortium.learners["carol"].rounds == [2, 3]
    assert consortium.diary("aggregator").of("round closed")[-1]["members"] == 3


def test_an_aggregator_that_was_restarted_continues_where_the_members_are() -> None:
    consortium = SimulatedConsortium()

    class Crash(Tamper):
        def request(self, transit: Transit) -> list[Transit]:
            if transit.kind == "train" and transit.number > 0 and len(consortium.learners["alice"].rounds) == 2:
                grid.stop_run()
            return [transit]

    with consortium.grid(Crash()) as grid, pytest.raises(Exception, match="stopped"):
        consortium.aggregator(GridMailroom(grid)).run()
    adapter = consortium.run(attempt=2)
    rounds = consortium.learners["alice"].rounds
    assert rounds[0:2] == [1, 2]
    assert rounds[-1] == 3
    assert rounds.count(1) == 1, "the second attempt did not begin again"
    for name, value in consortium.expected().items():
        np.testing.assert_allclose(adapter[name], value, rtol=1e-6, atol=1e-6)


def test_a_member_with_another_model_is_left_out() -> None:
    consortium = SimulatedConsortium()
    consortium.learners["carol"] = Learner(goal=1.0, shape=(4, 9))
    consortium.trainers["carol"] = consortium.trainer("carol")
    adapter = consortium.run()
    assert "WrongShapes" in consortium.diary("aggregator").errors
    for name, value in consortium.expected("alice", "bob").items():
        np.testing.assert_allclose(adapter[name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("spoil", [float("nan"), float("inf"), 1e39])
def test_an_update_that_is_not_finite_is_left_out(spoil: float) -> None:
    consortium = SimulatedConsortium()
    consortium.learners["carol"].spoil = spoil
    adapter = consortium.run()
    assert all(np.isfinite(value).all() for value in adapter.values())
    for name, value in consortium.expected("alice", "bob").items():
        np.testing.assert_allclose(adapter[name], value, rtol=1e-6, atol=1e-6)


def test_no_quorum_of_nodes_no_run() -> None:
    consortium = SimulatedConsortium()
    nodes = {consortium.node_peer(name) for name in ("bob", "carol")}
    with pytest.raises(CohortTooSmall) as caught:
        consortium.run(Relay(request=drop("hello", peers=nodes)))
    assert NotVouched.__name__ in consortium.diary("aggregator").errors
    assert "1 members vouch" in str(caught.value)


class TestMetrics:
    """What the manifest does not release stays in the TEE."""

    def test_nothing_is_released_by_default(self) -> None:
        consortium = SimulatedConsortium(metrics={})
        consortium.run()
        assert all(not entry["metrics"] for entry in consortium.diary("aggregator").of("round closed"))
        assert all(not consortium.diary(f"node/{name}").of("metrics") for name in consortium.names)

    def test_members_read_theirs_in_sealed_letters(self) -> None:
        consortium = SimulatedConsortium(metrics={"release": ["eval_loss"], "to": ["members"]})
        consortium.run()
        assert all(not entry["metrics"] for entry in consortium.diary("aggregator").of("round closed"))
        for name in consortium.names:
            news = consortium.diary(f"node/{name}").of("metrics")
            assert [entry["round"] for entry in news] == [1, 2, 3, 4]
            assert news[0]["metrics"].keys() == {"eval_loss"}

    def test_the_operator_sees_what_is_released_to_it(self) -> None:
        consortium = SimulatedConsortium(metrics={"release": ["eval_loss"], "to": ["operator"]})
        consortium.run()
        losses = [entry["metrics"]["eval_loss"] for entry in consortium.diary("aggregator").of("round closed")]
        assert losses == sorted(losses, reverse=True)
