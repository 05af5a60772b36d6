"""Letters between members: carried by the aggregator, who cannot read, forge, redirect or repeat them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.flower import GridMailroom
from participants.mailbox import Mailbox
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.letter import Letter, open_letter, seal_letter
from superswarm.crypto.signing import SigningKey
from superswarm.errors import BadSignature, CannotOpen, Malformed, Replay, TooLarge
from superswarm.values import LIMITS, Digest
from superswarm.wire import Header
from tests import consortia
from tests.grid import Recorder
from tests.simulator import SimulatedConsortium

SENDER, RECEIVER = SigningKey.generate(), KemKey.generate()
SECRET = b"a share of a key"


def header(**changes: object) -> Header:
    fields: dict[str, object] = {
        "manifest": Digest.of(b"manifest"),
        "run": "run-1",
        "round": 0,
        "sender": "node/alice",
        "receiver": "node/bob",
        "kind": "share",
        "sequence": 0,
    }
    return Header(**(fields | changes))  # type: ignore[arg-type]


def letter(**changes: object) -> Letter:
    return seal_letter(header(**changes), SECRET, to=RECEIVER.public, sender=SENDER)


def read(one: Letter) -> bytes:
    return open_letter(one, me="node/bob", key=RECEIVER, sender=SENDER.public)


def test_a_letter_opens_for_its_receiver() -> None:
    assert read(Letter.parse(letter().to_bytes())) == SECRET


@pytest.mark.parametrize("field", ["run", "sender", "kind"])
def test_a_letter_under_another_header_is_refused(field: str) -> None:
    with pytest.raises(BadSignature):
        read(replace(letter(), header=header(**{field: "other"})))


def test_a_letter_signed_by_another_is_refused() -> None:
    forged = seal_letter(header(), SECRET, to=RECEIVER.public, sender=SigningKey.generate())
    with pytest.raises(BadSignature):
        read(forged)


def test_a_letter_for_somebody_else_is_refused() -> None:
    with pytest.raises(CannotOpen):
        read(letter(receiver="node/carol"))
    box = Mailbox("node/bob")
    assert [type(error) for error in box.deliver([letter(receiver="node/carol").to_bytes()])] == [CannotOpen]


def test_a_letter_is_accepted_once() -> None:
    box = Mailbox("node/bob")
    assert box.deliver([letter().to_bytes()] * 2) == []
    for expected in (None, Replay):
        one = box.read("node/alice")
        assert one is not None
        if expected is None:
            box.accept(one)
        else:
            with pytest.raises(expected):
                box.accept(one)


def test_one_bad_letter_does_not_hold_up_the_others() -> None:
    box = Mailbox("node/bob")
    errors = box.deliver([b"garbage", letter().to_bytes(), bytes(LIMITS.mail_bytes + 1)])
    assert [type(error) for error in errors] == [Malformed, TooLarge]
    assert box.read("node/alice") is not None


def test_nobodys_letters_crowd_out_anothers() -> None:
    box = Mailbox("node/bob")
    one = letter().to_bytes()
    errors = box.deliver([one] * (LIMITS.mail_count + 1) + [letter(sender="aggregator").to_bytes()])
    assert [type(error) for error in errors] == [TooLarge]
    assert box.read("aggregator") is not None


def test_letters_in_made_up_names_do_not_fill_the_memory() -> None:
    """The relay needs no key for them, and nobody ever reads them."""
    box = Mailbox("node/bob")
    box.deliver([letter(sender="trainer/alice").to_bytes()])
    padded = replace(letter(), sealed=bytes(LIMITS.mail_bytes - 8192))
    for number in range(2 * LIMITS.mailbox_bytes // LIMITS.mail_bytes):
        made_up = replace(padded, header=header(sender=f"trainer/m{number}"))
        assert box.deliver([made_up.to_bytes()]) == []
    held = [one for waiting in box._inbox.values() for one in waiting]
    assert sum(len(one.to_bytes()) for one in held) < 1.1 * LIMITS.mailbox_bytes
    assert box.read("trainer/alice") is not None
    empty = [replace(letter(), header=header(sender=f"trainer/e{n}"), sealed=b"", signature=b"") for n in range(99)]
    box.deliver([one.to_bytes() for one in empty])
    assert box._waiting.total() <= LIMITS.mailbox_bytes


def test_letters_travel_between_members_through_the_aggregator() -> None:
    """Alice's node to bob's node, carol's trainer to alice's node; the relay and the aggregator see ciphertext."""
    consortium, recorder = SimulatedConsortium(), Recorder()

    def write(sender: str, receiver: str, key: SigningKey, to: str) -> Letter:
        head = header(manifest=consortium.manifest.digest, sender=sender, receiver=receiver)
        return seal_letter(head, SECRET, to=consortium.manifest.encryption_key(to), sender=key)

    between_nodes = write("node/alice", "node/bob", consortia.signing_key("alice"), "bob")
    session = SigningKey.generate()
    from_trainer = write("trainer/carol", "node/alice", session, "alice")
    consortium.nodes["alice"].mailbox.post(between_nodes)
    consortium.trainers["carol"].mailbox.post(from_trainer)
    with consortium.grid(recorder) as grid:
        consortium.aggregator(GridMailroom(grid)).run()
    arrived = consortium.nodes["bob"].mailbox.read("node/alice")
    assert arrived is not None
    key = consortia.kem_key("bob")
    assert open_letter(arrived, me="node/bob", key=key, sender=consortia.public_key("alice")) == SECRET
    arrived = consortium.nodes["alice"].mailbox.read("trainer/carol")
    assert arrived is not None
    key = consortia.kem_key("alice")
    assert open_letter(arrived, me="node/alice", key=key, sender=session.public) == SECRET
    assert SECRET not in b"".join(t.parcel.head + t.parcel.body for t in recorder.requests + recorder.replies)


def test_a_member_cannot_send_in_anothers_name() -> None:
    consortium = SimulatedConsortium()
    forged = letter(sender="node/carol", receiver="node/bob", manifest=consortium.manifest.digest)
    consortium.nodes["alice"].mailbox._outbox.append(forged)
    consortium.run()
    assert "Malformed" in consortium.diary("aggregator").errors
    assert consortium.nodes["bob"].mailbox.read("node/carol") is None
