"""The channel: one direction, one round, one sequence number, one meaning."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from cryptography.exceptions import InvalidTag

from superswarm.crypto.channel import Channel, open_broadcast, seal_broadcast
from superswarm.errors import CannotOpen, Error, Replay
from superswarm.values import Digest
from superswarm.wire import Header, Parcel, pack, unpack

MANIFEST, TRANSCRIPT = Digest.of(b"manifest"), Digest.of(b"transcript")
SECRETS = (bytes(32), bytes([1]) * 32)
LAST = 5


def channel(me: str, peer: str, **changes: object) -> Channel:
    arguments: dict[str, object] = {
        "secrets": SECRETS,
        "transcript": TRANSCRIPT,
        "manifest": MANIFEST,
        "run": "run-1",
        "last_round": LAST,
    }
    return Channel(me=me, peer=peer, **(arguments | changes))  # type: ignore[arg-type]


def pair(**changes: object) -> tuple[Channel, Channel]:
    return channel("aggregator", "trainer/a"), channel("trainer/a", "aggregator", **changes)


def test_messages_arrive_with_and_without_a_body() -> None:
    left, right = pair()
    assert right.open(left.seal("train", 1, b"head", b"body"), "train") == (b"head", b"body")
    assert right.open(left.seal("train", 2, b"head"), "train", 2) == (b"head", None)
    assert left.open(right.seal("train-done", 2, b"x", b""), "train-done", 2) == (b"x", b"")


def test_every_round_and_direction_has_its_own_keys() -> None:
    left, right = pair()
    sealed = {(who, r): one.seal("k", r, b"same").head for r in (0, 1, 2) for who, one in (("l", left), ("r", right))}
    assert len(set(sealed.values())) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"secrets": (SECRETS[0], bytes([2]) * 32)},
        {"transcript": Digest.of(b"other")},
        {"manifest": Digest.of(b"other")},
        {"run": "run-2"},
    ],
    ids=lambda c: next(iter(c)),
)
def test_another_handshake_manifest_or_run_opens_nothing(changes: dict[str, object]) -> None:
    left, right = pair(**changes)
    with pytest.raises(CannotOpen):
        right.open(left.seal("train", 1, b"head"), "train")


def test_a_message_is_taken_once() -> None:
    left, right = pair()
    parcel = left.seal("train", 1, b"head")
    right.open(parcel, "train")
    with pytest.raises(Replay):
        right.open(parcel, "train")


def test_messages_out_of_order_are_refused() -> None:
    left, right = pair()
    first, second = left.seal("train", 1, b"1"), left.seal("train", 1, b"2")
    right.open(second, "train")
    with pytest.raises(Replay):
        right.open(first, "train")


def test_an_earlier_round_is_over() -> None:
    left, right = pair()
    old, new = left.seal("train", 1, b"1"), left.seal("train", 3, b"3")
    right.open(new, "train")
    with pytest.raises(Replay):
        right.open(old, "train")
    with pytest.raises(RuntimeError):
        right.seal("late", 1, b"")


def test_keys_of_earlier_rounds_are_gone() -> None:
    """Whoever takes the state after round 2 cannot open what was recorded in round 1."""
    left, right = pair()
    recorded = left.seal("train", 1, b"secret")
    left.seal("train", 2, b"")
    right.open(left.seal("train", 2, b"x"), "train")
    raw, sealed = unpack(recorded.head, bytes, bytes)
    for part, sequence in product((0, 1), range(3)):
        nonce = part.to_bytes(4, "big") + sequence.to_bytes(8, "big")
        for key in (right._link.sending.key, right._link.receiving.key):
            with pytest.raises(InvalidTag):
                key.decrypt(nonce, sealed, raw)


def test_what_one_side_sent_is_not_what_the_other_sent() -> None:
    left, _ = pair()
    with pytest.raises(CannotOpen):
        left.open(left.seal("train", 1, b"mine"), "train")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "evaluate"},
        {"round": 2},
        {"sequence": 1},
        {"sender": "trainer/b"},
        {"receiver": "trainer/b"},
        {"run": "run-2"},
        {"manifest": Digest.of(b"other")},
    ],
    ids=lambda c: next(iter(c)),
)
def test_the_header_is_authenticated(change: dict[str, object]) -> None:
    left, right = pair()
    raw, sealed = unpack(left.seal("train", 1, b"head").head, bytes, bytes)
    header = replace(Header.parse(raw), **change)  # type: ignore[arg-type]
    with pytest.raises(CannotOpen):
        right.open(Parcel(pack(header.to_bytes(), sealed)), str(change.get("kind", "train")))


def test_heads_and_bodies_do_not_mix() -> None:
    left, right = pair()
    one, two = left.seal("train", 1, b"1", b"body 1"), left.seal("train", 1, b"2", b"body 2")
    with pytest.raises(CannotOpen):
        right.open(Parcel(one.head, two.body), "train")
    assert right.open(one, "train") == (b"1", b"body 1"), "the failure changed nothing"


def test_a_far_round_is_not_computed() -> None:
    left, right = pair()
    raw, sealed = unpack(left.seal("train", 1, b"").head, bytes, bytes)
    far = replace(Header.parse(raw), round=2**62)
    with pytest.raises(CannotOpen):
        right.open(Parcel(pack(far.to_bytes(), sealed)), "train")


@pytest.mark.parametrize("at", range(0, 60, 3))
def test_garbage_is_ours_to_refuse(at: int) -> None:
    left, right = pair()
    head = bytearray(left.seal("train", 1, b"head").head)
    head[at] ^= 0x55
    with pytest.raises(Error):
        right.open(Parcel(bytes(head)), "train")


def test_confirmation_needs_the_same_keys() -> None:
    left, right = pair()
    left.check_confirmation(right.confirmation("trainer/a"))
    _, stranger = pair(secrets=(bytes(32), bytes(32)))
    for proof in (stranger.confirmation("trainer/a"), right.confirmation("aggregator"), b""):
        with pytest.raises(CannotOpen):
            left.check_confirmation(proof)


def test_a_broadcast_opens_in_its_round_only() -> None:
    context = Header(
        manifest=MANIFEST, run="run-1", round=1, sender="aggregator", receiver="trainers", kind="global", sequence=0
    )
    sealed = seal_broadcast(b"adapter", bytes(32), context)
    assert open_broadcast(sealed, bytes(32), context) == b"adapter"
    for key, other in ((bytes([1]) * 32, context), (bytes(32), replace(context, round=2)), (b"short", context)):
        with pytest.raises(CannotOpen):
            open_broadcast(sealed, key, other)
