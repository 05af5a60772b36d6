"""Attacks on encrypted sums, played: by the aggregator that carries everything, and by members."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from superswarm.attestation.handshake import Attempt
from superswarm.crypto.he import HeContext, HePublicKey, HeSecretKey
from superswarm.crypto.he_words import add_words, unpack_words
from superswarm.errors import (
    BadSignature,
    CannotOpen,
    CohortTooSmall,
    Error,
    Malformed,
    Mismatch,
    Replay,
    Untrusted,
)
from superswarm.updates.secure import he_keys
from superswarm.updates.secure.check import PRIME
from superswarm.updates.secure.he_keys import HePlan
from superswarm.updates.secure.he_messages import Dealing, Dealt
from superswarm.updates.secure.he_sum import HeSum, Slots, encrypt_update
from superswarm.updates.secure.masks import Contribution
from superswarm.updates.secure.messages import Survivors, Total
from superswarm.updates.secure.roster import Roster, accept_roster
from superswarm.updates.secure.seeds import Context
from superswarm.values import Digest, MemberId
from tests import consortia
from tests.hesums import HeMembers, HePlay, manifest

FIVE = HeMembers(manifest(5))  # three of five hold the key
ALL = HeMembers(manifest(5, holders=5))
numbers = iter(range(1, 10**6))
HOLDER, OTHER, OUTSIDER = FIVE.names[0], FIVE.names[1], FIVE.names[4]


def until(step: str, members: HeMembers = FIVE, **arguments: Any) -> HePlay:
    return HePlay(members, round_=next(numbers), **arguments).until(step)


def wide_plan() -> HePlan:
    """The plan of a round of 100 members whose values and weights are as large as may be."""
    approved = consortia.approved(
        *[consortia.member(f"m{i:03}", consortia.DATA) for i in range(100)],
        protection={
            "mode": "he",
            "encoding": {"payload_bits": 20, "clip_norm": 50.0, "max_weight": 2**40},
            "homomorphic": {"scheme": "bfv", "key_holders": 3, "threshold": 51, "colluders": 0, "dropouts": 2},
        },
        aggregation={"rule": "fedavg", "weighting": "examples", "minimum_cohort": 51, "round_seconds": 60},
    )
    attempt = Attempt(manifest=approved, run="run-1", number=1)
    entries = tuple((name, Digest.of(name.encode())) for name in approved.manifest.trainers)
    roster = Roster(manifest=approved.digest, run="run-1", attempt=1, number=1, entries=entries)
    context = Context(roster, 1, Digest.of(b"start"))
    return HePlan.of(accept_roster(roster, attempt), context, 300, approved.manifest)


def dealt(play: HePlay) -> tuple[Any, Dealt]:
    assert play.aggregator._dealt is not None
    return play.aggregator._dealt


def written(total: HeSum) -> bytes:
    dst = io.BytesIO()
    total.write(dst)
    return dst.getvalue()


def refuse(play: HePlay, body: bytes, error: type[Error], **changes: Any) -> None:
    """The holder that is asked for this instead of the sum refuses, and gives nothing away."""
    name, message = play.aggregator.next_decryption(io.BytesIO())
    with pytest.raises(error):
        play.sides[name].decrypt(replace(message, **changes), body)


class TestSums:
    """What a holder decrypts must be the sum of those that signed."""

    def bodies(self, members: HeMembers) -> tuple[HePlay, dict[str, tuple[Any, bytes]]]:
        kept: dict[str, tuple[Any, bytes]] = {}

        def keep(step: str, name: Any, message: Any) -> Any:
            if step == "encrypt":
                kept[name] = message
            return message

        return until("decrypt", members, hook=keep), kept

    def forged(self, play: HePlay) -> HeSum:
        return HeSum(play.aggregator.plan.parameters, play.aggregator._encrypted_sum.context)

    def test_one_members_ciphertext_is_not_the_sum(self) -> None:
        """A public-key update, relabelled as the sum of all: it decrypts to that update, and is refused for it."""
        play, kept = self.bodies(FIVE)
        forged = self.forged(play)
        forged.add(kept[OUTSIDER][1], OUTSIDER)
        forged._members = dict.fromkeys(FIVE.names, "public")
        refuse(play, written(forged), Untrusted)

    def test_one_members_ciphertext_is_not_the_sum_with_its_tag_either(self) -> None:
        play, kept = self.bodies(FIVE)
        forged = self.forged(play)
        forged.add(kept[OUTSIDER][1], OUTSIDER)
        forged._members = dict.fromkeys(FIVE.names, "public")
        refuse(play, written(forged), Untrusted, tag=kept[OUTSIDER][0].tag)

    def test_one_member_counted_for_all_is_not_the_sum(self) -> None:
        play, kept = self.bodies(ALL)
        forged = self.forged(play)
        said, body = kept[HOLDER]
        for name in ALL.names:
            forged.add(body.replace(HOLDER.encode() + b"s", name.encode() + b"s"), name)
        refuse(play, written(forged), Untrusted, tag=5 * said.tag % PRIME)

    def test_a_sum_without_one_of_those_that_signed_is_refused(self) -> None:
        play, kept = self.bodies(ALL)
        forged = self.forged(play)
        for name in ALL.names[1:]:
            forged.add(kept[name][1], name)
        tags = sum(kept[name][0].tag for name in ALL.names[1:])
        refuse(play, written(forged), Untrusted, tag=tags % PRIME)

    def test_a_constant_added_to_the_sum_is_noticed(self) -> None:
        """Ciphertexts are malleable: the aggregator can add what it likes to the plaintext, but not to the tags."""
        play = until("decrypt")
        total, p = play.aggregator._encrypted_sum, play.aggregator.plan.parameters
        modulus = int(np.prod([int(prime) for prime in p.primes], dtype=object))
        scale = modulus // p.plain_modulus
        shift = np.zeros((len(p.primes), p.degree), np.uint64)
        shift[:, 0] = [scale % prime for prime in p.primes]  # one more in every slot
        add_words(total._first[0], shift, p)
        refuse(play, written(total), Untrusted)

    def test_a_damaged_sum_is_refused(self) -> None:
        for cut in (slice(0, -1), slice(0, 20), slice(0, 0)):
            play = until("decrypt")
            refuse(play, written(play.aggregator._encrypted_sum)[cut], Malformed)

    def test_the_sum_of_another_round_is_refused(self) -> None:
        earlier, play = until("decrypt"), until("decrypt")
        refuse(play, written(earlier.aggregator._encrypted_sum), Replay)

    def test_refusals_say_nothing_of_what_was_decrypted(self) -> None:
        """One member's update, moved so that it is out of range or not: the words are the same for each."""
        words = set()
        for shift in (0, 1, 10**6):
            play, kept = self.bodies(FIVE)
            forged, plan = self.forged(play), play.aggregator.plan
            forged.add(kept[OUTSIDER][1], OUTSIDER)
            public = HePublicKey.parse(dealt(play)[1].public)
            vector = np.full(plan.parameters.length, min(shift, Slots(plan.parameters).most), np.uint32)
            for name in FIVE.names[:4]:
                dst = io.BytesIO()
                encrypt_update(
                    vector, HeContext(plan.parameters).encryptor(public), plan.sum_context(public.pair), name, dst
                )
                forged.add(dst.getvalue(), name)
            name, message = play.aggregator.next_decryption(io.BytesIO())
            with pytest.raises(Untrusted) as caught:
                play.sides[name].decrypt(message, written(forged))
            words.add((caught.type, str(caught.value).replace(str(play.number), "N"), caught.value.__cause__))
        assert len(words) == 1

    def test_a_weight_beyond_all_bounds_is_malformed(self) -> None:
        """In a large cohort, with wide values and weights, a made-up weight is above 2**64."""
        plan = wide_plan()
        top = np.full(plan.parameters.length, 2**plan.parameters.field_bits - 1, Slots(plan.parameters).dtype)
        with pytest.raises(Malformed, match="weight"):
            plan.part(top)

    @pytest.mark.parametrize("right", [True, False])
    def test_an_answer_confirms_a_guess_of_all_that_a_ciphertext_holds_and_of_nothing_less(self, right: bool) -> None:
        """The sum, and a member's ciphertext minus a guess at it: what docs/secure-sums-he.md says remains."""
        play, kept = self.bodies(FIVE)
        plan, public = play.aggregator.plan, HePublicKey.parse(dealt(play)[1].public)
        guess, p = FIVE.contribution(OUTSIDER, play.number), play.aggregator.plan.parameters
        guess.values[7] += not right
        dst, theirs, guessed = io.BytesIO(), self.forged(play), self.forged(play)
        vector = plan.join(guess.values, guess.weight)
        encrypt_update(vector, HeContext(p).encryptor(public), plan.sum_context(public.pair), OUTSIDER, dst)
        theirs.add(kept[OUTSIDER][1], OUTSIDER)
        guessed.add(dst.getvalue(), OUTSIDER)
        total, primes = play.aggregator._encrypted_sum, np.array(p.primes, np.uint64)[:, None]
        for half in ("_first", "_second"):
            for mine, one, other in zip(*(getattr(sums, half) for sums in (total, theirs, guessed)), strict=True):
                add_words(mine, one, p)
                add_words(mine, (primes - other) % primes, p)
        name, message = play.aggregator.next_decryption(io.BytesIO())
        if right:
            play.sides[name].decrypt(message, written(total))
            return
        with pytest.raises(Untrusted, match="not what its survivors sent"):
            play.sides[name].decrypt(message, written(total))

    def test_a_sum_whose_second_polynomials_cancel_out_is_refused(self) -> None:
        """The aggregator knows what a seed expands to: SEAL refuses to add to it what makes it zero."""
        play = until("decrypt")
        plan, keys = play.aggregator.plan, play.sides[HOLDER]._keys
        assert keys is not None
        p, he, seed = plan.parameters, HeContext(plan.parameters), bytes(64)
        zero = np.zeros((len(p.primes), p.degree), np.uint64)
        _, expanded = he.frames.read(he.frames.seeded(zero, seed), he.frames.full_prefix, 2)
        primes = np.array(p.primes, np.uint64)[:, None]
        forged = self.forged(play)
        forged._second = np.stack([(primes - unpack_words(expanded, p)) % primes] * p.chunks)
        forged._members = dict.fromkeys(FIVE.names, "public") | {HOLDER: "secret"}
        forged._seeds = {HOLDER: memoryview(seed * p.chunks)}
        refuse(play, written(forged), Malformed)

    def test_a_tag_outside_the_field_is_refused(self) -> None:
        play = until("decrypt")
        refuse(play, written(play.aggregator._encrypted_sum), Malformed, tag=PRIME)


class TestSets:
    """One set of survivors a round, which enough witnesses signed."""

    def test_a_witness_signs_one_set(self) -> None:
        play = until("sign")
        side = play.sides[HOLDER]
        side.sign(Survivors(members=FIVE.roster.mark(FIVE.names)))
        with pytest.raises(Replay):
            side.sign(Survivors(members=FIVE.roster.mark(FIVE.names[:4])))

    def test_a_set_that_is_too_small_or_without_oneself_is_not_signed(self) -> None:
        for chosen, error in ((FIVE.names[:2], CohortTooSmall), (FIVE.names[1:], Untrusted)):
            with pytest.raises(error):
                until("sign").sides[HOLDER].sign(Survivors(members=FIVE.roster.mark(chosen)))

    def test_a_holder_decrypts_for_no_other_set_than_it_signed(self) -> None:
        play = until("sign")
        others = FIVE.roster.mark(FIVE.names[:4])
        statement = play.aggregator.plan.context.statement(play.aggregator.plan.everybody, others)
        play.sides[HOLDER].sign(Survivors(members=FIVE.roster.mark(FIVE.names)))
        signers = FIVE.names[1:4]  # they sign whatever is wanted
        key = [consortia.signing_key(f"{name}/session/1") for name in signers]
        total = Total(
            round=play.number,
            masked=play.aggregator.plan.everybody,
            members=others,
            witnesses=FIVE.roster.mark(signers),
            signatures=tuple(k.sign("superswarm/v1/masked/survivors", statement) for k in key),
        )
        play = self.finish(play)
        name, message = play.aggregator.next_decryption(io.BytesIO())
        with pytest.raises(Untrusted, match="other survivors than those that this trainer signed"):
            play.sides[name].decrypt(replace(message, total=total.to_bytes()), b"")

    @staticmethod
    def finish(play: HePlay) -> HePlay:
        for name in play.aggregator.ask_signatures():
            if name != HOLDER:
                play.aggregator.signed(name, play.sides[name].sign(Survivors(members=FIVE.roster.mark(FIVE.names))))
        return play

    def test_a_sum_that_too_few_signed_is_not_decrypted(self) -> None:
        play = until("decrypt")
        name, message = play.aggregator.next_decryption(io.BytesIO())
        total = Total.parse(message.total)
        few = replace(total, witnesses=FIVE.roster.mark(FIVE.names[:2]), signatures=total.signatures[:2])
        with pytest.raises(CohortTooSmall):
            play.sides[name].decrypt(replace(message, total=few.to_bytes()), b"")


class TestKeys:
    """Keys of a round come from a holder's TEE, for this round, and reach nobody but holders."""

    def own(self, play: HePlay) -> tuple[HeSecretKey, Any]:
        """A key pair of the aggregator's own."""
        return HeContext(play.aggregator.plan.parameters).generate()

    def dealing(self, play: HePlay, to: Any) -> Dealing:
        return play.aggregator.ask_encrypted()[to]

    def test_a_key_of_the_aggregators_own_is_refused_by_all(self) -> None:
        play = until("encrypt")
        secret, public = self.own(play)
        asked = play.aggregator.ask_encrypted()
        for name in FIVE.names[1:]:
            sealed = b""
            if name in play.aggregator.plan.holders:
                info = he_keys._info(play.aggregator.plan, HOLDER, name)
                sealed = consortia.kem_key(f"{name}/session/1").public.seal(secret.to_bytes(), info=info)
            shown = asked[name].public and public.to_bytes()
            digests = tuple(Digest.of(sealed).raw if sealed else d for d in asked[name].digests)
            forged = replace(asked[name], pair=public.pair.raw, public=shown, sealed=sealed, digests=digests)
            with pytest.raises(BadSignature):
                play.sides[name].receive(forged)

    def test_a_public_key_under_the_dealers_signature_for_another_is_refused(self) -> None:
        play = until("encrypt")
        _, public = self.own(play)
        with pytest.raises(Mismatch):
            play.sides[OUTSIDER].receive(replace(self.dealing(play, OUTSIDER), public=public.to_bytes()))

    def test_a_secret_key_sealed_by_the_aggregator_is_refused(self) -> None:
        play = until("encrypt")
        secret, _ = self.own(play)
        info = he_keys._info(play.aggregator.plan, HOLDER, OTHER)
        sealed = consortia.kem_key(f"{OTHER}/session/1").public.seal(secret.to_bytes(), info=info)
        with pytest.raises(Untrusted):
            play.sides[OTHER].receive(replace(self.dealing(play, OTHER), sealed=sealed))

    def test_a_dealing_that_is_refused_leaves_the_next_holder_its_turn(self) -> None:
        """The first holder names no key pair: it is left out, and nobody else for it."""
        play = HePlay(FIVE, round_=next(numbers))
        first = play.aggregator.next_dealer()
        with pytest.raises(Malformed):
            play.aggregator.dealt(first, replace(play.sides[first].deal(), pair=b"no digest"))
        second = play.aggregator.next_dealer()
        play.aggregator.dealt(second, play.sides[second].deal())
        for step in ("encrypt", "sign", "decrypt", "take"):
            getattr(play, step)()
        play.check()

    def test_keys_come_from_holders_only(self) -> None:
        """A trainer that is no holder makes a key pair all the same, and signs it as a dealer does."""
        play = until("encrypt")
        plan = play.aggregator.plan
        _, public = self.own(play)
        digests = self.dealing(play, OTHER).digests
        signature = consortia.signing_key(f"{OUTSIDER}/session/1").sign(
            he_keys.LABEL, he_keys._signed(plan, OUTSIDER, public.pair, digests)
        )
        forged = Dealing(
            dealer=OUTSIDER,
            pair=public.pair.raw,
            public=public.to_bytes(),
            sealed=b"",
            digests=digests,
            signature=signature,
        )
        for name in (OTHER, FIVE.names[3]):
            with pytest.raises(Untrusted, match="do not come from another key holder"):
                play.sides[name].receive(forged)
        with pytest.raises(Untrusted, match="no key holder"):
            until("deal").sides[OUTSIDER].deal()

    def test_a_key_for_those_that_began_from_another_adapter_is_refused(self) -> None:
        """So no member encrypts for a sum whose other members learned from an adapter that teaches nothing."""
        play = until("encrypt")
        for name in (OTHER, OUTSIDER):
            plan, dealing = play.aggregator.plan, he_keys.pass_on(play.aggregator.plan, *dealt(play), name)
            elsewhere = replace(plan, context=replace(plan.context, start=Digest.of(b"elsewhere")))
            with pytest.raises(BadSignature):
                he_keys.accept(FIVE.standings[name], consortia.kem_key(f"{name}/session/1"), elsewhere, dealing)

    def test_a_key_of_an_earlier_round_is_refused(self) -> None:
        earlier, play = until("encrypt"), until("encrypt")
        for name in (OTHER, OUTSIDER):
            old = he_keys.pass_on(earlier.aggregator.plan, *earlier.aggregator._dealt, name)  # type: ignore[misc]
            with pytest.raises(BadSignature):
                play.sides[name].receive(old)

    def test_a_key_of_an_earlier_roster_is_refused(self) -> None:
        """After a restart the roster is another, so what an earlier attempt's dealer signed is worth nothing."""
        earlier = until("encrypt")
        again = HeMembers(manifest(5), number=2)
        play = HePlay(again, round_=earlier.number).until("encrypt")
        old = he_keys.pass_on(earlier.aggregator.plan, *earlier.aggregator._dealt, OTHER)  # type: ignore[misc]
        with pytest.raises(BadSignature):
            play.sides[OTHER].receive(old)

    def test_a_round_is_not_begun_twice(self) -> None:
        """A restarted aggregator that asks for the same round again gets no second ciphertext under its key."""
        play = until("decrypt")
        with pytest.raises(Replay):
            FIVE.side(HOLDER, play.number)

    def test_a_second_key_in_a_round_is_refused(self) -> None:
        play = until("encrypt")
        message = self.dealing(play, OTHER)
        play.sides[OTHER].receive(message)
        with pytest.raises(Replay):
            play.sides[OTHER].receive(message)
        play.sides[OTHER].encrypt(FIVE.contribution(OTHER, play.number), io.BytesIO())
        with pytest.raises(Replay):
            play.sides[OTHER].encrypt(FIVE.contribution(OTHER, play.number), io.BytesIO())

    def test_who_holds_no_key_decrypts_nothing(self) -> None:
        play = until("decrypt")
        dst = io.BytesIO()
        _, message = play.aggregator.next_decryption(dst)
        with pytest.raises(Untrusted):
            play.sides[OUTSIDER].decrypt(message, dst.getvalue())

    def test_a_holder_answers_once_a_round(self) -> None:
        """Or an aggregator could ask about thousands of changed sums, and learn the key from what is refused."""
        play = until("decrypt")
        dst = io.BytesIO()
        name, message = play.aggregator.next_decryption(dst)
        with pytest.raises(Untrusted):
            play.sides[name].decrypt(replace(message, tag=(message.tag + 1) % PRIME), dst.getvalue())
        with pytest.raises(Replay):
            play.sides[name].decrypt(message, dst.getvalue())

    def test_a_dealer_that_deals_too_little_is_refused(self) -> None:
        play = until("deal")
        name = play.aggregator.next_dealer()
        said = play.sides[name].deal()
        for wrong in (replace(said, sealed=said.sealed[:1]), replace(said, public=b"")):
            with pytest.raises(Malformed):
                play.aggregator.dealt(name, wrong)
        with pytest.raises(Untrusted):
            play.aggregator.dealt(OTHER, said)


class TestAggregator:
    """It learns neither an update nor the sum nor a key, whatever it keeps."""

    def test_it_holds_no_secret(self) -> None:
        """All that ever passed through it, and all that it keeps, is of no use for opening anything."""
        seen: list[bytes] = []

        def keep(_step: str, _name: Any, message: Any) -> Any:
            parts = message if isinstance(message, tuple) else (message,)
            seen.extend(part if isinstance(part, bytes) else part.to_bytes() for part in parts)
            return message

        play = HePlay(FIVE, round_=next(numbers), hook=keep)
        play.until("decrypt")
        secret = play.sides[HOLDER]._keys.key  # type: ignore[union-attr]
        assert isinstance(secret, HeSecretKey)
        play.decrypt()
        play.take()
        everything = b"".join(seen)
        polynomial = secret.polynomial
        assert all(polynomial[i : i + 16] not in everything for i in range(0, len(polynomial) - 16, 256))
        plain = sum(FIVE.contribution(name, play.number).values.astype(np.int64) for name in FIVE.names)
        assert plain.astype(FIVE.plan().code.ring.dtype).tobytes()[:32] not in everything
        for name in FIVE.names:
            assert FIVE.contribution(name, play.number).values.tobytes()[:32] not in everything
        assert FIVE.standings[HOLDER].group not in everything

    def test_what_holders_publish_opens_for_trainers_only(self) -> None:
        play = until("take")
        message, body = play.aggregator.opened()
        stranger = replace(FIVE.standings[OTHER], group=bytes(32), last=0)
        side = play.sides[OTHER]
        side._standing = stranger
        with pytest.raises(CannotOpen):
            side.take(message, body)

    @pytest.mark.parametrize("what", ["altered", "another holder", "no holder", "another round"])
    def test_what_a_holder_published_arrives_as_it_was(self, what: str) -> None:
        earlier, play = until("take"), until("take")
        message, body = play.aggregator.opened()
        match what:
            case "altered":
                body, error = body[:-1] + bytes([body[-1] ^ 1]), CannotOpen
            case "another holder":
                message, error = replace(message, holder=FIVE.plan().holders[1]), CannotOpen
            case "no holder":
                cipher = play.sides[FIVE.names[3]]._cipher
                plain = cipher(message.holder).decrypt(bytes(12), body, None)
                body = cipher(OUTSIDER).encrypt(bytes(12), plain, None)
                message, error = replace(message, holder=OUTSIDER), Untrusted
            case _:
                body, error = earlier.aggregator.opened()[1], CannotOpen
        with pytest.raises(error):
            play.sides[OTHER].take(message, body)

    def test_what_a_holder_checked_counts_for_the_same_survivors_only(self) -> None:
        """Signatures are gone: who decrypted has checked them, for these survivors; nobody else has."""
        play = until("take")
        message, body = play.aggregator.opened()
        total = Total.parse(message.total)
        bare = replace(total, signatures=tuple(bytes(len(one)) for one in total.signatures))
        fewer = replace(bare, members=FIVE.roster.mark(FIVE.names[:4]), witnesses=FIVE.roster.mark(FIVE.names[:3]))
        for name, said in ((OTHER, bare), (OUTSIDER, bare), (FIVE.names[3], fewer)):
            with pytest.raises(BadSignature):
                play.sides[name].take(replace(message, total=said.to_bytes()), body)
        holder = play.sides[MemberId(message.holder)]
        assert holder.take(replace(message, total=bare.to_bytes()), body).survivors == set(FIVE.names)

    def test_a_holder_that_is_told_of_other_survivors_checks_them_in_full(self) -> None:
        play = until("take")
        message, body = play.aggregator.opened()
        total = Total.parse(message.total)
        fewer = replace(total, members=FIVE.roster.mark(FIVE.names[:4]), witnesses=FIVE.roster.mark(FIVE.names[:3]))
        with pytest.raises(BadSignature):
            play.sides[MemberId(message.holder)].take(replace(message, total=fewer.to_bytes()), body)

    def test_a_sum_is_taken_once(self) -> None:
        play = until("take")
        message, body = play.aggregator.opened()
        play.sides[OTHER].take(message, body)
        with pytest.raises(Replay):
            play.sides[OTHER].take(message, body)


class TestMembers:
    """Members that answer twice, for others, late, or wrongly: they are left out, and the sum is the others'."""

    def test_answers_that_do_not_belong_are_refused(self) -> None:
        play = until("encrypt")
        aggregator, kept = play.aggregator, {}
        for name, message in aggregator.ask_encrypted().items():
            dst = io.BytesIO()
            play.sides[name].receive(message)
            kept[name] = (play.sides[name].encrypt(FIVE.contribution(name, play.number), dst), dst.getvalue())
        aggregator.encrypted(OTHER, *kept[OTHER])
        with pytest.raises(Replay):
            aggregator.encrypted(OTHER, *kept[OTHER])
        with pytest.raises(Untrusted):
            aggregator.encrypted(HOLDER, *kept[OUTSIDER])
        with pytest.raises(Untrusted):
            aggregator.encrypted("stranger", *kept[HOLDER])
        with pytest.raises(Malformed):
            aggregator.encrypted(HOLDER, replace(kept[HOLDER][0], tag=PRIME), kept[HOLDER][1])
        for name in (HOLDER, *FIVE.names[2:]):
            aggregator.encrypted(name, *kept[name])
        aggregator.ask_signatures()
        with pytest.raises(Replay):
            aggregator.encrypted(OTHER, *kept[OTHER])

    def test_a_ciphertext_under_another_key_is_refused(self) -> None:
        """The member's own key pair, or that of an earlier round: named in the envelope, and not the round's."""
        play = until("encrypt")
        plan = play.aggregator.plan
        he = HeContext(plan.parameters)
        secret, public = he.generate()
        given = FIVE.contribution(OTHER, play.number)
        vector, dst = plan.join(given.values, given.weight), io.BytesIO()
        encrypt_update(vector, he.encryptor(secret), plan.sum_context(public.pair), OTHER, dst)
        message = play.aggregator.ask_encrypted()[OTHER]
        play.sides[OTHER].receive(message)
        said = play.sides[OTHER].encrypt(given, io.BytesIO())
        with pytest.raises(Mismatch):
            play.aggregator.encrypted(OTHER, said, dst.getvalue())

    def test_a_ciphertext_under_a_key_that_lies_about_its_name_spoils_no_result(self) -> None:
        """It cannot be told from others until it is decrypted; then the sum is refused by everybody."""
        play = until("encrypt")
        plan = play.aggregator.plan
        he = HeContext(plan.parameters)
        secret, _ = he.generate()
        pair = Digest(play.aggregator._dealt[1].pair)  # type: ignore[index]

        def lie(step: str, name: Any, message: Any) -> Any:
            if step == "encrypt" and name == OTHER:
                given, dst = FIVE.contribution(OTHER, play.number), io.BytesIO()
                vector = plan.join(given.values, given.weight)
                encrypt_update(vector, he.encryptor(secret), plan.sum_context(pair), OTHER, dst)
                return message[0], dst.getvalue()
            return message

        play.hook = lie
        play.encrypt()
        play.sign()
        with pytest.raises(CohortTooSmall, match="no key holder"):
            play.decrypt()
        assert all(isinstance(error, Untrusted | Malformed) for error in play.refusals.values())

    def test_a_contribution_beyond_the_encoding_is_not_encrypted(self) -> None:
        play = until("encrypt")
        message = play.aggregator.ask_encrypted()[OTHER]
        play.sides[OTHER].receive(message)
        given = FIVE.contribution(OTHER, play.number)
        given.values[3] = np.iinfo(given.values.dtype).max
        with pytest.raises(Malformed):
            play.sides[OTHER].encrypt(Contribution(given.values, given.weight, given.tag), io.BytesIO())

    def test_steps_do_not_come_out_of_order(self) -> None:
        side = FIVE.side(OTHER, next(numbers))
        with pytest.raises(Untrusted):
            side.encrypt(FIVE.contribution(OTHER, side.context.round), io.BytesIO())
        with pytest.raises(Untrusted):
            side.sign(Survivors(members=FIVE.roster.mark(FIVE.names)))

    @pytest.mark.parametrize("cut", [0, 1, 40])
    def test_messages_that_are_none_are_refused(self, cut: int) -> None:
        said = until("deal").sides[HOLDER].deal()
        with pytest.raises(Error):
            Dealt.parse(said.to_bytes()[:cut])
