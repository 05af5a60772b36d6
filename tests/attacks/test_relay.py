"""The relay attacks: it drops, repeats, reorders, swaps, edits, replays, and answers in another's name.

Each attack hits carol; alice and bob are enough for the minimum cohort, so the run goes on without her and ends with
the exact mean of those whose messages were whole.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from superswarm.errors import CohortTooSmall
from superswarm.wire import Parcel
from tests.grid import Relay, Tamper, Transit, drop, flip
from tests.simulator import SimulatedConsortium


@pytest.fixture
def consortium() -> SimulatedConsortium:
    clause = {"rule": "fedavg", "weighting": "examples", "minimum_cohort": 2, "round_seconds": 2}
    return SimulatedConsortium(aggregation=clause)


def without_carol(consortium: SimulatedConsortium, tamper: Tamper, *errors: str) -> None:
    """The run ends, without carol's part, and one of these errors says why."""
    adapter = consortium.run(tamper)
    for name, value in consortium.expected("alice", "bob").items():
        np.testing.assert_allclose(adapter[name], value, rtol=1e-6, atol=1e-6)
    told = consortium.diary("aggregator").errors + consortium.diary("trainer/carol").errors
    assert set(errors) & set(told), told


def at_carol(consortium: SimulatedConsortium, kind: str, change: object) -> Relay:
    """A relay that changes what carol answers to this kind of message."""
    peer = consortium.trainer_peer("carol")

    def reply(transit: Transit) -> list[Transit]:
        if transit.kind != kind or transit.peer != peer:
            return [transit]
        return [replace(transit, parcel=change(transit.parcel))]  # type: ignore[operator]

    return Relay(reply=reply)


def test_dropped_requests(consortium: SimulatedConsortium) -> None:
    relay = Relay(request=drop("train", peers={consortium.trainer_peer("carol")}))
    without_carol(consortium, relay, "Unavailable")


def test_dropped_replies(consortium: SimulatedConsortium) -> None:
    without_carol(consortium, Relay(reply=drop("train", peers={consortium.trainer_peer("carol")})), "Unavailable")


@pytest.mark.parametrize("part", ["head", "body"])
def test_an_edited_update(consortium: SimulatedConsortium, part: str) -> None:
    peer = consortium.trainer_peer("carol")
    without_carol(consortium, Relay(reply=flip("train", part=part, peers={peer})), "CannotOpen", "Malformed")


def test_an_edited_order(consortium: SimulatedConsortium) -> None:
    peer = consortium.trainer_peer("carol")
    without_carol(consortium, Relay(request=flip("train", part="head", peers={peer})), "CannotOpen")


def test_an_edited_broadcast(consortium: SimulatedConsortium) -> None:
    """Round 1 has no broadcast, so carol's first update counts; from round 2 on she takes nothing."""
    peer = consortium.trainer_peer("carol")
    consortium.run(Relay(request=flip("train", part="body", peers={peer})))
    assert "CannotOpen" in consortium.diary("trainer/carol").errors
    assert consortium.learners["carol"].rounds == [1]


def test_a_body_that_is_left_off(consortium: SimulatedConsortium) -> None:
    relay = at_carol(consortium, "train", lambda parcel: Parcel(parcel.head))
    without_carol(consortium, relay, "CannotOpen")


def test_a_repeated_order_is_not_obeyed_twice(consortium: SimulatedConsortium) -> None:
    def request(transit: Transit) -> list[Transit]:
        return [transit, transit] if transit.kind == "train" else [transit]

    with pytest.raises(CohortTooSmall):
        consortium.run(Relay(request=request))
    assert "Replay" in consortium.diary("trainer/carol").errors
    assert consortium.learners["carol"].rounds == [1]


def test_a_repeated_update_counts_once(consortium: SimulatedConsortium) -> None:
    def reply(transit: Transit) -> list[Transit]:
        return [transit, transit] if transit.kind == "train" else [transit]

    adapter = consortium.run(Relay(reply=reply))
    for name, value in consortium.expected().items():
        np.testing.assert_allclose(adapter[name], value, rtol=1e-6, atol=1e-6)


def test_last_rounds_update_in_place_of_this_one(consortium: SimulatedConsortium) -> None:
    peer, kept = consortium.trainer_peer("carol"), []

    def reply(transit: Transit) -> list[Transit]:
        if transit.kind == "train" and transit.peer == peer:
            kept.append(transit)
            return [kept[0]]
        return [transit]

    consortium.run(Relay(reply=reply))
    assert "Replay" in consortium.diary("aggregator").errors
    assert [e["members"] for e in consortium.diary("aggregator").of("round closed")][:2] == [3, 2]


def test_last_rounds_order_and_broadcast(consortium: SimulatedConsortium) -> None:
    peer, kept = consortium.trainer_peer("carol"), []

    def request(transit: Transit) -> list[Transit]:
        if transit.kind == "train" and transit.peer == peer:
            kept.append(transit)
            return [kept[0]]
        return [transit]

    consortium.run(Relay(request=request))
    assert "Replay" in consortium.diary("trainer/carol").errors
    assert consortium.learners["carol"].rounds == [1]


def test_last_rounds_broadcast_under_this_rounds_order(consortium: SimulatedConsortium) -> None:
    bodies = []

    def request(transit: Transit) -> list[Transit]:
        if transit.kind != "train" or not transit.parcel.body:
            return [transit]
        bodies.append(transit.parcel.body)
        if transit.peer != consortium.trainer_peer("carol"):
            return [transit]
        return [replace(transit, parcel=replace(transit.parcel, body=bodies[0]))]

    consortium.run(Relay(request=request))
    assert "CannotOpen" in consortium.diary("trainer/carol").errors


def test_updates_swapped_between_members(consortium: SimulatedConsortium) -> None:
    """Alice's whole reply is given as carol's: it does not open under carol's keys."""
    alices = []

    def reply(transit: Transit) -> list[Transit]:
        if transit.kind == "train" and transit.peer == consortium.trainer_peer("alice"):
            alices.append(transit.parcel)
        if transit.kind == "train" and transit.peer == consortium.trainer_peer("carol"):
            while not alices:
                pass
            return [replace(transit, parcel=alices[-1])]
        return [transit]

    consortium.learners["carol"].delay = 0.3
    without_carol(consortium, Relay(reply=reply), "CannotOpen")


def test_bodies_swapped_between_members(consortium: SimulatedConsortium) -> None:
    alices = []

    def reply(transit: Transit) -> list[Transit]:
        if transit.kind == "train" and transit.peer == consortium.trainer_peer("alice"):
            alices.append(transit.parcel)
        if transit.kind == "train" and transit.peer == consortium.trainer_peer("carol"):
            return [replace(transit, parcel=replace(transit.parcel, body=alices[-1].body))]
        return [transit]

    consortium.learners["carol"].delay = 0.3
    without_carol(consortium, Relay(reply=reply), "CannotOpen")


def test_an_update_made_up_by_the_relay(consortium: SimulatedConsortium) -> None:
    relay = at_carol(consortium, "train", lambda parcel: Parcel(parcel.head[:-40] + bytes(40), bytes(500)))
    without_carol(consortium, relay, "CannotOpen", "Malformed")


@pytest.mark.parametrize("kind", ["hello", "attest", "confirm", "prepare"])
def test_an_edited_handshake(consortium: SimulatedConsortium, kind: str) -> None:
    peer = consortium.trainer_peer("carol")
    consortium.run(Relay(reply=flip(kind, part="head", peers={peer})))
    assert consortium.learners["carol"].rounds == []


@pytest.mark.parametrize("kind", ["hello", "attest", "ask_vouch", "confirm", "prepare"])
def test_a_handshake_message_of_another_run_attempt(consortium: SimulatedConsortium, kind: str) -> None:
    """The relay recorded attempt 1 and plays one message of it into attempt 2."""
    old: dict[int, Parcel] = {}

    def record(transit: Transit) -> list[Transit]:
        if transit.kind == kind:
            old.setdefault(transit.peer, transit.parcel)
        return [transit]

    consortium.run(Relay(request=record))
    consortium.learners["carol"].rounds.clear()
    carols = {consortium.trainer_peer("carol"), consortium.node_peer("carol")}

    def play(transit: Transit) -> list[Transit]:
        if transit.kind == kind and transit.peer in carols and transit.peer in old:
            return [replace(transit, parcel=old[transit.peer])]
        return [transit]

    consortium.run(Relay(request=play), attempt=2)
    assert consortium.learners["carol"].rounds == []


def test_a_forged_hello_does_not_end_a_running_session(consortium: SimulatedConsortium) -> None:
    """A relay may greet a trainer at any time; the channel it has stays until a new aggregator was judged."""

    def request(transit: Transit) -> list[Transit]:
        if transit.kind == "hello":
            hellos.setdefault(transit.peer, transit)
        if transit.kind == "train" and transit.peer in hellos:
            return [hellos[transit.peer], transit]
        return [transit]

    hellos: dict[int, Transit] = {}
    adapter = consortium.run(Relay(request=request))
    for name, value in consortium.expected().items():
        np.testing.assert_allclose(adapter[name], value, rtol=1e-6, atol=1e-6)


def test_the_wire_carries_no_plaintext(consortium: SimulatedConsortium) -> None:
    """Everything that passed, searched for what the learners know: their values as bytes, in any alignment."""
    from tests.grid import Recorder

    recorder = Recorder()
    adapter = consortium.run(recorder)
    seen = b"".join(t.parcel.head + t.parcel.body for t in recorder.requests + recorder.replies)
    initial = consortium.learners["alice"].initial()["lora_A"].tobytes()
    assert initial[:16] not in seen
    assert adapter["lora_A"].tobytes()[:16] not in seen
    assert b"eval_loss" not in seen
