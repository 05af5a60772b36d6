"""A member checks one statement's signatures once; whatever else is said to it is checked in full."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from superswarm.crypto.signing import SigningKey, VerifyingKey
from superswarm.errors import BadSignature, CohortTooSmall, Untrusted
from superswarm.updates.secure.masks import Contribution
from superswarm.updates.secure.messages import Total
from superswarm.updates.secure.seeds import Context
from superswarm.updates.secure.total import CheckedSum, check_total
from superswarm.updates.secure.witnesses import SignedSurvivors
from superswarm.values import Digest, MemberId
from tests.securesums import MOST, Members, Play, manifest

FIVE = Members(manifest(5, 4, 2, 1))
NAME = FIVE.names[0]
numbers = iter(range(1, 10**6))


class Starting(Members):
    """Members whose rounds begin from another adapter."""

    def context(self, round_: int = 1) -> Context:
        return Context(self.roster, round_, Digest.of(b"another adapter"))


@pytest.fixture
def done() -> tuple[Play, Total, Contribution]:
    play = Play(FIVE, round_=next(numbers))
    return play, *play.run()


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tags of all signatures that are verified from now on."""
    tags: list[str] = []
    honest_verify = VerifyingKey.verify

    def verify(key: VerifyingKey, tag: str, message: bytes, signature: bytes) -> None:
        tags.append(tag)
        honest_verify(key, tag, message, signature)

    monkeypatch.setattr(VerifyingKey, "verify", verify)
    return tags


def known(play: Play, name: MemberId = NAME) -> SignedSurvivors:
    found = play.sides[name].unmasked
    assert found is not None
    return found


def check(play: Play, total: Total, body: bytes, known: SignedSurvivors | None) -> CheckedSum:
    context, code = FIVE.context(play.number), FIVE.code(play.number)
    return check_total(FIVE.standings[NAME], total, body, context=context, code=code, most=MOST, known=known)


def test_what_was_checked_while_unmasking_is_not_checked_again(done: Any, verified: list[str]) -> None:
    play, total, found = done
    taken = check(play, total, found.to_bytes(), known(play))
    assert taken.survivors == set(FIVE.names)
    assert not verified
    again = check(play, total, found.to_bytes(), None)
    assert len(verified) == FIVE.terms.graph.plan.signatures
    assert again.mean.tobytes() == taken.mean.tobytes()


def test_a_member_that_gave_no_share_checks_all(verified: list[str]) -> None:
    """It masked and was cut off: it knows nothing of the survivors yet."""
    play = Play(FIVE, round_=next(numbers), gone={NAME: "unmask"})
    total, found = play.run()
    assert play.sides[NAME].unmasked is None
    verified.clear()
    check(play, total, found.to_bytes(), play.sides[NAME].unmasked)
    assert len(verified) == FIVE.terms.graph.plan.signatures


def test_a_refused_unmasking_leaves_nothing_known() -> None:
    """Signatures held, and a neighbour's word did not: no share was given, and nothing is taken for checked."""
    play = Play(FIVE, round_=next(numbers))
    play.run_until("unmask")
    message = play.aggregator.ask_unmasking()[NAME]
    with pytest.raises(Untrusted, match="masked for other members"):
        play.sides[NAME].unmask(replace(message, proofs=(bytes(32), *message.proofs[1:])))
    assert play.sides[NAME].unmasked is None


@pytest.mark.parametrize("signatures", ["those that were checked", "none", "forged"])
def test_other_survivors_than_were_unmasked_are_checked_in_full(done: Any, signatures: str) -> None:
    """The sum of four, said to be of four, after five were unmasked: nobody signed that."""
    play, total, _ = done
    four = FIVE.names[:4]
    other = replace(total, members=FIVE.roster.mark(four), witnesses=FIVE.roster.mark(four))
    match signatures:
        case "none":
            other = replace(other, witnesses=FIVE.roster.mark([]), signatures=())
        case "forged":
            statement = FIVE.context(play.number).statement(other.masked, other.members)
            forger = SigningKey.generate()
            other = replace(other, signatures=(forger.sign("superswarm/v1/masked/survivors", statement),) * 4)
    body = FIVE.expected(four, play.number).to_bytes()
    with pytest.raises(CohortTooSmall if signatures == "none" else BadSignature):
        check(play, other, body, known(play))


def test_another_set_that_masks_were_made_for_is_checked_in_full(done: Any) -> None:
    """Survivors are the same, those masked for are not: another statement, which has no signatures."""
    play = Play(FIVE, round_=next(numbers), gone={FIVE.names[4]: "mask"})
    play.run_until("unmask")
    messages = play.aggregator.ask_unmasking()
    for name, message in messages.items():
        play.aggregator.unmasked(name, play.sides[name].unmask(message))
    total, found = play.aggregator.total()
    four = FIVE.roster.mark(FIVE.names[:4])
    assert (total.members, total.masked) == (four, FIVE.roster.mark(FIVE.names))
    with pytest.raises(BadSignature):
        check(play, replace(total, masked=four), found.to_bytes(), known(play))


@pytest.mark.parametrize("of", ["another round", "another adapter", "another roster", "another member"])
def test_what_was_checked_elsewhere_does_not_count(done: Any, of: str) -> None:
    """The signatures are gone: only what this member has checked in this round could stand in for them."""
    play, total, found = done
    bare = replace(total, signatures=tuple(bytes(len(one)) for one in total.signatures))
    assert check(play, bare, found.to_bytes(), known(play)).survivors == set(FIVE.names)
    match of:
        case "another round":
            elsewhere = Play(FIVE, round_=next(numbers))
        case "another adapter":
            elsewhere = Play(Starting(manifest(5, 4, 2, 1)), round_=play.number)
        case "another roster":
            elsewhere = Play(Members(manifest(5, 4, 2, 1), number=2), round_=play.number)
        case _:
            elsewhere = play
    if elsewhere is not play:
        elsewhere.run()
    name = FIVE.names[1] if of == "another member" else NAME
    with pytest.raises(BadSignature):
        check(play, bare, found.to_bytes(), known(elsewhere, name))


def test_nobody_else_says_that_survivors_are_signed() -> None:
    with pytest.raises(TypeError, match="check_survivors"):
        SignedSurvivors(survivors=frozenset(FIVE.names), statement=b"", checked_by=NAME, proof=object())
