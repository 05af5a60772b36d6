"""Run grants: who may allow a run, and for how long."""

from __future__ import annotations

import dataclasses

import pytest

from superswarm.consortium.approval import succeed
from superswarm.consortium.grant import SignedGrant, approve_grant, sign_grant
from superswarm.errors import BadSignature, Malformed, NoGrant
from superswarm.values import MemberId
from tests.consortia import approved, grant, quorums, sign_all, signed_grant, signing_key, successor


def test_a_quorum_grants_a_run() -> None:
    current = approved()
    granted = approve_grant(signed_grant(current, by=["alice", "carol"]), current)
    assert granted.signers == ("alice", "carol")
    granted.check(at=granted.grant.not_after, attempt=granted.grant.attempts)


def test_fewer_than_the_quorum_grant_nothing() -> None:
    current = approved(quorum=quorums(3))
    with pytest.raises(NoGrant, match="2 members granted run-1, and the manifest needs 3"):
        approve_grant(signed_grant(current, by=["alice", "bob"]), current)


def test_a_grant_ends() -> None:
    granted = approve_grant(signed_grant(current := approved(), not_after=1000), current)
    granted.check(at=1000, attempt=1)
    with pytest.raises(NoGrant, match="ended 1 s ago"):
        granted.check(at=1001, attempt=1)


@pytest.mark.parametrize("attempt", [0, 4, -1])
def test_a_grant_allows_so_many_attempts(attempt: int) -> None:
    granted = approve_grant(signed_grant(current := approved()), current)
    with pytest.raises(NoGrant, match="attempts 1 to 3"):
        granted.check(at=0, attempt=attempt)


def test_a_grant_of_the_last_epoch_is_void() -> None:
    current = approved()
    following = succeed(current, sign_all(successor(current), current))
    with pytest.raises(NoGrant, match="another manifest"):
        approve_grant(signed_grant(current), following)


def test_a_grant_of_another_consortium_with_the_same_members_is_void() -> None:
    """Members, keys and epoch are the same; only the manifest differs."""
    current, other = approved(), approved(name="Another")
    with pytest.raises(NoGrant, match="another manifest"):
        approve_grant(signed_grant(other), current)


def test_a_grant_says_the_epoch_that_its_manifest_has() -> None:
    current = approved()
    wrong = dataclasses.replace(grant(current), epoch=7)
    signatures = {
        MemberId(name): sign_grant(signing_key(name), wrong, current.domain) for name in ("alice", "bob", "carol")
    }
    with pytest.raises(NoGrant, match="another manifest"):
        approve_grant(SignedGrant(wrong, signatures), current)


@pytest.mark.parametrize("field", ["rounds", "attempts", "not_after"])
def test_a_grant_cannot_be_widened_after_signing(field: str) -> None:
    current = approved()
    signed = signed_grant(current)
    wider = dataclasses.replace(signed.grant, **{field: getattr(signed.grant, field) + 1})
    with pytest.raises(BadSignature):
        approve_grant(SignedGrant(wider, signed.signatures), current)


def test_a_strangers_signature_spoils_a_grant() -> None:
    current = approved()
    signed = signed_grant(current)
    stranger = {MemberId("mallory"): sign_grant(signing_key("mallory"), signed.grant, current.domain)}
    with pytest.raises(BadSignature, match="mallory signs"):
        approve_grant(SignedGrant(signed.grant, {**signed.signatures, **stranger}), current)


def test_one_member_is_not_a_quorum_under_several_names() -> None:
    current = approved()
    allowed = grant(current)
    mine = sign_grant(signing_key("alice"), allowed, current.domain)
    with pytest.raises(BadSignature, match="bob"):
        approve_grant(SignedGrant(allowed, {MemberId("alice"): mine, MemberId("bob"): mine}), current)


@pytest.mark.parametrize(
    "changes", [{"run": ""}, {"run": "Run"}, {"run": "../x"}, {"rounds": 0}, {"attempts": 1001}, {"not_after": 0}]
)
def test_a_grant_that_cannot_be_is_malformed(changes: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        grant(approved(), **changes)


def test_grants_survive_the_journey() -> None:
    signed = signed_grant(approved())
    assert SignedGrant.parse(signed.to_bytes()) == signed
