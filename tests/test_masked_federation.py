"""Masked runs of a whole consortium: every handler, channel and message is the product's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coordinator.flower import GridMailroom
from superswarm.errors import CohortTooSmall
from superswarm.updates.secure.combine import SumRound
from superswarm.updates.secure.messages import Introduce
from superswarm.wire import Parcel
from tests.grid import Recorder, Relay, Tamper, Transit, drop, lose_first
from tests.simulator import SimulatedConsortium

FOUR = ("alice", "bob", "carol", "dave")
STEPS = ("keys", "deal", "survivors", "agreed")


def masked(*names: str, **changes: Any) -> SimulatedConsortium:
    """Four members of whom three suffice, each with a weight of its own."""
    names = names or FOUR
    threshold = changes.pop("threshold", len(names) // 2 + 1)
    protection = {
        "mode": "masked",
        "encoding": {"clip_norm": 30.0, "max_weight": 50},
        "masking": {"threshold": threshold, "colluders": 0, "dropouts": len(names) - threshold},
    }
    rule = {"rule": "fedavg", "weighting": "examples", "minimum_cohort": threshold, "round_seconds": 3}
    return SimulatedConsortium(*names, protection=protection, aggregation=rule | changes.pop("rule", {}), **changes)


def assert_close(adapter: Any, expected: Any) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(adapter[name], value, atol=1e-2)


def test_a_masked_run_trains_the_same_adapter() -> None:
    consortium = masked()
    adapter = consortium.run()
    assert_close(adapter, consortium.expected())
    assert not consortium.diary("aggregator").of("left out")
    assert [learner.rounds for learner in consortium.learners.values()] == [[1, 2, 3]] * 4


def test_trainers_make_each_next_adapter_of_the_sum_themselves() -> None:
    """No adapter is broadcast: the order's body is two bytes a parameter, and all hold what the aggregator has."""
    consortium, recorder = masked(), Recorder()
    consortium.run(recorder)
    later = [t.parcel.body for t in recorder.requests if t.kind == "train"][4:]
    elements = 64  # 64 parameters in one block
    assert {len(body) for body in later} == {2 * elements + 16 + 16}
    assert len(set(later)) == 2, "one ciphertext a round"


def test_equal_weights_and_a_server_optimiser_work_the_same() -> None:
    optimizer = {"kind": "fedavgm", "learning_rate": 1.0, "momentum": 0.5}
    rule = {"weighting": "equal", "optimizer": optimizer}
    protection = {
        "mode": "masked",
        "encoding": {"clip_norm": 30.0},
        "masking": {"threshold": 3, "colluders": 0, "dropouts": 1},
    }
    clause = {"rule": "fedavg", "minimum_cohort": 3, "round_seconds": 3}
    secure = SimulatedConsortium(*FOUR, protection=protection, aggregation=clause | rule)
    plain = SimulatedConsortium(*FOUR, aggregation=clause | rule)
    assert_close(secure.run(), plain.run())


@pytest.mark.parametrize("step", ["train", *STEPS])
def test_the_sum_survives_a_member_that_vanishes_at_any_step(step: str) -> None:
    """Dave's trainer is cut off at one step of the first round, and admitted again at the next."""
    consortium = masked()
    relay = Relay(request=lose_first(step, peer=consortium.trainer_peer("dave")))
    adapter = consortium.run(relay, join_seconds=5)
    assert [entry["member"] for entry in consortium.diary("aggregator").of("left out")] == ["dave"]
    closed = consortium.diary("aggregator").of("round closed")
    present = 4 if step in ("survivors", "agreed") else 3
    assert [entry["members"] for entry in closed] == [present, 4, 4, 4]
    assert all(np.isfinite(value).all() for value in adapter.values())
    if present == 4:
        assert_close(adapter, consortium.expected())


def test_a_round_with_more_dropouts_than_tolerated_stops_the_run() -> None:
    consortium = masked()
    peers = {consortium.trainer_peer("dave"), consortium.trainer_peer("carol")}
    with pytest.raises(CohortTooSmall):
        consortium.run(Relay(request=drop("deal", peers=peers)))
    assert not consortium.published.adapters


def test_nothing_of_an_update_reaches_the_aggregator() -> None:
    """What the aggregator's TEE opens of a masked update is uniform: no two alike, none like the integers below."""
    consortium = masked()
    seen: list[bytes] = []
    plain = SumRound.masked

    def spy(self: SumRound, member: Any, message: Any, body: bytes) -> None:
        seen.append(body)
        plain(self, member, message, body)

    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(SumRound, "masked", spy)
        consortium.run()
    values = np.concatenate([np.frombuffer(body[:-16], np.uint16) for body in seen])
    assert len(seen) == 12
    assert abs(values.mean() / 65535 - 0.5) < 0.05
    assert len(set(values[:128].tolist())) > 100


def test_metrics_that_are_not_released_stay_with_the_trainer() -> None:
    consortium = masked(metrics={})
    examples: list[int] = []
    from coordinator import aggregator

    parse = aggregator.MemberMetrics.parse

    def spy(data: bytes) -> Any:
        metrics = parse(data)
        examples.append(metrics.examples)
        assert (metrics.train_loss, metrics.eval_loss, metrics.seconds) == (None, None, 0.0)
        return metrics

    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(aggregator.MemberMetrics, "parse", spy)
        consortium.run()
    assert set(examples) == {1}


@pytest.mark.parametrize("spoil", [float("nan"), float("inf"), 1e30])
def test_an_update_that_is_not_finite_never_leaves(spoil: float) -> None:
    consortium = masked()
    consortium.learners["dave"].spoil = spoil
    adapter = consortium.run()
    assert "NotFinite" in consortium.diary("trainer/dave").errors
    assert_close(adapter, consortium.expected("alice", "bob", "carol"))


def test_a_member_with_more_examples_than_the_manifest_allows_sends_nothing() -> None:
    consortium = masked()
    consortium.learners["dave"].examples = 51
    adapter = consortium.run()
    assert "Malformed" in consortium.diary("trainer/dave").errors
    assert_close(adapter, consortium.expected("alice", "bob", "carol"))


def test_a_member_knows_how_much_of_its_update_was_cut() -> None:
    consortium = masked()
    consortium.run()
    entries = consortium.diary("trainer/alice").of("encoded")
    assert [entry["round"] for entry in entries] == [1, 2, 3]
    assert all(entry["shrunk_percent"] == 0 for entry in entries)
    long = masked()
    long.learners["alice"].goal = 40.0
    long.run()
    (first, *_) = long.diary("trainer/alice").of("encoded")
    assert first["shrunk_percent"] == 90, "of 160 at the largest norm of 30, in steps of ten"
    assert not consortium.diary("aggregator").of("encoded")


def test_a_restarted_trainer_is_acquainted_again() -> None:
    consortium = masked()
    consortium.run(consortium.restarting("dave"))
    assert consortium.learners["dave"].rounds == [2, 3]
    assert len(consortium.diary("aggregator").of("acquainted")) == 2


class TestBrokenAggregator:
    """The aggregator's own program misbehaves; trainers hold against it."""

    def test_it_invents_a_peer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It lists keys of its own under dave's name, with his evidence and vouch."""
        from coordinator import secure_round
        from superswarm.attestation.evidence import SessionKeys
        from superswarm.crypto.hpke import KemKey
        from superswarm.crypto.signing import SigningKey

        consortium = masked()
        mine = SessionKeys(kem=KemKey.generate().public, signing=SigningKey.generate().public)
        honest = secure_round.SecureRounds._introduce
        roster = secure_round.Roster.of

        def invent(self: Any, terms: Any, sessions: Any) -> Any:
            forged = {
                m: replace(s, dossier=replace(s.dossier, keys=mine.to_bytes())) if m == "dave" else s
                for m, s in sessions.items()
            }
            return honest(self, terms, forged)

        def of(attempt: Any, number: int, keys: Any) -> Any:
            return roster(attempt, number, {m: mine if m == "dave" else found for m, found in keys.items()})

        monkeypatch.setattr(secure_round.SecureRounds, "_introduce", invent)
        monkeypatch.setattr(secure_round.Roster, "of", of)
        with pytest.raises(CohortTooSmall):
            consortium.run()
        for name in FOUR[:3]:
            assert "NotVouched" in consortium.diary(f"trainer/{name}").errors
        assert all(not learner.rounds for learner in consortium.learners.values())

    def test_it_returns_one_update_as_the_sum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It passes on another sum than was made: nobody trains on it."""
        from coordinator import secure_round

        consortium = masked()
        honest = secure_round.SecureRounds.finish

        def swap(self: Any, sums: Any, spec: Any) -> Any:
            made = honest(self, sums, spec)
            return replace(made, body=bytes([made.body[0] ^ 1]) + made.body[1:])

        monkeypatch.setattr(secure_round.SecureRounds, "finish", swap)
        with pytest.raises(CohortTooSmall):
            consortium.run()
        assert [learner.rounds for learner in consortium.learners.values()] == [[1]] * 4
        assert all("Untrusted" in consortium.diary(f"trainer/{name}").errors for name in FOUR)

    def test_it_gives_an_adapter_instead_of_the_sum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from coordinator import broadcast

        consortium = masked()
        honest = broadcast.Broadcast._form
        monkeypatch.setattr(broadcast.Broadcast, "_form", lambda self, _made: honest(self, None))
        monkeypatch.setattr(broadcast, "Order", lambda **fields: consortium_order(fields))
        with pytest.raises(CohortTooSmall):
            consortium.run()
        assert [learner.rounds for learner in consortium.learners.values()] == [[1]] * 4

    def test_it_gives_an_adapter_after_a_round_that_it_says_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It skips a round: of the one that it says it made, no trainer was part, and each was of the one before."""
        from coordinator import modes

        consortium = masked()
        honest = modes.Masked.round

        def skip(self: Any, number: int, state: Any) -> Any:
            if number > 1:
                state.made = None
                number += 1
            return honest(self, number, state)

        monkeypatch.setattr(modes.Masked, "round", skip)
        with pytest.raises(CohortTooSmall):
            consortium.run()
        assert [learner.rounds for learner in consortium.learners.values()] == [[1]] * 4
        assert all("Untrusted" in consortium.diary(f"trainer/{name}").errors for name in FOUR)

    def test_it_shows_members_different_rosters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from coordinator import secure_round

        consortium = masked()
        honest = secure_round._sealed

        def split(session: Any, message: Any, body: bytes | None = None) -> tuple[str, Parcel]:
            if isinstance(message, Introduce) and session.member == "alice":
                roster = secure_round.Roster.parse(message.roster)
                message = Introduce(roster=replace(roster, number=roster.number + 100).to_bytes())
            return honest(session, message, body)

        monkeypatch.setattr(secure_round, "_sealed", split)
        with pytest.raises(CohortTooSmall):
            consortium.run()
        assert all(not learner.rounds for learner in consortium.learners.values())

    def test_it_repeats_a_round_without_one_member(self) -> None:
        """In a second attempt it leaves dave out of the round that was unmasked with him: the difference is his."""
        consortium = masked()
        crash_after_round_1(consortium)
        peer = consortium.trainer_peer("dave")
        with pytest.raises(CohortTooSmall):
            consortium.run(Relay(request=drop("deal", peers={peer})), attempt=2)
        assert "Untrusted" in consortium.diary("trainer/alice").errors

    @pytest.mark.parametrize("between", [(), ("run-2",)])
    def test_it_repeats_a_round_after_it_said_goodbye(self, between: tuple[str, ...]) -> None:
        """Neither the end of a run nor another run makes trainers forget with whom they unmasked."""
        consortium = masked()
        for run in ("run-1", *between):
            consortium.run(run=run)
        peer = consortium.trainer_peer("dave")
        with pytest.raises(CohortTooSmall):
            consortium.run(Relay(request=drop("deal", peers={peer})), attempt=2, run="run-1")
        assert "Untrusted" in consortium.diary("trainer/alice").errors

    def test_with_the_same_members_the_round_is_repeated(self) -> None:
        consortium = masked()
        crash_after_round_1(consortium)
        assert_close(consortium.run(attempt=2), consortium.expected())
        assert consortium.learners["alice"].rounds == [1, 1, 2, 3]


def crash_after_round_1(consortium: SimulatedConsortium) -> None:
    """The aggregator unmasks the first sum and dies before anybody has it."""

    class Crash(Tamper):
        def request(self, transit: Transit) -> list[Transit]:
            if transit.kind != "train" or transit.peer not in trained:
                trained.update({transit.peer} if transit.kind == "train" else ())
                return [transit]
            grid.stop_run()
            return []

    trained: set[int] = set()
    with consortium.grid(Crash()) as grid, pytest.raises(Exception, match="stopped"):
        consortium.aggregator(GridMailroom(grid)).run()


def consortium_order(fields: dict[str, Any]) -> Any:
    from superswarm.updates.messages import Order

    return Order(**(fields | {"total": b""}))
