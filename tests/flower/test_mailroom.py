"""GridMailroom over the in-process grid, honest and dishonest."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from coordinator.flower import GridMailroom
from coordinator.mailroom import Delivery, Outgoing
from superswarm.errors import Malformed, RunStopped
from superswarm.wire import Parcel
from tests.grid import Handler, InProcessGrid, Relay, Tamper, Transit, drop, flip

PARCEL = Parcel(b"head", b"body")


def echo(name: bytes) -> Handler:
    return lambda run, kind, parcel: Parcel(name + b":" + kind.encode(), parcel.head + parcel.body)


def settle(room: GridMailroom, tickets: list[str], *, seconds: float = 0.5) -> list[Delivery]:
    out: list[Delivery] = []
    end = time.monotonic() + seconds
    while len(out) < len(tickets) and time.monotonic() < end:
        out += room.collect(tickets)
        time.sleep(0.005)
    return sorted(out, key=lambda delivery: delivery.peer)


def exchange(tamper: Tamper | None = None) -> list[Delivery]:
    with InProcessGrid({1: echo(b"one"), 2: echo(b"two")}, tamper) as grid:
        room = GridMailroom(grid)
        return settle(room, room.post_all([Outgoing(peer, "hello", PARCEL) for peer in (1, 2)], ttl=60))


def test_every_peer_answers_its_own_ticket() -> None:
    assert [(d.peer, d.parcel) for d in exchange()] == [
        (1, Parcel(b"one:hello", b"headbody")),
        (2, Parcel(b"two:hello", b"headbody")),
    ]


def test_a_ticket_yields_once() -> None:
    with InProcessGrid({1: echo(b"one")}, Relay(reply=lambda t: [t, t])) as grid:
        room = GridMailroom(grid)
        ticket = room.post(1, "hello", PARCEL, ttl=60)
        assert len(settle(room, [ticket])) == 1
        assert room.collect([ticket]) == []


def test_a_peer_that_fails_or_is_away_is_an_empty_delivery() -> None:
    def fail(run: int, kind: str, parcel: Parcel) -> Parcel:
        raise Malformed("the text stays here")

    with InProcessGrid({1: fail}) as grid:
        room = GridMailroom(grid)
        tickets = [room.post(peer, "hello", PARCEL, ttl=60) for peer in (1, 9)]
        assert [(d.peer, d.parcel) for d in settle(room, tickets)] == [(1, None), (9, None)]


def test_peers_are_those_that_are_connected() -> None:
    with InProcessGrid({1: echo(b""), 2: echo(b"")}) as grid:
        grid.offline.add(2)
        assert GridMailroom(grid).peers() == {1}


def test_a_dropping_relay_leaves_tickets_open() -> None:
    assert [d.peer for d in exchange(Relay(request=drop("hello", peers={2})))] == [1]
    assert [d.peer for d in exchange(Relay(reply=drop("hello", peers={2})))] == [1]


def test_an_editing_relay_is_left_to_the_channel() -> None:
    assert [d.parcel for d in exchange(Relay(reply=flip("hello", peers={2})))] == [
        Parcel(b"one:hello", b"headbody"),
        Parcel(b"two:hello", b"headbodx"),
    ]


def test_a_swapping_relay_answers_on_the_ticket_of_the_peer_that_was_asked() -> None:
    def swap(transit: Transit) -> list[Transit]:
        return [replace(transit, peer=3 - transit.peer)]

    assert [(d.peer, d.parcel and d.parcel.head) for d in exchange(Relay(request=swap))] == [
        (1, b"two:hello"),
        (2, b"one:hello"),
    ]


def test_a_stopped_run_is_told_at_the_next_call() -> None:
    with InProcessGrid({1: echo(b"one")}) as grid:
        room = GridMailroom(grid)
        ticket = room.post(1, "hello", PARCEL, ttl=60)
        grid.stop_run()
        for call in (room.peers, lambda: room.post(1, "hello", PARCEL, ttl=60), lambda: room.collect([ticket])):
            with pytest.raises(RunStopped):
                call()


def test_a_kind_is_a_plain_word() -> None:
    with InProcessGrid({1: echo(b"one")}) as grid, pytest.raises(ValueError, match="kind"):
        GridMailroom(grid).post(1, "no.dots", PARCEL, ttl=60)
