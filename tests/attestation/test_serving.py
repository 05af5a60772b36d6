"""A server gets a result's key only where contributors judged it and its own member vouched for it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.attestation.appraise import ServerKey, TrainerKey, appraise_server, appraise_trainer, trust_roots
from superswarm.attestation.evidence import Attester, Evidence, SessionKeys, combine_nonces
from superswarm.attestation.handshake import Attempt
from superswarm.attestation.serving import (
    NO_ATTEMPT,
    ServerRequest,
    VouchedServer,
    judge_server,
    server_request,
    vouch_for_server,
)
from superswarm.attestation.verify import verify
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.vouch import sign_vouch
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey
from superswarm.errors import (
    BadSignature,
    BindingMismatch,
    Error,
    EvidenceRejected,
    Malformed,
    NotVouched,
    OtherManifest,
    OtherResult,
    UnapprovedMeasurement,
)
from superswarm.updates.publish import publish
from superswarm.updates.release import HeldShare, hold_share, server_recipient
from superswarm.values import MemberId, Role
from tests import consortia
from tests.simulator import CODE, NOW, authority, tee

BOB, CAROL = MemberId("bob"), MemberId("carol")
SERVER_CODE = consortia.measurement("server code")
SERVED = CODE.parse(SERVER_CODE)
KEYS = SessionKeys(kem=KemKey.generate().public, signing=SigningKey.generate().public)
MINE, THEIRS = b"m" * 32, b"t" * 32
PAIRING = b"p" * 32


def consortium(**changes: Any) -> ApprovedManifest:
    """Alice, Bob and Carol bring data; results are served by Carol's TEE, which two of them must approve."""
    entries = [
        consortia.member(name, consortia.DATA) | {"development_authority": str(authority(name).spki_digest)}
        for name in ("alice", "bob", "carol")
    ]
    workload = {"platforms": ["simulated"], "measurements": [str(CODE)]}
    server = {"platforms": ["simulated"], "measurements": [SERVER_CODE]}
    fields = {
        "workloads": {"trainer": workload, "aggregator": workload, "server": server},
        "result": {"serving": ["carol"], "approvals": 2},
    }
    return consortia.approved(*entries, **(fields | changes))


MANIFEST = consortium()


def asked(on: Attester | None = None, manifest: ApprovedManifest = MANIFEST, **changes: Any) -> ServerRequest:
    arguments: dict[str, Any] = {
        "run": "run-1", "member": CAROL, "keys": KEYS, "nonces": [MINE, THEIRS], "pairing_key": PAIRING,
    }  # fmt: skip
    return server_request(on or tee("carol", SERVED), manifest, **(arguments | changes))


def vouched(request: ServerRequest, manifest: ApprovedManifest = MANIFEST, **changes: Any) -> ServerRequest:
    arguments: dict[str, Any] = {
        "run": "run-1", "member": CAROL, "signing": consortia.signing_key("carol"), "pairing_key": PAIRING,
        "mine": THEIRS, "at": NOW,
    }  # fmt: skip
    return vouch_for_server(request, manifest, **(arguments | changes))


def forged_vouch(request: ServerRequest, by: str, **changes: Any) -> ServerRequest:
    """A vouch that nobody judged anything for: what a member can sign if it wants to."""
    attempt = Attempt(manifest=MANIFEST, run=request.run, number=NO_ATTEMPT)
    nonce = combine_nonces(list(request.nonces))
    keys = SessionKeys.parse(request.keys)
    vouch = attempt.vouch(Role.SERVER, MemberId(by), MemberId(by), keys.digest, nonce, NOW)
    return replace(request, vouch=sign_vouch(consortia.signing_key(by), replace(vouch, **changes), MANIFEST.domain))


def judged(request: ServerRequest, manifest: ApprovedManifest = MANIFEST, **changes: Any) -> VouchedServer:
    return judge_server(request, manifest, **({"run": "run-1", "mine": MINE, "at": NOW} | changes))


def test_an_attested_and_vouched_server_is_trusted() -> None:
    key = judged(vouched(asked())).key
    assert (key.keys, key.member, key.run, key.manifest) == (KEYS, CAROL, "run-1", MANIFEST.digest)


def test_only_judgement_makes_the_proof() -> None:
    key = judged(vouched(asked())).key
    for make in (
        lambda: VouchedServer(key=key, proof=None),
        lambda: ServerKey(keys=KEYS, member=CAROL, manifest=MANIFEST.digest, run="run-1", proof=None),
    ):
        with pytest.raises(TypeError):
            make()


def test_other_code_serves_nothing() -> None:
    """Also the trainer's code, which is approved for something else."""
    with pytest.raises(UnapprovedMeasurement):
        vouched(asked(tee("carol", CODE)))
    with pytest.raises(UnapprovedMeasurement):
        judged(forged_vouch(asked(tee("carol", CODE)), "carol"))


def test_another_members_machine_is_refused() -> None:
    with pytest.raises(EvidenceRejected) as caught:
        judged(forged_vouch(asked(tee("bob", SERVED)), "carol"))
    assert caught.value.reason == "root-untrusted"


def test_a_member_that_may_not_serve_is_refused() -> None:
    request = asked(tee("bob", SERVED), member=BOB)
    with pytest.raises(BindingMismatch, match="serves no result"):
        judged(forged_vouch(request, "bob"))


def test_where_nobody_serves_there_is_no_server() -> None:
    manifest = consortium(
        workloads=consortia.manifest_data()["workloads"], result={"recipients": ["carol"], "approvals": 2}
    )
    with pytest.raises(BindingMismatch, match="serves no result"):
        judged(asked(manifest=manifest), manifest)


def test_another_run_is_refused() -> None:
    with pytest.raises(NotVouched, match="asks for the result of the run 'run-2'"):
        judged(vouched(asked(run="run-2"), run="run-2"))
    renamed = replace(vouched(asked(run="run-2"), run="run-2"), run="run-1")
    with pytest.raises(BindingMismatch):
        judged(renamed)


def test_another_manifest_is_refused() -> None:
    other = consortium(name="Another")
    request = vouched(asked(manifest=other), other)
    with pytest.raises(OtherManifest):
        judged(request)
    with pytest.raises(BindingMismatch):
        judged(replace(request, manifest=MANIFEST.digest.raw))


def test_a_vouch_of_another_member_is_refused() -> None:
    with pytest.raises(NotVouched, match="carol did not vouch"):
        judged(forged_vouch(asked(), "bob"))
    with pytest.raises(NotVouched, match="vouches for the server of carol"):
        judged(forged_vouch(asked(), "bob", subject=CAROL))
    with pytest.raises(BadSignature):
        judged(forged_vouch(asked(), "bob", subject=CAROL, voucher=CAROL))


@pytest.mark.parametrize(
    "lie",
    [{"role": Role.TRAINER}, {"attempt": 1}, {"run": "run-2"}, {"nonce": bytes(32)}, {"session": MANIFEST.digest}],
    ids=["role", "attempt", "run", "nonce", "session"],
)
def test_a_vouch_for_something_else_is_refused(lie: dict[str, Any]) -> None:
    """Among them: the vouch that Carol's node gave to Carol's trainer, or to this server an hour ago."""
    with pytest.raises(NotVouched, match="carol did not vouch for this server"):
        judged(forged_vouch(asked(), "carol", **lie))


def test_a_request_without_a_vouch_is_refused() -> None:
    with pytest.raises(Malformed):
        judged(asked())


def test_a_stale_challenge_is_refused() -> None:
    """Evidence that was shown to somebody, or at some time, else."""
    old = vouched(asked(nonces=[b"o" * 32, THEIRS]))
    with pytest.raises(NotVouched, match="does not cover this side's challenge"):
        judged(old)
    with pytest.raises(BindingMismatch):
        judged(replace(old, nonces=(MINE, THEIRS)))


def test_swapped_keys_are_refused() -> None:
    other = SessionKeys(kem=KemKey.generate().public, signing=KEYS.signing)
    with pytest.raises(BindingMismatch):
        judged(replace(vouched(asked()), keys=other.to_bytes()))


def test_expired_endorsements_are_refused() -> None:
    with pytest.raises(EvidenceRejected):
        judged(vouched(asked()), at=NOW + 400 * 86_400)


def test_a_member_vouches_for_its_own_server_only() -> None:
    """Anybody can boot the approved code: who has no pairing key gets no vouch."""
    with pytest.raises(NotVouched, match="does not hold its pairing key"):
        vouched(asked(pairing_key=b"x" * 32))
    with pytest.raises(NotVouched, match="bob vouches for its own only"):
        vouched(asked(), member=BOB, signing=consortia.signing_key("bob"))
    with pytest.raises(NotVouched, match="does not cover this side's challenge"):
        vouched(asked(), mine=b"x" * 32)


def test_a_servers_evidence_is_no_trainers_and_the_other_way_round() -> None:
    request = asked()
    evidence = Evidence.parse(request.evidence)
    attempt = Attempt(manifest=MANIFEST, run="run-1", number=NO_ATTEMPT)
    nonce = combine_nonces([MINE, THEIRS])
    report = verify(evidence, trust_roots(MANIFEST), NOW)
    binding = attempt.binding(Role.SERVER, CAROL, KEYS, nonce, evidence)
    assert isinstance(appraise_server(report, MANIFEST, binding), ServerKey)
    for changed in (binding, replace(binding, role=Role.TRAINER)):
        with pytest.raises(BindingMismatch):
            appraise_trainer(report, MANIFEST, changed)
    trains = replace(binding, role=Role.TRAINER)
    report = verify(tee("carol").attest(trains.report_data()), trust_roots(MANIFEST), NOW)
    assert isinstance(appraise_trainer(report, MANIFEST, trains), TrainerKey)
    for changed in (trains, binding, replace(binding, member=None)):
        with pytest.raises(BindingMismatch):
            appraise_server(report, MANIFEST, changed)


def held(manifest: ApprovedManifest, run: str) -> HeldShare:
    """Alice's share of a result of this run."""
    signer = consortia.signing_key("aggregator session")
    job = manifest.manifest.jobs[0]
    raw = publish({"w": np.ones(2, np.float32)}, manifest=manifest, job=job, run=run, rounds=1, signer=signer)
    return hold_share(
        io.BytesIO(raw), manifest, MemberId("alice"), consortia.kem_key("alice"), expected_signer=signer.public
    )


def test_a_server_gets_a_share_of_its_runs_result_under_its_manifest_only() -> None:
    server, alice = judged(vouched(asked())), consortia.signing_key("alice")
    to = server_recipient(MANIFEST, server)
    approval = held(MANIFEST, "run-1").approve(to, alice, entry=MANIFEST.digest, at=NOW).approval
    assert (approval.recipient, approval.server) == ("carol", str(KEYS.digest))
    with pytest.raises(OtherResult, match="asks for the result of run-1, not of run-2"):
        held(MANIFEST, "run-2").approve(to, alice, entry=MANIFEST.digest, at=NOW)
    other = consortium(name="Another")
    with pytest.raises(OtherManifest):
        server_recipient(other, server)
    with pytest.raises(OtherManifest):
        held(other, "run-1").approve(to, alice, entry=MANIFEST.digest, at=NOW)


def test_a_request_travels_as_it_is() -> None:
    request = vouched(asked())
    assert ServerRequest.parse(request.to_bytes()) == request
    for wrong in (
        replace(request, member="Not A Member"),
        replace(request, evidence=b""),
        replace(request, keys=b""),
    ):
        with pytest.raises(Malformed):
            judged(wrong)


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_our_errors(raw: bytes) -> None:
    with pytest.raises(Error):
        ServerRequest.parse(raw)
