"""A release is on disk before it can be handed out; a challenge serves once, across restarts."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superswarm.errors import Environment, Error, Malformed, NotVouched, TooLarge
from superswarm.io import releases
from superswarm.io.challenges import Challenges
from superswarm.io.releases import Entry, ReleaseLog
from superswarm.updates.approvals import SignedApproval
from superswarm.updates.publish import publish
from superswarm.updates.release import HeldShare, hold_share, member_recipient
from superswarm.values import LIMITS, Digest, MemberId
from tests import consortia

ALICE, BOB = MemberId("alice"), MemberId("bob")
SIGNER = consortia.signing_key("aggregator session")
MANIFEST = consortia.approved(result={"recipients": ["alice", "bob"], "approvals": 2})
RESULT = publish(
    {"w": np.ones(8, np.float32)},
    manifest=MANIFEST,
    job=MANIFEST.manifest.jobs[0],
    run="run-1",
    rounds=2,
    signer=SIGNER,
)
HELD: HeldShare = hold_share(
    io.BytesIO(RESULT), MANIFEST, ALICE, consortia.kem_key(ALICE), expected_signer=SIGNER.public
)
AT = 1_800_000_000
CONTAINER = "ab" * 32


def approve(log: ReleaseLog, to: MemberId = BOB, at: int = AT) -> SignedApproval:
    return log.approve(HELD, member_recipient(MANIFEST, to), consortia.signing_key(ALICE), at=at)


@pytest.fixture
def log(tmp_path: Path) -> ReleaseLog:
    return ReleaseLog(tmp_path / "alice.keys")


def test_every_release_is_an_entry_that_its_approval_names(log: ReleaseLog) -> None:
    first, second = approve(log), approve(log, ALICE, AT + 1)
    entries = ReleaseLog(log.file.with_name("alice.keys")).entries()
    assert [(e.number, e.recipient, e.run, e.time) for e in entries] == [
        (1, "bob", "run-1", AT),
        (2, "alice", "run-1", AT + 1),
    ]
    assert [str(entry.digest) for entry in entries] == [first.approval.entry, second.approval.entry]
    assert entries[0].result == str(HELD.result)
    assert stat.S_IMODE(log.file.stat().st_mode) == 0o600


def test_the_log_is_written_before_the_approval_exists(log: ReleaseLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in between: the entry is there and no approval was made."""

    def killed(*_: object, **__: object) -> SignedApproval:
        assert len(log.entries()) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(HeldShare, "approve", killed)
    with pytest.raises(KeyboardInterrupt):
        approve(log)
    assert [entry.recipient for entry in log.entries()] == ["bob"]


def test_no_log_no_approval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(HeldShare, "approve", lambda *_, **__: made.append(1))
    with pytest.raises(Environment):
        approve(ReleaseLog(tmp_path / "absent" / "alice.keys"))

    def full(*_: object, **__: object) -> None:
        raise Environment("no space")

    monkeypatch.setattr(releases, "write_bytes", full)
    with pytest.raises(Environment):
        approve(ReleaseLog(tmp_path / "alice.keys"))
    assert made == []


@pytest.mark.parametrize("damage", ["removed", "swapped", "altered", "renumbered", "junk", "spaced"])
def test_a_log_from_which_something_was_taken_approves_nothing_more(log: ReleaseLog, damage: str) -> None:
    for at in range(3):
        approve(log, at=AT + at)
    lines = log.file.read_bytes().splitlines()
    changed = {
        "removed": [lines[0], lines[2]],
        "swapped": [lines[1], lines[0], lines[2]],
        "altered": [lines[0].replace(b"bob", b"eve"), *lines[1:]],
        "renumbered": [lines[0], lines[1].replace(b'"number":2', b'"number":9'), lines[2]],
        "junk": [*lines, b"{}"],
        "spaced": [lines[0] + b" ", *lines[1:]],
    }[damage]
    log.file.write_bytes(b"\n".join(changed) + b"\n")
    with pytest.raises(Malformed, match="so restore it"):
        approve(log)


@settings(max_examples=60)
@given(st.binary(max_size=120), st.sampled_from(sorted(Entry.model_fields)), st.integers() | st.text(max_size=9))
def test_whatever_the_log_holds_only_our_errors_come_out(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, field: str, value: object
) -> None:
    log = ReleaseLog(tmp_path_factory.mktemp("log") / "a.keys")
    approved = approve(log).approval
    entry = json.loads(log.file.read_bytes())
    unchanged = entry[field] == value
    for content in (raw, json.dumps(entry | {field: value}, sort_keys=True, separators=(",", ":")).encode()):
        log.file.write_bytes(content)
        try:
            entries = log.entries()
        except Error:
            continue
        assert unchanged or [str(one.digest) for one in entries] != [approved.entry]


def test_a_challenge_serves_once_for_its_result_and_expires(tmp_path: Path) -> None:
    keys = tmp_path / "alice.keys"
    nonce = Challenges(keys).issue("run-1", CONTAINER, at=AT).raw
    again = Challenges(keys)  # after a restart
    with pytest.raises(NotVouched):
        again.find((nonce,), "cd" * 32, at=AT)
    with pytest.raises(NotVouched):
        again.find((bytes(32),), CONTAINER, at=AT)
    with pytest.raises(NotVouched):
        again.find((nonce,), CONTAINER, at=AT + LIMITS.challenge_seconds)
    assert again.find((bytes(32), nonce), CONTAINER, at=AT + 1) == nonce
    again.spend(nonce, at=AT + 1)
    with pytest.raises(NotVouched):
        again.find((nonce,), CONTAINER, at=AT + 1)
    with pytest.raises(NotVouched):
        again.spend(nonce, at=AT + 1)


def test_challenges_are_limited_until_they_expire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("superswarm.io.challenges.write_bytes", lambda path, data, **_: path.write_bytes(data))
    challenges = Challenges(tmp_path / "alice.keys")
    for _ in range(LIMITS.challenges):
        challenges.issue("run-1", CONTAINER, at=AT)
    with pytest.raises(TooLarge):
        challenges.issue("run-1", CONTAINER, at=AT)
    challenges.issue("run-1", CONTAINER, at=AT + LIMITS.challenge_seconds)


@given(st.binary(max_size=80), st.recursive(st.integers() | st.text(max_size=5), st.lists))
def test_whatever_the_record_of_challenges_holds(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, rows: object
) -> None:
    keys = tmp_path_factory.mktemp("record") / "a.keys"
    for content in (raw, json.dumps({"format": "superswarm-challenges/1", "open": rows}).encode()):
        keys.with_name("a.keys.challenges").write_bytes(content)
        with pytest.raises(Error):
            Challenges(keys).find((bytes(32),), CONTAINER, at=AT)


def test_the_digest_of_an_entry_covers_all_of_it() -> None:
    entry = Entry(
        number=1, previous=str(Digest(bytes(32))), time=AT, consortium="0" * 32, epoch=1,
        manifest=str(Digest(bytes(32))), run="r", container=CONTAINER, result=str(HELD.result),
        recipient="bob", server=None,
    )  # fmt: skip
    for change in ({"time": AT + 1}, {"recipient": "alice"}, {"server": str(HELD.result)}):
        assert entry.model_copy(update=change).digest != entry.digest
