"""Attacks on trainers' sessions: an aggregator that introduces, orders and repeats what an honest one never would."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from participants.encrypted_round import EncryptedMember
from participants.secure_round import PeerSession, SecureMember, Unmaskings
from superswarm.errors import Replay, Untrusted
from superswarm.updates.secure.combine import SumRound
from superswarm.updates.secure.links import check_introduction, pass_on
from superswarm.updates.secure.masks import Contribution
from superswarm.updates.secure.messages import Acquaint, Introduce, Introduction, Total
from superswarm.updates.secure.roster import Roster, Terms, accept_roster
from superswarm.updates.secure.seeds import Context, code_of
from superswarm.values import Digest, MemberId
from superswarm.wire import join
from tests import consortia, hesums
from tests.securesums import SIZE, START, Members, judged, manifest, session_keys

FIVE = Members(manifest(5, 4, 1, 1))
LAST = FIVE.names[-1]  # all of its links were made by others
ELSEWHERE = Digest.of(b"an adapter that the aggregator chose")


def session(kind: type[Any], members: Members, name: MemberId, **more: Any) -> Any:
    """A trainer's session that has judged the others, which tests of evidence and vouches are about."""
    keys = f"{name}/session/1"
    side = kind(
        attempt=members.attempt,
        member=name,
        keys=session_keys(name),
        kem=consortia.kem_key(keys),
        signing=consortia.signing_key(keys),
        now=lambda: 0,
        notify=lambda *_, **__: None,
        **more,
    )
    side._judged = {session_keys(other).digest: judged(members.manifest, other) for other in members.names}
    return side


class Sessions:
    """The sessions of a whole roster, and an aggregator that carries what it likes."""

    def __init__(self, members: Members = FIVE) -> None:
        self.members = members
        self.unmaskings = {name: Unmaskings() for name in members.names}
        self.sides = {
            name: session(SecureMember, members, name, unmaskings=self.unmaskings[name]) for name in members.names
        }
        self.terms: Terms = members.terms

    def meet(self, number: int = 1, names: Iterable[MemberId] | None = None) -> dict[MemberId, Acquaint]:
        """Introduce and acquaint these members under a roster of theirs; what came to each as secrets."""
        chosen = list(names or self.members.names)
        roster = Roster.of(self.members.attempt, number, {name: session_keys(name) for name in chosen})
        self.terms = accept_roster(roster, self.members.attempt)
        said: dict[MemberId, Introduction] = {name: introduce(self.sides[name], roster) for name in chosen}
        passed = {name: pass_on(self.terms.graph, said, name) for name in chosen}
        for name in chosen:
            check_introduction(self.terms.graph, name, said[name])
            self.sides[name].answer("acquaint", passed[name].to_bytes(), b"")
        return passed

    def play(self, number: int, start: Digest = START) -> tuple[Total, Contribution]:
        """One round of all that are in the roster, from this adapter."""
        context, names = Context(self.terms.roster, number, start), self.terms.roster.members
        code = code_of(context, SIZE, 12, 50.0)
        aggregator = SumRound(self.terms, context, code, {name: session_keys(name).signing for name in names})
        for name in names:
            aggregator.advertised(name, self.begin(name, number, start))
        self.ask("keys", aggregator.ask_shares(), lambda name, said, _: aggregator.shared(name, said))
        self.ask("deal", aggregator.ask_masked(), aggregator.masked)
        self.ask("survivors", aggregator.ask_signatures(), lambda name, said, _: aggregator.signed(name, said))
        self.ask("agreed", aggregator.ask_unmasking(), lambda name, said, _: aggregator.unmasked(name, said))
        return aggregator.total()

    def begin(self, name: MemberId, number: int, start: Digest = START) -> Any:
        return self.sides[name].begin(number, start, self.members.update(name), self.members.weight(name))

    def ask(self, kind: str, asks: dict[MemberId, Any], take: Any) -> None:
        for name in sorted(asks):
            take(name, *self.sides[name].answer(kind, asks[name].to_bytes(), b""))


def introduce(side: PeerSession, roster: Roster) -> Introduction:
    said = side.answer("introduce", Introduce(roster=roster.to_bytes()).to_bytes(), join([]))[0]  # type: ignore[attr-defined]
    assert isinstance(said, Introduction)
    return said


def met() -> Sessions:
    """Sessions of five that know each other under the first roster."""
    sessions = Sessions()
    sessions.meet()
    return sessions


class TestRosters:
    """A roster that came twice would bring the same links twice: keys that seal one message would seal two."""

    def test_a_roster_is_accepted_once(self) -> None:
        sessions = Sessions()
        passed = sessions.meet()
        sessions.play(1)
        with pytest.raises(Replay):
            introduce(sessions.sides[LAST], FIVE.roster)
        with pytest.raises(Untrusted, match="without a roster"):
            sessions.sides[LAST].answer("acquaint", passed[LAST].to_bytes(), b"")
        with pytest.raises(Replay):
            sessions.begin(LAST, 1)

    def test_an_earlier_roster_does_not_come_back(self) -> None:
        sessions = Sessions()
        sessions.meet(number=2)
        with pytest.raises(Replay):
            introduce(sessions.sides[LAST], FIVE.roster)
        sessions.meet(number=3)
        sessions.play(1)

    def test_an_encrypting_trainer_accepts_a_roster_once_too(self) -> None:
        """Else a key holder would answer for the same key as often as it is asked."""
        members = hesums.HeMembers(hesums.manifest(5))
        holder = session(EncryptedMember, members, members.names[0], holding=None)
        introduce(holder, members.roster)
        with pytest.raises(Replay):
            introduce(holder, members.roster)

    def test_a_roster_that_is_refused_does_not_count(self) -> None:
        """Somebody else's roster, of a high number, does not keep the trainer from its own."""
        side = Sessions().sides[LAST]
        strangers = Roster.of(FIVE.attempt, 9, {name: session_keys("mallory/" + name) for name in FIVE.names})
        with pytest.raises(Untrusted):
            introduce(side, strangers)
        introduce(side, FIVE.roster)

    def test_with_the_same_links_twice_shares_would_show(self) -> None:
        """The tests above guard something: the last of the circle, acquainted twice, seals under the same stream."""
        said = {name: FIVE.acquaintance(name).introduce() for name in FIVE.names}
        passed = pass_on(FIVE.terms.graph, said, LAST)
        twice = [FIVE.acquaintance(LAST).acquaint(passed) for _ in range(2)]
        texts = [bytes(range(132)), bytes(132)]
        sealed = []
        for standing, text in zip(twice, texts, strict=True):
            standing.begin(1)
            sealed.append(standing.links[FIVE.names[0]].seal("shares", LAST, FIVE.names[0], text))
        difference = np.bitwise_xor(*(np.frombuffer(one[:132], np.uint8) for one in sealed))
        assert difference.tobytes() == texts[0]


class TestRepeatedRounds:
    """A round that was unmasked is repeated as it was: every other sum of it tells more than one sum does."""

    def test_it_is_repeated_from_the_same_adapter(self) -> None:
        sessions = met()
        first = sessions.play(1)[1]
        sessions.meet(number=2)
        assert sessions.play(1)[1].values.tobytes() != first.values.tobytes(), "another dither"
        assert all(found.rounds[1].start == START for found in sessions.unmaskings.values())

    def test_it_is_not_repeated_from_another_adapter(self) -> None:
        """Under a new roster, the aggregator asks for the same members' sum from an adapter that it chose."""
        sessions = met()
        sessions.play(1)
        sessions.meet(number=2)
        for name in FIVE.names:
            with pytest.raises(Untrusted, match="from another adapter"):
                sessions.begin(name, 1, ELSEWHERE)

    def test_it_is_not_repeated_from_another_adapter_in_a_later_session(self) -> None:
        sessions = met()
        sessions.play(1)
        later = Sessions()
        later.sides = {
            name: session(SecureMember, FIVE, name, unmaskings=sessions.unmaskings[name]) for name in FIVE.names
        }
        later.meet()
        with pytest.raises(Untrusted, match="from another adapter"):
            later.begin(LAST, 1, ELSEWHERE)

    def test_it_is_not_repeated_without_one_of_them(self) -> None:
        sessions = met()
        sessions.play(1)
        sessions.meet(number=2, names=FIVE.names[:4])
        with pytest.raises(Untrusted, match="with other survivors"):
            sessions.play(1)

    def test_a_round_that_was_not_unmasked_may_begin_elsewhere(self) -> None:
        """No share was given: nothing of it can ever be seen."""
        sessions = met()
        for name in FIVE.names:
            sessions.begin(name, 1)
        sessions.meet(number=2)
        sessions.play(1, ELSEWHERE)


class TestSums:
    """A session takes the checked sums of what it is part of."""

    def test_a_sum_is_checked_once_for_its_signatures_and_always_for_itself(self) -> None:
        sessions = met()
        total, found = sessions.play(1)
        side = sessions.sides[LAST]
        assert side.check(total, found.to_bytes(), 1).survivors == set(FIVE.names)
        found.values[0] ^= 1
        with pytest.raises(Untrusted):
            side.check(total, found.to_bytes(), 1)

    def test_a_session_remembers_that_an_update_left(self) -> None:
        sessions = met()
        sessions.begin(LAST, 1)
        assert not sessions.sides[LAST].brought
        sessions.meet(number=2)
        sessions.play(1)
        sessions.begin(LAST, 2)
        assert sessions.sides[LAST].brought, "the next round changes nothing"
