"""Attacks on masked sums, played: by the aggregator, by members, and by both together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from superswarm.crypto.hpke import KemKey
from superswarm.crypto.kdf import KEY_BYTES
from superswarm.crypto.shamir import VALUE_BYTES, Share, combine
from superswarm.crypto.signing import SigningKey
from superswarm.errors import (
    BadSignature,
    CannotOpen,
    CohortTooSmall,
    Malformed,
    Mismatch,
    Replay,
    Untrusted,
    WrongShapes,
)
from superswarm.updates.secure.links import LABEL as LINK
from superswarm.updates.secure.links import Acquaintance, _info, _signed, pass_on
from superswarm.updates.secure.masks import Contribution
from superswarm.updates.secure.member import MemberRound
from superswarm.updates.secure.messages import Acquaint, Agreed, Deal, Keys, Passed, Survivors, Total
from superswarm.updates.secure.roster import Roster, accept_roster
from superswarm.updates.secure.seeds import Context, require_weight
from superswarm.updates.secure.total import check_total, require_range
from superswarm.values import Digest, MemberId
from tests import consortia
from tests.securesums import MOST, START, Members, Play, honest, judged, manifest, session_keys

FIVE = Members(manifest(5, 4, 2, 1))
SEVEN = Members(manifest(7, 5, 2, 2))
numbers = iter(range(1, 10**6))


def until(step: str, members: Members = FIVE, **arguments: Any) -> Play:
    """A round that was played up to and without this step."""
    play = Play(members, round_=next(numbers), **arguments)
    play.run_until(step)
    return play


def agreed(play: Play) -> dict[MemberId, Agreed]:
    return play.aggregator.ask_unmasking()


class TestBothShares:
    """An aggregator that gets both shares of one member undoes all of its masks."""

    def test_a_member_gives_one_share_of_each_and_answers_once(self) -> None:
        play = until("unmask")
        name, victim = FIVE.names[0], FIVE.names[1]
        message = agreed(play)[name]
        play.sides[name].unmask(message)
        roster = FIVE.roster
        without = replace(message, members=roster.mark(set(FIVE.names) - {victim}))
        for again in (message, without):
            with pytest.raises(Replay):
                play.sides[name].unmask(again)

    def test_no_member_takes_a_survivor_for_vanished_unless_witnesses_signed_that(self) -> None:
        play = until("unmask")
        victim = FIVE.names[1]
        others = set(FIVE.names) - {victim}
        for name in others:
            message = replace(agreed_of(play, name), members=FIVE.roster.mark(others), proofs=())
            with pytest.raises(Untrusted, match="other survivors"):
                play.sides[name].unmask(message)

    def test_a_witness_signs_one_set(self) -> None:
        play = until("sign")
        name = FIVE.names[0]
        everybody, four = FIVE.roster.mark(FIVE.names), FIVE.roster.mark(FIVE.names[:4])
        play.sides[name].sign(Survivors(members=everybody))
        with pytest.raises(Replay):
            play.sides[name].sign(Survivors(members=four))


def agreed_of(play: Play, name: MemberId) -> Agreed:
    """What the aggregator would send this member."""
    aggregator = play.aggregator
    masked, members, witnesses, signatures = aggregator._agreement()
    return Agreed(
        masked=masked,
        members=members,
        witnesses=witnesses,
        signatures=signatures,
        proofs=tuple(aggregator._proofs_for(name)),
    )


class TestSets:
    """An aggregator that names different sets to different members could subtract one sum from another."""

    def test_two_sets_of_survivors_never_both_find_enough_witnesses(self) -> None:
        """Told that a different member vanished, each half signs a set of its own; no set has t signatures."""
        sets = [set(SEVEN.names) - {SEVEN.names[6]}, set(SEVEN.names) - {SEVEN.names[5]}]
        play = until("sign", SEVEN)
        play.aggregator.ask_signatures()
        signed: list[dict[MemberId, bytes]] = [{}, {}]
        for i, name in enumerate(SEVEN.names[:5]):
            half = i % 2
            message = Survivors(members=SEVEN.roster.mark(sets[half]))
            signed[half][name] = play.sides[name].sign(message).signature
        colluders = SEVEN.names[:2]  # they sign whatever is wanted
        marks = SEVEN.roster.mark(SEVEN.names)
        for half, signatures in enumerate(signed):
            chosen = SEVEN.roster.mark(sets[half])
            statement = play.aggregator.context.statement(marks, chosen)
            for name in colluders:
                key = consortia.signing_key(f"{name}/session/1")
                signatures[name] = key.sign("superswarm/v1/masked/survivors", statement)
            victim = SEVEN.names[2 + (half == 0)]
            message = Agreed(
                masked=marks,
                members=chosen,
                witnesses=SEVEN.roster.mark(signatures),
                signatures=tuple(signatures[n] for n in SEVEN.names if n in signatures),
                proofs=(),
            )
            with pytest.raises((CohortTooSmall, Untrusted)):
                play.sides[victim].unmask(message)

    @pytest.mark.parametrize("step", ["share", "mask", "sign", "unmask"])
    def test_a_set_that_is_too_small_is_refused_at_every_step(self, step: str) -> None:
        play = until(step)
        name, few = FIVE.names[0], FIVE.roster.mark(FIVE.names[:3])
        side: Any = play.sides[name]
        small = {
            "share": Keys(members=few, sealed=()),
            "mask": Deal(members=few, sealed=()),
            "sign": Survivors(members=few),
            "unmask": Agreed(masked=few, members=few, witnesses=few, signatures=(), proofs=()),
        }[step]
        arguments = (FIVE.contribution(name),) if step == "mask" else ()
        with pytest.raises(CohortTooSmall):
            getattr(side, step)(small, *arguments)

    def test_a_set_that_grows_or_leaves_the_receiver_out_is_refused(self) -> None:
        play = until("mask", gone={FIVE.names[4]: "share"})
        name, everybody = FIVE.names[0], FIVE.roster.mark(FIVE.names)
        play.sides[name]._advertisers = frozenset(FIVE.names[:4])
        with pytest.raises(Untrusted):
            play.sides[name].mask(Deal(members=everybody, sealed=()), FIVE.contribution(name))
        other = until("mask")
        with pytest.raises(Untrusted):
            other.sides[name].mask(Deal(members=FIVE.roster.mark(FIVE.names[1:]), sealed=()), FIVE.contribution(name))

    def test_members_that_masked_for_different_sets_are_not_unmasked(self) -> None:
        """Two groups, each told that other members vanished before masking, would show their own, smaller sums."""
        without = set(SEVEN.names) - {SEVEN.names[6]}

        def split(step: str, name: MemberId, message: Any) -> Any:
            if step == "mask" and name in SEVEN.names[:2]:
                graph = SEVEN.terms.graph
                near = graph.neighbours(name)
                kept = tuple(s for other, s in zip(near, message.sealed, strict=True) if other in without)
                return Deal(members=SEVEN.roster.mark(without), sealed=kept)
            return message

        def padded(step: str, name: MemberId, answer: Any) -> Any:
            """The aggregator makes up what it lacks: a proof for the member that was left out."""
            if step == "mask" and name in SEVEN.names[:2]:
                said, body = answer
                return replace(said, proofs=(*said.proofs, bytes(32))), body
            return answer

        play = Play(SEVEN, hook=split, answers=padded, round_=next(numbers))
        with pytest.raises(CohortTooSmall):
            play.run()
        refused = {name: type(error) for name, error in play.refusals.items()}
        assert set(refused) == set(SEVEN.names), "nobody gives a share"
        assert all(issubclass(error, Untrusted) for error in refused.values())

    def test_a_member_that_masked_for_fewer_than_the_signers_gives_nothing(self) -> None:
        """All agree on the survivors; only this member was told that the one that vanished never shared."""
        play = until("unmask", SEVEN, gone={SEVEN.names[6]: "mask"})
        name = SEVEN.names[0]
        play.sides[name]._masked = frozenset(SEVEN.names[:6])
        with pytest.raises(Untrusted, match="told to mask for other members"):
            play.sides[name].unmask(agreed(play)[name])


class TestSignatures:
    """Shares are released against the signatures of enough witnesses only."""

    def test_too_few_signatures(self) -> None:
        play = until("unmask")
        message = agreed(play)[FIVE.names[0]]
        three = FIVE.roster.mark(FIVE.names[:3])
        with pytest.raises(CohortTooSmall):
            play.sides[FIVE.names[0]].unmask(replace(message, witnesses=three, signatures=message.signatures[:3]))

    def test_signatures_of_others(self) -> None:
        play = until("unmask")
        message = agreed(play)[FIVE.names[0]]
        swapped = (message.signatures[1], message.signatures[0], *message.signatures[2:])
        with pytest.raises(BadSignature):
            play.sides[FIVE.names[0]].unmask(replace(message, signatures=swapped))

    def test_one_signature_counted_twice(self) -> None:
        play = until("unmask")
        message = agreed(play)[FIVE.names[0]]
        with pytest.raises((Malformed, BadSignature)):
            play.sides[FIVE.names[0]].unmask(replace(message, signatures=(message.signatures[0],) * 4))

    def test_signatures_of_an_earlier_round(self) -> None:
        first = until("unmask")
        old = agreed(first)[FIVE.names[0]]
        second = until("unmask")
        with pytest.raises((BadSignature, Untrusted)):
            second.sides[FIVE.names[0]].unmask(replace(agreed(second)[FIVE.names[0]], signatures=old.signatures))


class TestPeers:
    """An aggregator that invents a peer would share every seed with itself."""

    def test_a_member_that_was_not_judged_is_refused(self) -> None:
        peers = {name: judged(FIVE.manifest, name) for name in FIVE.names[1:4]}
        with pytest.raises(Untrusted, match="was not judged"):
            acquaintance(FIVE, peers)

    def test_other_keys_than_those_judged_are_refused(self) -> None:
        keys = {name: session_keys(name) for name in FIVE.names} | {FIVE.names[4]: session_keys("mallory")}
        roster = Roster.of(FIVE.attempt, 1, keys)
        peers = {name: judged(FIVE.manifest, name) for name in FIVE.names[1:]}
        with pytest.raises(Untrusted, match="other keys"):
            acquaintance(FIVE, peers, roster)

    def test_a_roster_of_another_attempt_run_or_manifest_is_refused(self) -> None:
        for change in ({"attempt": 2}, {"run": "run-2"}, {"manifest": Digest.of(b"other")}):
            with pytest.raises(Untrusted):
                accept_roster(replace(FIVE.roster, **change), FIVE.attempt)

    def test_a_roster_with_strangers_repetitions_or_too_few_is_refused(self) -> None:
        entries = FIVE.roster.entries
        stranger = (MemberId("mallory"), Digest.of(b"keys"))
        for bad in ((*entries, stranger), (*entries, entries[0]), (entries[1], entries[0], *entries[2:])):
            with pytest.raises(Untrusted):
                accept_roster(replace(FIVE.roster, entries=bad), FIVE.attempt)
        shared = (entries[0], (entries[1][0], entries[0][1]), *entries[2:])
        with pytest.raises(Untrusted, match="same session keys"):
            accept_roster(replace(FIVE.roster, entries=shared), FIVE.attempt)
        with pytest.raises(CohortTooSmall):
            accept_roster(replace(FIVE.roster, entries=entries[:3]), FIVE.attempt)

    def test_a_secret_that_the_aggregator_made_is_refused(self) -> None:
        """It seals a link of its own choice to the victim, in an honest member's name."""
        sender, victim = FIVE.names[0], FIVE.names[1]
        sealed = session_keys(victim).kem.seal(bytes(2 * KEY_BYTES), info=_info(FIVE.roster.digest, sender, victim))
        digests = (Digest.of(sealed).raw,) * 4
        forged = SigningKey.generate().sign(LINK, _signed(FIVE.roster.digest, sender, digests))
        message = Acquaint(passed=(Passed(sealed=sealed, digests=digests, signature=forged).to_bytes(),))
        with pytest.raises(BadSignature):
            FIVE.acquaintance(victim).acquaint(message)

    def test_a_secret_that_its_sender_sealed_to_another_is_refused(self) -> None:
        said = {name: FIVE.acquaintance(name).introduce() for name in FIVE.names}
        victim = FIVE.names[1]
        passed = Passed.parse(pass_on(FIVE.terms.graph, said, victim).passed[0])
        moved = replace(passed, sealed=said[FIVE.names[0]].sealed[2])
        with pytest.raises(Untrusted):
            FIVE.acquaintance(victim).acquaint(Acquaint(passed=(moved.to_bytes(),)))
        reordered = replace(moved, digests=(passed.digests[2], *passed.digests[1:]))
        with pytest.raises(BadSignature):
            FIVE.acquaintance(victim).acquaint(Acquaint(passed=(reordered.to_bytes(),)))

    def test_secrets_of_another_roster_are_refused(self) -> None:
        later = Members(manifest(5, 4, 2, 1), number=2)
        said = {name: FIVE.acquaintance(name).introduce() for name in FIVE.names}
        with pytest.raises(BadSignature):
            later.acquaintance(FIVE.names[1]).acquaint(pass_on(FIVE.terms.graph, said, FIVE.names[1]))


def acquaintance(members: Members, peers: dict[MemberId, Any], roster: Roster | None = None) -> Acquaintance:
    terms = accept_roster(roster, members.attempt) if roster is not None else members.terms
    return Acquaintance(terms, members.names[0], KemKey.generate(), SigningKey.generate(), peers)


class TestPooling:
    """t - 1 members and the aggregator put together all that they know: the sum of the others is all they get."""

    @pytest.fixture
    def pooled(self) -> tuple[Play, dict[MemberId, bytes], dict[MemberId, Contribution]]:
        """A round of five, t = 4: three colluders keep what they hold, the aggregator keeps what comes by."""
        bodies: dict[MemberId, bytes] = {}
        shares: dict[MemberId, dict[MemberId, bytes]] = {}

        def keep(step: str, name: MemberId, answer: Any) -> Any:
            if step == "mask":
                bodies[name] = answer[1]
                shares[name] = dict(play.sides[name]._shares)
            return answer

        play = Play(FIVE, answers=keep, round_=next(numbers))
        play.run()
        seconds = {
            honest_one: b"".join(shares[colluder][honest_one][VALUE_BYTES:] for colluder in FIVE.names[:3])
            for honest_one in FIVE.names[3:]
        }
        code = FIVE.code(play.number)
        return play, seconds, {name: Contribution.parse(bytearray(raw), code) for name, raw in bodies.items()}

    def test_they_learn_the_sum_of_the_honest_and_nothing_more(self, pooled: Any) -> None:
        play, _, masked = pooled
        u, v = FIVE.names[3:]
        marks, context, aggregator = FIVE.roster.mark(FIVE.names), play.aggregator.context, play.aggregator
        for one in (u, v):
            # (1) The self-mask comes off: its seed was recovered, as the protocol has it.
            masked[one].apply([(context.mask_key(aggregator._recover(one, "self"), marks), -1)])
            # (2) So do the masks with colluders, who know them.
            known = [(context.mask_key(self.pair(play, colluder, one), marks), -1) for colluder in FIVE.names[:3]]
            masked[one].apply(
                [(key, 1) for key, _ in known]
            )  # the colluders come first: what they added, it took off
        plain = {one: FIVE.contribution(one, play.number) for one in (u, v)}
        # (3) What is left of one is as random as the mask of the two honest ones.
        for one in (u, v):
            assert np.mean(masked[one].values == plain[one].values) < 0.02
            assert (masked[one].weight, masked[one].tag) != (plain[one].weight, plain[one].tag)
        # (4) Their sum is bare.
        masked[u].add(masked[v])
        plain[u].add(plain[v])
        assert masked[u].to_bytes() == plain[u].to_bytes()

    def test_their_shares_give_nobodys_second_seed(self, pooled: Any) -> None:
        play, seconds, _ = pooled
        for one, raw in seconds.items():
            shares = [Share(i + 1, raw[i * VALUE_BYTES : (i + 1) * VALUE_BYTES]) for i in range(3)]
            with pytest.raises(Malformed):
                combine(shares, 4, KEY_BYTES)
            for guess in range(20):  # any fourth share makes any other seed
                filler = Share(4, guess.to_bytes(VALUE_BYTES, "big"))
                try:
                    seed = combine([*shares, filler], 4, KEY_BYTES)
                except Malformed:
                    continue
                said = play.aggregator._advertised[one].pair_commitment
                assert play.aggregator.context.commitment("pair", one, seed) != said

    def test_with_the_mask_between_the_honest_they_would_know_all(self, pooled: Any) -> None:
        """The test above plays the attack right: one seed is all that is missing."""
        play, _, masked = pooled
        u, v = FIVE.names[3:]
        marks, context = FIVE.roster.mark(FIVE.names), play.aggregator.context
        masked[u].apply([(context.mask_key(play.aggregator._recover(u, "self"), marks), -1)])
        masked[u].apply([(context.mask_key(self.pair(play, colluder, u), marks), 1) for colluder in FIVE.names[:3]])
        masked[u].apply([(context.mask_key(self.pair(play, u, v), marks), -1)])
        assert masked[u].to_bytes() == FIVE.contribution(u, play.number).to_bytes()

    @staticmethod
    def pair(play: Play, colluder: MemberId, one: MemberId) -> bytes:
        return play.aggregator.context.pair_seed(play.sides[colluder]._pair_seed, colluder, one)


class TestSums:
    """What comes back as the sum must be the sum."""

    @pytest.fixture
    def done(self) -> tuple[Play, Total, Contribution]:
        play = Play(FIVE, round_=next(numbers))
        return play, *play.run()

    def check(self, play: Play, total: Total, body: bytes) -> None:
        standing = FIVE.standings[FIVE.names[0]]
        check_total(standing, total, body, context=FIVE.context(play.number), code=FIVE.code(play.number), most=MOST)

    def test_the_sum_itself_is_taken(self, done: Any) -> None:
        play, total, found = done
        self.check(play, total, found.to_bytes())

    def test_one_members_update_is_not(self, done: Any) -> None:
        play, total, _ = done
        one = FIVE.contribution(FIVE.names[2], play.number)
        with pytest.raises(Untrusted, match="not what its survivors sent"):
            self.check(play, total, one.to_bytes())

    @pytest.mark.parametrize("change", ["value", "weight", "tag", "zero", "double"])
    def test_a_sum_that_was_changed_is_not(self, done: Any, change: str) -> None:
        play, total, found = done
        values, weight, tag = found.values.copy(), found.weight, found.tag
        match change:
            case "value":
                values[7] ^= 1
            case "weight":
                weight -= 1
            case "tag":
                tag += 1
            case "zero":
                values[:], tag = 0, 0
            case "double":
                values, weight, tag = values // 2, weight // 2, tag // 2
        with pytest.raises(Untrusted):
            self.check(play, total, Contribution(values, weight, tag).to_bytes())

    def test_a_sum_said_to_be_of_others_is_not(self, done: Any) -> None:
        play, total, found = done
        with pytest.raises(Untrusted):
            self.check(play, replace(total, members=FIVE.roster.mark(FIVE.names[:4])), found.to_bytes())

    def test_the_sum_of_another_round_is_not(self, done: Any) -> None:
        play, total, found = done
        standing, later = FIVE.standings[FIVE.names[0]], play.number + 1
        with pytest.raises(Replay):
            check_total(
                standing, total, found.to_bytes(), context=FIVE.context(later), code=FIVE.code(later), most=MOST
            )
        with pytest.raises(BadSignature):
            check_total(
                standing,
                replace(total, round=later),
                found.to_bytes(),
                context=FIVE.context(later),
                code=FIVE.code(later),
                most=MOST,
            )

    @pytest.mark.parametrize("body", [b"", bytes(7)])
    def test_a_sum_of_another_length_is_not(self, done: Any, body: bytes) -> None:
        play, total, found = done
        for wrong in (body, found.to_bytes() + b"\0"):
            with pytest.raises(WrongShapes):
                self.check(play, total, wrong)

    def test_values_beyond_what_members_can_have_sent_are_not(self) -> None:
        code = FIVE.code()
        found = Contribution.zero(code)
        found.weight = 5
        require_range(found, code, 5, MOST)
        found.values[3] = 2 * code.ring.half * 4 + 1
        with pytest.raises(Malformed):
            require_range(found, code, 4, MOST)
        for weight in (0, 4 * MOST + 1):
            with pytest.raises(Malformed):
                require_range(replace(Contribution.zero(code), weight=weight), code, 4, MOST)


class TestMembers:
    """Members that answer twice, late, for others, or wrongly."""

    @pytest.mark.parametrize("step", ["advertise", "share", "mask", "sign", "unmask"])
    def test_an_answer_is_taken_once(self, step: str) -> None:
        answered: list[tuple[str, MemberId, Any]] = []

        def keep(at: str, name: MemberId, answer: Any) -> Any:
            answered.append((at, name, answer))
            return answer

        play = Play(FIVE, answers=keep, round_=next(numbers))
        play.run()
        aggregator = FIVE.aggregator(play.number)
        for at, name, answer in answered:
            self.give(aggregator, at, name, answer)
            if at == step:
                with pytest.raises(Replay):
                    self.give(aggregator, at, name, answer)
                return
            if name == FIVE.names[-1]:
                {
                    "advertise": aggregator.ask_shares,
                    "share": aggregator.ask_masked,
                    "mask": aggregator.ask_signatures,
                    "sign": aggregator.ask_unmasking,
                }[at]()

    @staticmethod
    def give(aggregator: Any, step: str, name: MemberId, answer: Any) -> None:
        said = {
            "advertise": "advertised",
            "share": "shared",
            "mask": "masked",
            "sign": "signed",
            "unmask": "unmasked",
        }
        getattr(aggregator, said[step])(name, *(answer if step == "mask" else (answer,)))

    def test_a_stranger_and_a_latecomer_are_not_heard(self) -> None:
        play = until("share", gone={FIVE.names[4]: "advertise"})
        side = MemberRound(Members(manifest(5, 4, 2, 1)).standings[FIVE.names[4]], FIVE.context())
        play.aggregator.ask_shares()
        late = side.advertise()
        with pytest.raises(Replay):
            play.aggregator.advertised(FIVE.names[4], late)

    def test_a_share_of_something_else_is_passed_over(self) -> None:
        """One of seven gives random shares: five others are enough, and the commitment tells."""

        def lie(step: str, name: MemberId, answer: Any) -> Any:
            if step == "unmask" and name == SEVEN.names[0]:
                return replace(answer, shares=tuple(bytes(VALUE_BYTES - 1) + b"\1" for _ in answer.shares))
            return answer

        play = Play(SEVEN, answers=lie, gone={SEVEN.names[6]: "mask"}, round_=next(numbers))
        _, found = play.run()
        assert found.to_bytes() == SEVEN.expected(SEVEN.names[:6], play.number).to_bytes()

    @pytest.mark.parametrize("liars", [2, 5])
    def test_shares_of_the_wrong_seed_end_the_round_and_give_no_wrong_sum(self, liars: int) -> None:
        """Each gives what it holds of another member; if all do, the seeds fit together and only commitments tell."""

        def lie(step: str, name: MemberId, answer: Any) -> Any:
            if step == "unmask" and name in FIVE.names[:liars]:
                return replace(answer, shares=answer.shares[::-1])
            return answer

        with pytest.raises(Mismatch):
            Play(FIVE, answers=lie, round_=next(numbers)).run()

    def test_shares_that_are_no_shares_or_too_few_are_refused(self) -> None:
        play = until("unmask")
        messages = agreed(play)
        name = FIVE.names[0]
        said = play.sides[name].unmask(messages[name])
        for bad in (said.shares[1:], (b"\xff" * VALUE_BYTES, *said.shares[1:]), (b"", *said.shares[1:])):
            with pytest.raises(Malformed):
                play.aggregator.unmasked(name, replace(said, shares=bad))
        play.aggregator.unmasked(name, said)

    @pytest.mark.parametrize("change", [-1, 1, 2])
    def test_a_masked_update_of_another_length_is_refused_and_changes_nothing(self, change: int) -> None:
        def cut(step: str, name: MemberId, answer: Any) -> Any:
            if step == "mask" and name == SEVEN.names[0]:
                return answer[0], answer[1][:change] if change < 0 else answer[1] + bytes(change)
            return answer

        play = Play(SEVEN, answers=cut, round_=next(numbers))
        _, found = play.run()
        assert isinstance(play.refusals[SEVEN.names[0]], WrongShapes)
        assert found.to_bytes() == SEVEN.expected(SEVEN.names[1:], play.number).to_bytes()

    @pytest.mark.parametrize("weight", [0, -1, MOST + 1])
    def test_a_weight_that_the_manifest_does_not_allow_never_leaves(self, weight: int) -> None:
        with pytest.raises(Malformed):
            require_weight(weight, MOST)


class TestReplays:
    """Nothing of one round, roster or attempt serves in another."""

    @pytest.mark.parametrize("step", ["share", "mask"])
    def test_seeds_and_shares_of_an_earlier_round_do_not_open(self, step: str) -> None:
        earlier = until(step)
        old = earlier.aggregator.ask_shares() if step == "share" else earlier.aggregator.ask_masked()
        later = until(step)
        name = FIVE.names[-1]
        side: Any = later.sides[name]
        arguments = (FIVE.contribution(name),) if step == "mask" else ()
        with pytest.raises(CannotOpen):
            getattr(side, step)(old[name], *arguments)

    def test_a_round_is_begun_once(self) -> None:
        number = next(numbers)
        MemberRound(FIVE.standings[FIVE.names[0]], FIVE.context(number))
        for again in (number, number - 1):
            with pytest.raises(Replay):
                MemberRound(FIVE.standings[FIVE.names[0]], FIVE.context(again))

    def test_a_step_is_taken_once_and_in_order(self) -> None:
        play = until("share")
        name = FIVE.names[0]
        with pytest.raises(Replay):
            play.sides[name].advertise()
        with pytest.raises(Untrusted):
            play.sides[name].sign(Survivors(members=FIVE.roster.mark(FIVE.names)))

    def test_a_restart_makes_other_masks(self) -> None:
        """The same members, round and updates under another roster: no mask, seed or key comes again."""
        again = Members(manifest(5, 4, 2, 1), number=2)
        bodies: list[dict[MemberId, bytes]] = []
        for members in (Members(manifest(5, 4, 2, 1)), again):
            kept: dict[MemberId, bytes] = {}

            def keep(step: str, name: MemberId, answer: Any, kept: dict[MemberId, bytes] = kept) -> Any:
                if step == "mask":
                    kept[name] = answer[1]
                return answer

            Play(members, answers=keep).run()
            bodies.append(kept)
        for name in FIVE.names:
            first, second = (np.frombuffer(b[name], np.uint16) for b in bodies)
            differences = (first - second)[:-8]
            plain = FIVE.contribution(name).values - again.contribution(name).values
            assert np.mean(differences == plain) < 0.02

    def test_a_seed_or_mask_key_is_bound_to_roster_round_start_pair_and_set(self) -> None:
        other = replace(FIVE.roster, number=2)
        elsewhere = Digest.of(b"another adapter")
        contexts = [FIVE.context(1), FIVE.context(2), Context(other, 1, START), Context(FIVE.roster, 1, elsewhere)]
        seed = bytes(KEY_BYTES)
        a, b = FIVE.names[:2]
        assert len({c.pair_seed(seed, x, y) for c in contexts for x, y in ((a, b), (b, a))}) == 8
        assert len({c.mask_key(seed, marks) for c in contexts for marks in (b"\1", b"\2")}) == 8
        assert len({c.commitment(p, x, seed) for c in contexts for p in ("self", "pair") for x in (a, b)}) == 16


class TestSingledOut:
    """An aggregator that gives all but one member an adapter from which nothing is learned (arXiv:2111.07380)."""

    def test_members_that_began_from_different_adapters_have_no_sum(self) -> None:
        play = Play(FIVE, round_=next(numbers))
        victim = FIVE.names[2]
        play.sides[victim].context = replace(FIVE.context(play.number), start=Digest.of(b"the only true one"))
        play.run_until("total")
        assert set(play.refusals) == {victim}, "the others' shares undo all self-masks"
        found = play.aggregator._sum
        found.apply(self.self_masks(play))
        assert np.mean(found.values == FIVE.expected(FIVE.names, play.number).values) < 0.05

    def self_masks(self, play: Play) -> Any:
        """What the aggregator takes off: it knows from which adapter it made each member begin."""
        marks = FIVE.roster.mark(FIVE.names)
        for name in FIVE.names:
            play.aggregator.context = play.sides[name].context
            yield play.aggregator.context.mask_key(play.aggregator._recover(name, "self"), marks), -1

    def test_a_sum_is_taken_by_those_only_that_began_where_its_members_did(self) -> None:
        play = Play(FIVE, round_=next(numbers))
        total, found = play.run()
        code, elsewhere = FIVE.code(play.number), replace(FIVE.context(play.number), start=Digest.of(b"elsewhere"))
        with pytest.raises(BadSignature):
            check_total(
                FIVE.standings[FIVE.names[0]], total, found.to_bytes(), context=elsewhere, code=code, most=MOST
            )


def test_the_harness_is_honest_by_default() -> None:
    play = Play(FIVE, hook=honest, round_=next(numbers))
    play.run()
    assert not play.refusals
