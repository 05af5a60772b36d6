"""Attacks on the owner's broker: its challenges, its count, its log, and what a restart or an old backup does."""

from __future__ import annotations

import re
import resource
import threading
from pathlib import Path

import pytest

from participants.broker import broker as brokers
from participants.broker.challenges import OPEN
from participants.broker.decisions import FIRST
from participants.broker.ledger import LOG, Ledger, Missing
from participants.broker.lifecycle import find_missing, reconcile, unpack_backup
from participants.broker.wrapping import by_passphrase
from superswarm.errors import (
    CannotOpen,
    DiskFull,
    Malformed,
    Misconfigured,
    NoGrant,
    NotVouched,
    OtherManifest,
    ReleaseRefused,
    Rollback,
)
from superswarm.values import LIMITS, Digest, MemberId
from tests import consortia
from tests.releases import (
    BASE,
    BASE_KEY,
    BOB,
    CAROL,
    NOTES,
    NOTES_KEY,
    Premises,
    Session,
    agreed,
    ask,
    asset_key,
    granted,
    manifest_of,
    next_epoch,
    refused,
    sealed,
)


@pytest.fixture
def premises(tmp_path: Path) -> Premises:
    return Premises(tmp_path).stock()


def events(premises: Premises) -> list[str]:
    return [entry.event for entry in premises.ledger.read()]


def test_a_trainer_gets_the_key_and_the_log_says_so(premises: Premises) -> None:
    session = Session()
    assert ask(premises.open(), session) == BASE_KEY
    entry = premises.ledger.read()[-1]
    assert (entry.event, entry.member, entry.run, entry.attempt) == ("release", "bob", "run-1", 1)
    assert (entry.asset, entry.manifest) == (str(BASE), str(agreed().digest))
    assert entry.session == str(session.keys.digest)


def test_nothing_on_disk_holds_a_key_in_the_clear(premises: Premises) -> None:
    ask(premises.open(), Session())
    for file in premises.vault.folder.parent.rglob("*"):
        if file.is_file():
            raw = file.read_bytes()
            assert BASE_KEY not in raw
            assert BASE_KEY.hex().encode() not in raw
            assert file.stat().st_mode & 0o077 == 0


# --- challenges --------------------------------------------------------------------------------------------------


def test_a_challenge_serves_once(premises: Premises) -> None:
    broker, session = premises.open(), Session()
    nonce = broker.challenge(agreed().digest, BOB, BASE.raw)
    request = session.request(nonce)
    broker.release(agreed().digest, BOB, request)
    with refused("no-such-challenge"):
        broker.release(agreed().digest, BOB, request)


def test_a_challenge_is_spent_by_a_request_that_fails(premises: Premises) -> None:
    broker, session = premises.open(), Session()
    nonce = broker.challenge(agreed().digest, BOB, BASE.raw)
    with pytest.raises(NotVouched):
        broker.release(agreed().digest, BOB, session.request(nonce, vouch=session.vouch(by=CAROL)))
    with refused("no-such-challenge"):
        broker.release(agreed().digest, BOB, session.request(nonce))


def test_a_challenge_expires(premises: Premises) -> None:
    broker, session = premises.open(), Session()
    nonce = broker.challenge(agreed().digest, BOB, BASE.raw)
    premises.monotonic += LIMITS.nonce_seconds
    with refused("no-such-challenge"):
        broker.release(agreed().digest, BOB, session.request(nonce))


def test_a_challenge_of_another_member_or_asset(premises: Premises) -> None:
    premises.owner.offer(agreed(), "notes")
    broker, session = premises.open(), Session()
    carols = broker.challenge(agreed().digest, CAROL, BASE.raw)
    notes = broker.challenge(agreed().digest, BOB, NOTES.raw)
    for nonce in (carols, notes, bytes(32)):
        with refused("no-such-challenge"):
            broker.release(agreed().digest, BOB, session.request(nonce))
    assert broker.release(agreed().digest, CAROL, Session(CAROL).request(carols))  # nobody spent it for her


def test_challenges_of_one_member_are_few_and_crowd_nobody_out(premises: Premises) -> None:
    broker, session = premises.open(), Session(CAROL)
    carols = broker.challenge(agreed().digest, CAROL, BASE.raw)
    bobs = [broker.challenge(agreed().digest, BOB, BASE.raw) for _ in range(OPEN + 1)]
    with refused("no-such-challenge"):
        broker.release(agreed().digest, BOB, Session().request(bobs[0]))
    broker.release(agreed().digest, CAROL, session.request(carols))
    broker.release(agreed().digest, BOB, Session().request(bobs[1]))


def test_a_member_asks_for_many_assets_at_once(premises: Premises) -> None:
    """A job may need more keys of one owner than one asset's challenges are many."""
    premises.owner.offer(agreed(), "notes")
    broker, session = premises.open(), Session()
    first = broker.challenge(agreed().digest, BOB, NOTES.raw)
    for _ in range(OPEN):
        broker.challenge(agreed().digest, BOB, BASE.raw)
    broker.release(agreed().digest, BOB, session.request(first, NOTES))


def test_a_challenge_does_not_outlive_the_broker(premises: Premises) -> None:
    nonce = premises.open().challenge(agreed().digest, BOB, BASE.raw)
    with refused("no-such-challenge"):
        premises.open().release(agreed().digest, BOB, Session().request(nonce))


def test_a_stranger_gets_no_challenge(premises: Premises) -> None:
    with refused("not-for-this-member"):
        premises.open().challenge(agreed().digest, MemberId("mallory"), BASE.raw)
    with refused("not-offered"):
        premises.open().challenge(agreed().digest, BOB, Digest.of(b"nothing").raw)


# --- manifests and offers ----------------------------------------------------------------------------------------


def test_an_asset_that_is_not_offered_stays(premises: Premises) -> None:
    with refused("not-offered"):
        ask(premises.open(), Session(), NOTES)


def test_another_manifest_than_the_one_in_force(premises: Premises) -> None:
    other = manifest_of(consortium="f" * 32)
    with pytest.raises(OtherManifest):
        premises.open().challenge(other.digest, BOB, BASE.raw)
    with refused("not-offered"):
        premises.open(other).challenge(other.digest, BOB, BASE.raw)


def test_one_asset_in_two_consortia_is_wrapped_for_each(premises: Premises) -> None:
    other = manifest_of(consortium="f" * 32)
    premises.owner.offer(other, "base")
    broker = premises.open(agreed(), other)
    assert ask(broker, Session()) == BASE_KEY
    assert ask(broker, Session(manifest=other)) == BASE_KEY
    first, second = premises.vault.document().assets[0].offers
    assert first.key != second.key
    swapped = premises.vault.open(premises.wrapper)
    held = swapped.document.assets[0]
    moved = held.model_copy(update={"offers": (first.model_copy(update={"key": second.key}), second)})
    premises.vault.save(swapped._with(moved))
    with pytest.raises(CannotOpen):
        ask(broker, Session())


def test_a_request_of_one_consortium_is_none_in_another(premises: Premises) -> None:
    other = manifest_of(consortium="f" * 32)
    premises.owner.offer(other, "base")
    broker = premises.open(agreed(), other)
    nonce = broker.challenge(other.digest, BOB, BASE.raw)
    with pytest.raises(NoGrant):
        broker.release(other.digest, BOB, Session().request(nonce))


def test_a_new_epoch_is_offered_anew_and_ends_the_old_one(premises: Premises) -> None:
    later = next_epoch(agreed())
    with refused("not-offered"):
        ask(premises.open(later), Session(manifest=later))
    premises.owner.offer(later, "base")
    assert ask(premises.open(agreed(), later), Session(manifest=later)) == BASE_KEY
    with refused("not-offered"):
        ask(premises.open(agreed(), later), Session())


def test_a_withdrawal_holds_from_the_next_request_on(premises: Premises) -> None:
    """The broker runs; the owner withdraws by a command, in another process."""
    broker, session = premises.open(), Session()
    ask(broker, session)
    nonce = broker.challenge(agreed().digest, BOB, BASE.raw)
    premises.owner.withdraw(BASE, None)
    with refused("not-offered"):
        broker.release(agreed().digest, BOB, Session().request(nonce))
    with refused("not-offered"):
        broker.challenge(agreed().digest, BOB, BASE.raw)


def test_a_withdrawal_from_one_consortium_leaves_the_other(premises: Premises) -> None:
    other = manifest_of(consortium="f" * 32)
    premises.owner.offer(other, "base")
    premises.owner.withdraw(BASE, agreed().digest)
    broker = premises.open(agreed(), other)
    with refused("not-offered"):
        ask(broker, Session())
    assert ask(broker, Session(manifest=other)) == BASE_KEY


def test_an_old_vault_beside_the_log_brings_nothing_back(premises: Premises) -> None:
    old = premises.vault.file.read_bytes()
    premises.owner.withdraw(BASE, None)
    premises.vault.file.write_bytes(old)
    with refused("not-offered"):
        ask(premises.open(), Session())


def test_an_old_vault_beside_the_log_brings_no_old_epoch_back(premises: Premises) -> None:
    old, later = premises.vault.file.read_bytes(), next_epoch(agreed())
    premises.owner.offer(later, "base")
    premises.vault.file.write_bytes(old)
    with refused("not-offered"):
        ask(premises.open(agreed(), later), Session())


def test_an_offer_that_somebody_adds_to_the_log_brings_nothing_back(premises: Premises) -> None:
    """Who may write to the vault's folder, and kept an old copy of the vault, but cannot open it."""
    old = premises.vault.file.read_bytes()
    premises.owner.withdraw(BASE, None)
    ledger, log = premises.ledger, premises.vault.folder / LOG
    ledger.read()
    fields = {"asset": str(BASE), "manifest": str(agreed().digest), "consortium": agreed().manifest.consortium}
    forged = ledger.decisions.next("offer", premises.now, fields | {"member": "alice"})
    log.write_bytes(log.read_bytes() + forged.to_bytes() + b"\n")
    premises.vault.file.write_bytes(old)
    with refused("not-offered"):
        ask(premises.open(), Session())
    count = f'"entry":{forged.number}'.encode()
    premises.vault.file.write_bytes(re.sub(rb'"entry":\d+', count, old))
    with pytest.raises(CannotOpen):
        ask(premises.open(), Session())


def test_simulated_evidence_gets_only_what_was_sealed_as_a_demo(tmp_path: Path) -> None:
    premises = Premises(tmp_path)
    premises.vault.create(premises.wrapper)
    premises.owner.add(asset_key(demo=False))
    with refused("not-a-demo"):
        premises.owner.offer(agreed(), "base")
    premises.vault.save(premises.vault.open(premises.wrapper).offer(BASE, agreed(), "base", 2))
    premises.ledger.read()
    ledger = premises.ledger
    ledger.read()
    ledger.append("offer", asset=str(BASE), manifest=str(agreed().digest), consortium=agreed().manifest.consortium)
    with refused("not-a-demo"):
        ask(premises.open(), Session())


def test_an_asset_that_was_marked_a_demo_in_the_file_does_not_open(tmp_path: Path) -> None:
    premises = Premises(tmp_path)
    premises.vault.create(premises.wrapper)
    premises.owner.add(asset_key(demo=False))
    raw = premises.vault.file.read_bytes().replace(b'"demo":false', b'"demo":true')
    premises.vault.file.write_bytes(raw)
    with pytest.raises(CannotOpen):
        premises.owner.offer(agreed(), "base")


# --- the count ---------------------------------------------------------------------------------------------------


def test_times_are_used_up_for_one_member_only(premises: Premises) -> None:
    broker = premises.open()
    ask(broker, Session())
    ask(broker, Session())
    with refused("used-up"):
        ask(broker, Session())
    assert ask(broker, Session(CAROL)) == BASE_KEY


def test_times_stay_used_up_after_a_restart(premises: Premises) -> None:
    for _ in range(2):
        ask(premises.open(), Session())
    with refused("used-up"):
        ask(premises.open(), Session())


def test_a_session_that_has_the_key_uses_nothing_up(premises: Premises) -> None:
    """A relay that drops answers costs time, not releases."""
    broker, session = premises.open(), Session()
    for _ in range(4):
        assert ask(broker, session) == BASE_KEY
    ask(broker, Session())
    assert ask(broker, session) == BASE_KEY
    with refused("used-up"):
        ask(broker, Session())


def test_two_runs_at_once_do_not_share_the_last_release(premises: Premises) -> None:
    ask(premises.open(), Session())
    grants = {name: granted(agreed(), run=name) for name in ("run-1", "run-2")}
    outcomes: list[str] = []
    barrier = threading.Barrier(4)

    def race(name: str) -> None:
        broker, session = premises.open(), Session(run=name)  # each as a process of its own
        nonce = broker.challenge(agreed().digest, BOB, BASE.raw)
        request = session.request(nonce, grant=grants[name].to_bytes())
        barrier.wait()
        try:
            broker.release(agreed().digest, BOB, request)
            outcomes.append("released")
        except ReleaseRefused as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=race, args=(name,)) for name in ("run-1", "run-2") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["released", "used-up", "used-up", "used-up"]


def test_a_decision_counts_though_the_broker_died_before_it_answered(
    premises: Premises, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(premises.open(), Session())
    append = Ledger.append

    def die(self: Ledger, *arguments: object, **fields: object) -> None:
        append(self, *arguments, **fields)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "append", die)
        with pytest.raises(KeyboardInterrupt):
            ask(premises.open(), Session())
    with refused("used-up"):
        ask(premises.open(), Session())


def test_no_answer_leaves_before_the_log_has_it(premises: Premises, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskFull("no space")

    broker = premises.open()
    monkeypatch.setattr(Ledger, "append", full)
    with pytest.raises(DiskFull):
        ask(broker, Session())


def test_a_full_disk_leaves_a_log_that_is_whole(premises: Premises) -> None:
    broker, log = premises.open(), premises.vault.folder / LOG
    before = log.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
    try:
        with pytest.raises(DiskFull):
            ask(broker, Session())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.read_bytes() == before
    assert ask(broker, Session()) == BASE_KEY


def test_a_refusal_is_logged_with_its_reason(premises: Premises) -> None:
    broker = premises.open()
    with pytest.raises(NotVouched):
        ask(broker, Session(), vouch=Session().vouch())
    entry = premises.ledger.read()[-1]
    assert (entry.event, entry.code, entry.member, entry.run) == ("refuse", "NotVouched", "bob", "run-1")


def test_refusals_cannot_fill_the_disk(premises: Premises, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "REFUSALS", 3)
    broker, request = premises.open(), Session().request(bytes(32))
    for _ in range(6):
        with refused("no-such-challenge"):
            broker.release(agreed().digest, BOB, request)
    assert events(premises).count("refuse") == 3
    premises.monotonic += brokers.HOUR + 1
    with refused("no-such-challenge"):
        broker.release(agreed().digest, BOB, request)
    assert events(premises).count("refuse") == 4


# --- the log -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", ["cut a line", "swap lines", "change a word", "add a space"])
def test_a_log_that_was_edited_is_refused(premises: Premises, edit: str) -> None:
    ask(premises.open(), Session())
    log = premises.vault.folder / LOG
    lines = log.read_bytes().splitlines(keepends=True)
    match edit:
        case "cut a line":
            del lines[1]
        case "add a space":
            lines[0] = lines[0].replace(b":", b": ", 1)
        case "swap lines":
            lines[1], lines[2] = lines[2], lines[1]
        case _:
            lines[-1] = lines[-1].replace(b'"release"', b'"refuse"')
    log.write_bytes(b"".join(lines))
    with pytest.raises((Malformed, Rollback)):
        premises.open()


def test_the_newest_entry_cannot_be_rewritten(premises: Premises) -> None:
    """The last line's digest stands in no other line, but in the witness."""
    ask(premises.open(), Session())
    log = premises.vault.folder / LOG
    log.write_bytes(log.read_bytes().replace(b'"event":"release"', b'"event":"refuse"'))
    with pytest.raises(Rollback):
        premises.open()


def test_an_entry_that_a_crash_cut_short_is_cut_off(premises: Premises) -> None:
    log = premises.vault.folder / LOG
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"attempt":1,"event":"rele' + b" " * 5_000)
    assert ask(premises.open(), Session()) == BASE_KEY
    assert log.read_bytes().startswith(whole)
    assert ask(premises.open(), Session()) == BASE_KEY


# --- old backups -------------------------------------------------------------------------------------------------


def test_a_broker_from_an_old_backup_refuses(premises: Premises) -> None:
    log = premises.vault.folder / LOG
    old = log.read_bytes()
    running = premises.open()
    ask(running, Session())
    log.write_bytes(old)
    with pytest.raises(Rollback):
        premises.open()
    with pytest.raises(Rollback):  # also while it runs
        ask(running, Session())


def test_a_restored_broker_does_not_forget_what_it_released(premises: Premises, tmp_path: Path) -> None:
    """Two releases after the backup are unknown to it: both count, for everybody, and nothing is offered."""
    backup = tmp_path / "backup"
    premises.owner.backup(backup)
    for _ in range(2):
        ask(premises.open(), Session())
    with refused("used-up"):
        ask(premises.open(), Session())
    restored = Premises(tmp_path)
    restored.vault = type(restored.vault)(tmp_path / "new vault")
    unpack_backup(backup, restored.vault)
    with pytest.raises(Rollback):
        restored.open()
    assert find_missing(restored.ledger) == Missing(3, 2)
    reconcile(restored.vault, restored.wrapper, restored.ledger, [agreed()])
    with refused("not-offered"):
        ask(restored.open(), Session())
    restored.owner.offer(agreed(), "base")
    for member in (BOB, CAROL):
        with refused("used-up"):
            ask(restored.open(), Session(member))
    later = next_epoch(agreed())
    restored.owner.offer(later, "base")
    assert ask(restored.open(later), Session(manifest=later)) == BASE_KEY  # times count from new in a new epoch


def test_a_backup_that_is_restored_twice_is_charged_twice(premises: Premises, tmp_path: Path) -> None:
    """The second time, what the first restoring had charged is missing too."""
    premises.owner.backup(tmp_path / "backup")
    for _ in range(2):
        ask(premises.open(), Session())
    for name in ("first", "second"):
        restored = Premises(tmp_path)
        restored.vault = type(restored.vault)(tmp_path / name)
        unpack_backup(tmp_path / "backup", restored.vault)
        entry = reconcile(restored.vault, restored.wrapper, restored.ledger, [agreed()])
        assert entry is not None
        assert entry.charged == 2
    restored.owner.offer(agreed(), "base")
    with refused("used-up"):
        ask(restored.open(), Session())


def test_missing_refusals_cost_nobody_a_release(premises: Premises, tmp_path: Path) -> None:
    """A relay that asks and asks leaves nothing used up."""
    premises.owner.backup(tmp_path / "backup")
    with refused("no-such-challenge"):
        premises.open().release(agreed().digest, BOB, Session().request(bytes(32)))
    restored = Premises(tmp_path)
    restored.vault = type(restored.vault)(tmp_path / "new vault")
    unpack_backup(tmp_path / "backup", restored.vault)
    entry = reconcile(restored.vault, restored.wrapper, restored.ledger, [agreed()])
    assert entry is not None
    assert (entry.missing, entry.charged) == (1, 0)
    restored.owner.offer(agreed(), "base")
    assert ask(restored.open(), Session()) == BASE_KEY


def test_a_restored_broker_does_not_bring_back_what_was_withdrawn(premises: Premises, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    premises.owner.backup(backup)
    premises.owner.withdraw(BASE, None)
    restored = Premises(tmp_path)
    restored.vault = type(restored.vault)(tmp_path / "new vault")
    unpack_backup(backup, restored.vault)
    reconcile(restored.vault, restored.wrapper, restored.ledger, [agreed()])
    with refused("not-offered"):
        ask(restored.open(), Session())


def test_without_its_witness_a_broker_refuses_and_then_counts_everything_as_used(premises: Premises) -> None:
    ask(premises.open(), Session())
    premises.ledger.witness.file.unlink()
    with pytest.raises(Rollback):
        premises.open()
    assert find_missing(premises.ledger).entries is None
    reconcile(premises.vault, premises.wrapper, premises.ledger, [agreed()])
    premises.owner.offer(agreed(), "base")
    with refused("used-up"):
        ask(premises.open(), Session(CAROL))
    later = next_epoch(agreed())
    premises.owner.offer(later, "base")
    assert ask(premises.open(later), Session(CAROL, manifest=later)) == BASE_KEY


def test_a_backup_that_is_current_restores_everything(premises: Premises, tmp_path: Path) -> None:
    ask(premises.open(), Session())
    premises.owner.backup(tmp_path / "backup")
    restored = Premises(tmp_path)
    restored.vault = type(restored.vault)(tmp_path / "new vault")
    unpack_backup(tmp_path / "backup", restored.vault)
    assert reconcile(restored.vault, restored.wrapper, restored.ledger, []) is None
    ask(restored.open(), Session())
    with refused("used-up"):
        ask(restored.open(), Session())


def test_a_rival_log_counts_in_full(premises: Premises) -> None:
    """As long as the one that the witness saw, but not the same: nobody knows what it lacks."""
    log = premises.vault.folder / LOG
    old = log.read_bytes()
    ask(premises.open(), Session())
    seen = premises.ledger.witness.read()
    log.write_bytes(old)
    ledger = premises.ledger
    ledger.read()
    premises.now += 5
    ledger.append("release", asset=str(BASE), manifest=str(agreed().digest), member="carol", session=str(FIRST))
    assert seen is not None
    ledger.witness.note(seen)
    with pytest.raises(Rollback):
        premises.open()
    assert find_missing(premises.ledger) == Missing(seen.count, 1)


def test_a_backup_needs_the_same_passphrase(tmp_path: Path) -> None:
    premises = Premises(tmp_path, by_passphrase("the right one")).stock()
    premises.owner.backup(tmp_path / "backup")
    restored = Premises(tmp_path, by_passphrase("the wrong one", premises.wrapper.parameters))
    restored.vault = type(restored.vault)(tmp_path / "new vault")
    unpack_backup(tmp_path / "backup", restored.vault)
    with pytest.raises(Misconfigured, match="passphrase does not open the vault"):
        restored.open()


def test_a_backup_does_not_replace_a_living_broker(premises: Premises, tmp_path: Path) -> None:
    premises.owner.backup(tmp_path / "backup")
    with pytest.raises(Misconfigured):
        unpack_backup(tmp_path / "backup", premises.vault)


def test_a_new_passphrase_ends_the_old_one(premises: Premises) -> None:
    old = premises.open()
    fresh = by_passphrase("a new one")
    premises.owner.rekey(fresh)
    with pytest.raises(Misconfigured):
        ask(old, Session())
    with pytest.raises(Misconfigured):
        premises.open()
    assert ask(premises.open(wrapper=fresh), Session()) == BASE_KEY
    assert NOTES_KEY not in premises.vault.file.read_bytes()


def test_a_terms_count_is_of_the_manifest_in_force(tmp_path: Path) -> None:
    manifest = manifest_of(sealed("base", times=1))
    premises = Premises(tmp_path).stock(manifest)
    ask(premises.open(manifest), Session(manifest=manifest))
    with refused("used-up"):
        ask(premises.open(manifest), Session(manifest=manifest))
    assert consortia.digest("base") == str(BASE)


def test_a_request_that_no_entry_can_hold_is_logged_all_the_same(premises: Premises) -> None:
    """Or whoever is refused could keep its refusals out of the log."""
    broker, session = premises.open(), Session()
    nonce = broker.challenge(agreed().digest, BOB, BASE.raw)
    with pytest.raises(NoGrant):
        broker.release(agreed().digest, BOB, session.request(nonce, attempt=2**63 - 1))
    entry = premises.ledger.read()[-1]
    assert (entry.event, entry.code, entry.member, entry.run) == ("refuse", "NoGrant", "bob", "run-1")


def test_a_withdrawal_under_another_epoch_says_that_it_withdraws_nothing(premises: Premises) -> None:
    broker, later = premises.open(), next_epoch(agreed())
    with pytest.raises(Misconfigured, match="not offered"):
        premises.owner.withdraw(BASE, later.digest)
    assert ask(broker, Session()) == BASE_KEY
    premises.owner.withdraw(BASE, agreed().digest)
    with refused("not-offered"):
        ask(broker, Session())


def test_an_older_epoch_is_not_offered_in_place_of_a_newer(premises: Premises) -> None:
    later = next_epoch(agreed())
    premises.owner.offer(later, "base")
    with pytest.raises(Misconfigured, match="epoch 2 already"):
        premises.owner.offer(agreed(), "base")
    assert ask(premises.open(later), Session(manifest=later)) == BASE_KEY
