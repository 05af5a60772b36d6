"""Attacks on the release of an asset's key, against the judgement; `test_broker.py` has those on the broker."""

from __future__ import annotations

from dataclasses import replace

import pytest

from superswarm.assets.release import KeyGrant, KeyHello, KeyNonce, KeyRefusal, KeyRequest, open_key, seal_key
from superswarm.assets.terms import ReleaseTo
from superswarm.attestation.appraise import TrainerKey
from superswarm.attestation.handshake import Attempt
from superswarm.attestation.messages import Message
from superswarm.crypto.hpke import KemKey
from superswarm.errors import (
    BadSignature,
    BindingMismatch,
    CannotOpen,
    EvidenceRejected,
    Malformed,
    NoGrant,
    NotVouched,
    UnapprovedMeasurement,
)
from superswarm.values import LIMITS, Digest, MemberId, Role
from tests import consortia
from tests.releases import (
    ALICE,
    BASE,
    BASE_KEY,
    BOB,
    CAROL,
    NONCE,
    NOTES,
    OTHER,
    Session,
    agreed,
    granted,
    judged,
    manifest_of,
    next_epoch,
    refused,
    sealed,
)
from tests.simulator import NOW, OTHER_CODE, tee

BOBS = Session()


def test_an_attested_vouched_trainer_gets_the_key() -> None:
    verdict = judged(BOBS.request(NONCE))
    assert open_key(verdict.seal(BASE_KEY), BOBS.kem, BOBS.context(NONCE)) == BASE_KEY


def test_only_the_judgement_makes_a_verdict() -> None:
    verdict = judged(BOBS.request(NONCE))
    with pytest.raises(TypeError):
        ReleaseTo(asset=verdict.asset, holder=verdict.holder, context=verdict.context, proof=object())
    assert isinstance(verdict.holder, TrainerKey)


# --- who asks ----------------------------------------------------------------------------------------------------


def test_a_node_or_aggregator_of_the_member_is_no_trainer() -> None:
    for role in (Role.AGGREGATOR, Role.SERVER, Role.NODE):
        with pytest.raises(BindingMismatch):
            judged(BOBS.request(NONCE, evidence=BOBS.evidence(NONCE, role=role).to_bytes()))


def test_another_member_does_not_get_it_by_asking_in_bobs_name() -> None:
    """Carol's trainer, genuine in all it shows, claims to be Bob's."""
    carols = Session(CAROL)
    with pytest.raises(NotVouched):
        judged(carols.request(NONCE))


def test_a_vouch_of_another_member_is_none() -> None:
    with pytest.raises(NotVouched):
        judged(BOBS.request(NONCE, vouch=BOBS.vouch(by=CAROL)))


def test_a_vouch_that_another_member_signed_in_bobs_name() -> None:
    with pytest.raises(BadSignature):
        judged(BOBS.request(NONCE, vouch=BOBS.vouch(key=CAROL)))


def test_approved_code_that_the_member_did_not_vouch_for() -> None:
    """Anybody can boot approved code: Bob's genuine vouch is for the keys of another session."""
    with pytest.raises(NotVouched):
        judged(Session().request(NONCE, vouch=BOBS.vouch()))


def test_a_stale_vouch() -> None:
    limit = LIMITS.vouch_seconds + LIMITS.clock_skew_seconds
    judged(Session(vouched_at=NOW - limit).request(NONCE))
    with pytest.raises(NotVouched):
        judged(Session(vouched_at=NOW - limit - 1).request(NONCE))


def test_a_vouch_from_the_future() -> None:
    judged(Session(vouched_at=NOW + LIMITS.clock_skew_seconds).request(NONCE))
    with pytest.raises(NotVouched):
        judged(Session(vouched_at=NOW + LIMITS.clock_skew_seconds + 1).request(NONCE))


# --- with what ---------------------------------------------------------------------------------------------------


def test_unapproved_code() -> None:
    with pytest.raises(UnapprovedMeasurement):
        judged(Session(attester=tee(BOB, OTHER_CODE)).request(NONCE))


def test_a_machine_of_another_members_authority() -> None:
    with pytest.raises(EvidenceRejected):
        judged(Session(attester=tee(CAROL)).request(NONCE))


def test_evidence_over_another_challenge() -> None:
    """What a trainer once showed to somebody else, or to this broker for another request."""
    with pytest.raises(BindingMismatch):
        judged(BOBS.request(NONCE, evidence=BOBS.evidence(bytes(32)).to_bytes()))


def test_evidence_for_other_session_keys() -> None:
    with pytest.raises(BindingMismatch):
        judged(BOBS.request(NONCE, evidence=Session().evidence(NONCE).to_bytes()))


def test_evidence_of_another_run() -> None:
    elsewhere = Attempt(manifest=agreed(), run="run-2", number=1)
    with pytest.raises(BindingMismatch):
        judged(BOBS.request(NONCE, evidence=BOBS.evidence(NONCE, attempt=elsewhere).to_bytes()))


def test_evidence_of_another_members_session() -> None:
    with pytest.raises(BindingMismatch):
        judged(BOBS.request(NONCE, evidence=BOBS.evidence(NONCE, member=CAROL).to_bytes()))


def test_evidence_that_has_expired() -> None:
    later = NOW + 40 * 86_400
    with pytest.raises(EvidenceRejected):
        judged(
            Session(vouched_at=later, manifest=agreed()).request(NONCE),
            at=later,
        )


# --- for which run -----------------------------------------------------------------------------------------------


def test_a_run_that_nobody_granted() -> None:
    other = Session(run="run-2")
    with pytest.raises(NotVouched):  # the vouch and the evidence are of run-2, the grant of run-1
        judged(other.request(NONCE, grant=granted(agreed(), run="run-1").to_bytes()))


def test_a_grant_that_too_few_signed() -> None:
    weak = consortia.signed_grant(agreed(), by=[BOB])
    with pytest.raises(NoGrant):
        judged(BOBS.request(NONCE, grant=weak.to_bytes()))


def test_a_grant_whose_run_was_changed() -> None:
    honest = granted(agreed())
    moved = replace(honest, grant=replace(honest.grant, run="run-9"))
    with pytest.raises(BadSignature):
        judged(Session(run="run-9").request(NONCE, grant=moved.to_bytes()))


def test_a_grant_that_has_ended() -> None:
    ended = consortia.signed_grant(agreed(), by=[ALICE, BOB], not_after=NOW - 1)
    with pytest.raises(NoGrant):
        judged(BOBS.request(NONCE, grant=ended.to_bytes()))


def test_more_attempts_than_granted() -> None:
    with pytest.raises(NoGrant):
        judged(Session(attempt=4).request(NONCE))


def test_another_attempt_than_the_one_vouched_for() -> None:
    with pytest.raises(NotVouched):
        judged(Session(attempt=2).request(NONCE, vouch=BOBS.vouch()))
    with pytest.raises(NotVouched):
        judged(BOBS.request(NONCE, attempt=2))


def test_an_old_epoch() -> None:
    """The consortium has gone on; a trainer, its vouch and its grant are of the epoch before."""
    later = next_epoch(agreed())
    with pytest.raises(NoGrant):
        judged(BOBS.request(NONCE), manifest=later)
    grant = granted(later).to_bytes()
    with pytest.raises(NotVouched):
        judged(BOBS.request(NONCE, grant=grant), manifest=later)
    vouch = Session(manifest=later, kem=BOBS.kem, signing=BOBS.signing).vouch()
    with pytest.raises(BindingMismatch):
        judged(BOBS.request(NONCE, grant=grant, vouch=vouch), manifest=later)


def test_another_consortium() -> None:
    other = manifest_of(consortium="f" * 32)
    with pytest.raises(NoGrant):
        judged(Session(manifest=other).request(NONCE))


def test_a_job_that_does_not_use_the_model() -> None:
    jobs = [consortia.job(), consortia.job(name="second", base_model="other")]
    manifest = manifest_of(sealed("base"), sealed("other"), jobs=jobs)
    asker = Session(manifest=manifest)
    second = consortia.signed_grant(manifest, job="second").to_bytes()
    judged(asker.request(NONCE, OTHER, grant=second), manifest=manifest)
    with refused("not-for-this-job"):
        judged(asker.request(NONCE, grant=second), manifest=manifest)


# --- on which terms ----------------------------------------------------------------------------------------------


def test_a_member_whom_the_owner_does_not_name() -> None:
    """Carol trains, but Alice's notes are for Bob's trainer only."""
    manifest = manifest_of(sealed("base"), sealed("notes", "dataset", members=[BOB]))
    judged(Session(manifest=manifest).request(NONCE, NOTES), manifest=manifest)
    with refused("not-for-this-member"):
        judged(Session(CAROL, manifest=manifest).request(NONCE, NOTES), manifest=manifest, member=CAROL)


def test_an_asset_that_is_for_servers_only() -> None:
    """Bob's trainer is named among the members, but trainers are no role that Alice releases to."""
    manifest = manifest_of(sealed("base"), sealed("other", roles=["server"]))
    with refused("not-for-this-member"):
        judged(Session(manifest=manifest).request(NONCE, OTHER), manifest=manifest)


def test_an_asset_of_another_owner_or_of_nobody() -> None:
    with refused("no-such-asset"):
        judged(BOBS.request(NONCE), owner=CAROL)
    with refused("no-such-asset"):
        judged(BOBS.request(NONCE, OTHER))


def test_an_asset_that_is_not_sealed() -> None:
    plain = consortia.manifest_data()["assets"][0] | {"owner": ALICE}
    manifest = manifest_of(plain)
    with refused("no-such-asset"):
        judged(Session(manifest=manifest).request(NONCE), manifest=manifest)


def test_the_last_day_has_passed() -> None:
    manifest = manifest_of(sealed("base", not_after="2027-01-15"))
    release = manifest.manifest.assets[0].release
    assert release is not None
    end = release.ends
    assert abs(end - NOW) < 86_400
    request = Session(manifest=manifest, vouched_at=end).request(NONCE)
    judged(request, manifest=manifest, at=end)
    with refused("ended"):
        judged(request, manifest=manifest, at=end + 1)


def test_the_times_are_used_up() -> None:
    judged(BOBS.request(NONCE), used=1)
    with refused("used-up"):
        judged(BOBS.request(NONCE), used=2)


def test_simulated_machines_get_demo_assets_only() -> None:
    with refused("not-a-demo"):
        judged(BOBS.request(NONCE), demo=False)


# --- what was sealed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"manifest": Digest.of(b"other")},
        {"run": "run-2"},
        {"attempt": 2},
        {"asset": NOTES},
        {"member": CAROL},
        {"session": Digest.of(b"other")},
        {"nonce": bytes(32)},
        {"domain": "superswarm/v1/real"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_sealed_key_opens_in_its_own_place_only(change: dict[str, object]) -> None:
    """A relay that swaps or replays grants gives nobody a key, and no trainer another's."""
    context = BOBS.context(NONCE)
    box = seal_key(BASE_KEY, BOBS.keys, context)
    with pytest.raises(CannotOpen):
        open_key(box, BOBS.kem, replace(context, **change))  # type: ignore[arg-type]
    assert open_key(box, BOBS.kem, context) == BASE_KEY


def test_a_sealed_key_opens_for_nobody_else() -> None:
    context = BOBS.context(NONCE)
    with pytest.raises(CannotOpen):
        open_key(seal_key(BASE_KEY, BOBS.keys, context), KemKey.generate(), context)


def test_something_that_is_no_key_is_not_taken_for_one() -> None:
    context = BOBS.context(NONCE)
    with pytest.raises(CannotOpen):
        open_key(BOBS.keys.kem.seal(b"short", info=context.info()), BOBS.kem, context)
    with pytest.raises(Malformed):
        seal_key(b"short", BOBS.keys, context)
    with pytest.raises(RuntimeError):
        seal_key(BASE_KEY, Session().keys, context)


MESSAGES: list[Message] = [
    KeyHello(asset=BASE.raw, keys=b"keys"),
    KeyNonce(asset=BASE.raw, nonce=NONCE),
    KeyRequest(
        asset=BASE.raw, nonce=NONCE, keys=b"k", evidence=b"e", vouch=b"v", grant=b"g", attempt=LIMITS.nonce_seconds
    ),
    KeyGrant(asset=BASE.raw, nonce=NONCE, sealed=b"s"),
    KeyRefusal(asset=BASE.raw, nonce=b"", code="NoGrant"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.KIND)
def test_messages_are_what_they_were(message: Message) -> None:
    assert type(message).parse(message.to_bytes()) == message
    for other in MESSAGES:
        if other is not message:
            with pytest.raises(Malformed):
                type(other).parse(message.to_bytes())


def test_a_refusal_tells_a_trainer_one_fixed_word() -> None:
    word = KeyRefusal(asset=BASE.raw, nonce=b"", code="NoGrant").error("base")
    assert "base" in str(word)
    assert "NoGrant" in str(word)
    said = KeyRefusal(asset=BASE.raw, nonce=b"", code="a text\nof the owner's choice").error("base")
    assert "unreadable" in str(said)
    assert MemberId("bob") == BOB
