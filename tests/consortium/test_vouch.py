"""Vouches: whose word counts, and for what."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from superswarm.consortium.approval import ApprovedManifest, succeed
from superswarm.consortium.vouch import Vouch, check_vouch, sign_vouch
from superswarm.errors import BadSignature, Malformed, NotVouched
from superswarm.values import Digest, MemberId, Role
from superswarm.wire import pack
from tests.consortia import approved, sign_all, signing_key, successor


def vouch(current: ApprovedManifest, **changes: Any) -> Vouch:
    fields: dict[str, Any] = {
        "manifest": current.digest,
        "consortium": current.manifest.consortium,
        "epoch": current.manifest.epoch,
        "run": "run-1",
        "attempt": 1,
        "role": Role.TRAINER,
        "subject": MemberId("alice"),
        "voucher": MemberId("alice"),
        "session": Digest(bytes(32)),
        "nonce": bytes(32),
        "time": 1_800_000_000,
    }
    return Vouch(**(fields | changes))


def signed(current: ApprovedManifest, key: str = "alice", **changes: Any) -> bytes:
    return sign_vouch(signing_key(key), vouch(current, **changes), current.domain)


def test_a_member_vouches_for_its_own_trainer_and_for_the_aggregator() -> None:
    current = approved()
    assert check_vouch(signed(current), current) == vouch(current)
    aggregator = {"role": Role.AGGREGATOR, "subject": None, "voucher": MemberId("bob")}
    assert check_vouch(signed(current, "bob", **aggregator), current) == vouch(current, **aggregator)


def test_nobody_vouches_for_anothers_trainer() -> None:
    current = approved()
    with pytest.raises(NotVouched, match="for the trainer of alice"):
        check_vouch(signed(current, "bob", voucher=MemberId("bob")), current)


def test_another_members_key_does_not_speak_for_a_member() -> None:
    current = approved()
    with pytest.raises(BadSignature):
        check_vouch(signed(current, "bob"), current)


def test_strangers_do_not_vouch() -> None:
    current = approved()
    mallory = MemberId("mallory")
    with pytest.raises(NotVouched, match="not a member"):
        check_vouch(signed(current, "mallory", voucher=mallory, subject=mallory), current)


@pytest.mark.parametrize("changes", [{"epoch": 2}, {"consortium": "f" * 32}, {"manifest": Digest(bytes(32))}])
def test_a_vouch_serves_one_manifest(changes: dict[str, Any]) -> None:
    current = approved()
    with pytest.raises(NotVouched, match="another manifest"):
        check_vouch(signed(current, **changes), current)


def test_a_vouch_of_the_last_epoch_is_void() -> None:
    current = approved()
    following = succeed(current, sign_all(successor(current), current))
    with pytest.raises(NotVouched):
        check_vouch(signed(current), following)


@pytest.mark.parametrize(
    "changes", [{"time": 1}, {"nonce": b"n" * 32}, {"session": Digest(b"s" * 32)}, {"attempt": 2}, {"run": "run-2"}]
)
def test_nothing_in_a_vouch_can_be_altered(changes: dict[str, Any]) -> None:
    current = approved()
    genuine = signed(current)
    body, altered = vouch(current).to_bytes(), dataclasses.replace(vouch(current), **changes).to_bytes()
    signature = genuine[-3373:]
    assert genuine == pack(body, signature)
    with pytest.raises(BadSignature):
        check_vouch(pack(altered, signature), current)


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": None},
        {"role": Role.AGGREGATOR},
        {"role": Role.NODE},
        {"nonce": bytes(31)},
        {"run": "Run 1"},
        {"voucher": MemberId("not a member")},
    ],
)
def test_a_vouch_that_cannot_be_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        vouch(approved(), **changes)
