"""Attacks of whoever carries letters about keys: it can repeat, swap, reorder and hold them back."""

from __future__ import annotations

from pathlib import Path

import pytest

from participants.key_desk import KeyDesk
from participants.keyring import AGAIN_SECONDS, KeyRing
from participants.mailbox import Mailbox
from superswarm.crypto.letter import Letter, seal_letter
from superswarm.crypto.signing import SigningKey
from superswarm.errors import BadSignature, CannotOpen, Error, Unavailable
from superswarm.io.keystore import MemberKeys
from tests import consortia
from tests.releases import ALICE, BASE_KEY, BOB, CAROL, NOTES_KEY, Premises, Session, agreed, asker


class Carried:
    """A trainer of one session, Alice's node with her broker, and whoever carries letters between them: the test."""

    def __init__(self, premises: Premises, session: Session) -> None:
        self.clock, self.session = 0.0, session
        self.ring = KeyRing(asker(session), agreed().manifest.assets, lambda: self.clock)
        self.mine, self.alices = Mailbox(f"trainer/{session.member}"), Mailbox("node/alice")
        keys = MemberKeys(ALICE, consortia.signing_key(ALICE), consortia.kem_key(ALICE), bytes(32))
        self.desk = KeyDesk(agreed(), keys, premises.open(), lambda *_, **__: None)

    def asks(self, *answers: bytes) -> tuple[bytes, ...]:
        """What the trainer writes once these letters came."""
        self.mine.deliver(answers)
        self.faults = self.ring.advance(self.mine)
        return self.mine.collect()

    def answers(self, *questions: bytes) -> tuple[bytes, ...]:
        """What Alice's node writes to these letters."""
        self.alices.deliver(questions)
        self.desk.answer(self.alices)
        return self.alices.collect()

    def take(self) -> dict[str, bytes]:
        self.ring.advance(self.mine)
        return dict(self.ring.take())


@pytest.fixture
def premises(tmp_path: Path) -> Premises:
    stocked = Premises(tmp_path).stock()
    stocked.owner.offer(agreed(), "notes")
    return stocked


BOTH = {"base": BASE_KEY, "notes": NOTES_KEY}


@pytest.fixture
def bob(premises: Premises) -> Carried:
    return Carried(premises, Session(BOB))


def test_repeated_and_reordered_letters_change_nothing(bob: Carried) -> None:
    nonces = bob.answers(*bob.asks())
    requests = bob.asks(*reversed(nonces), *nonces, *nonces)
    assert len(requests) == 2
    grants = bob.answers(*requests)
    assert bob.asks(*nonces, *reversed(grants), *grants, *nonces) == ()
    assert bob.take() == BOTH


def test_answers_to_another_session_open_nothing(premises: Premises) -> None:
    """Of the same member in the same run: after a restart of its trainer, say."""
    first, second = Carried(premises, Session(BOB)), Carried(premises, Session(BOB))
    grants = first.answers(*first.asks(*first.answers(*first.asks())))
    second.asks()
    second.asks(*grants)
    assert {type(fault) for fault in second.faults} == {CannotOpen}
    with pytest.raises(Unavailable):
        second.take()
    assert first.asks(*grants) == ()
    assert first.take() == BOTH


def test_letters_swapped_between_members(premises: Premises) -> None:
    bob, carol = Carried(premises, Session(BOB)), Carried(premises, Session(CAROL))
    bobs, carols = bob.answers(*bob.asks()), carol.answers(*carol.asks())
    assert bob.asks(*carols) == ()
    assert carol.asks(*bobs) == ()
    assert len(bob.asks(*bobs)) == 2


def test_an_answer_to_an_earlier_challenge_is_not_taken(bob: Carried) -> None:
    """The trainer asked anew, since the first grant was held back."""
    held_back = bob.answers(*bob.asks(*bob.answers(*bob.asks())))
    bob.clock += AGAIN_SECONDS + 1
    nonces = bob.answers(*bob.asks())
    requests = bob.asks(*held_back, *nonces)
    with pytest.raises(Unavailable):
        bob.take()
    bob.asks(*bob.answers(*requests))
    assert bob.take() == BOTH


def test_the_carrier_cannot_answer_in_the_owners_name(bob: Carried) -> None:
    (nonce, _) = bob.answers(*bob.asks())
    header = Letter.parse(nonce).header
    forged = seal_letter(header, b"", to=bob.session.kem.public, sender=SigningKey.generate())
    bob.asks(forged.to_bytes())
    assert [type(fault) for fault in bob.faults] == [BadSignature]
    with pytest.raises(Error):
        bob.take()


def test_a_slow_relay_does_not_outrun_the_trainer(bob: Carried) -> None:
    """Each answer comes soon enough; both together take longer than a trainer waits for one."""
    letters = bob.asks()
    for _ in range(2):
        answers = bob.answers(*letters)
        bob.clock += AGAIN_SECONDS * 0.6
        assert bob.asks() == ()
        letters = bob.asks(*answers)
    assert bob.take() == BOTH
