"""Trainers judge each other: an aggregator that passes on invented, old or foreign evidence is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from superswarm.attestation.evidence import Evidence, SessionKeys, combine_nonces
from superswarm.attestation.handshake import Attempt
from superswarm.attestation.peers import Dossier, judge_peer
from superswarm.consortium.vouch import sign_vouch
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey
from superswarm.errors import BindingMismatch, Malformed, NotVouched, UnapprovedMeasurement, Untrusted
from superswarm.values import Measurement, MemberId, Role
from tests import consortia
from tests.simulator import CODE, NOW, OTHER_CODE, SimulatedConsortium, tee

NONCES = (b"a" * 32, b"n" * 32)


@pytest.fixture(scope="module")
def attempt() -> Attempt:
    return Attempt(manifest=SimulatedConsortium().manifest, run="run-1", number=1)


def dossier(attempt: Attempt, member: str, *, code: Measurement = CODE, on: str = "", signer: str = "") -> Dossier:
    """What an honest handshake with this member leaves; `on` and `signer` name others' TEEs and keys."""
    keys = SessionKeys(kem=KemKey.generate().public, signing=SigningKey.generate().public)
    name, combined = MemberId(member), combine_nonces(list(NONCES))
    attester = tee(on or member, code)
    blank = Evidence(attester.platform, b"")
    binding = attempt.binding(Role.TRAINER, name, keys, combined, blank)
    vouch = attempt.vouch(Role.TRAINER, name, name, keys.digest, combined, NOW)
    signed = sign_vouch(consortia.signing_key(signer or member), vouch, attempt.manifest.domain)
    return Dossier(
        member=member,
        keys=keys.to_bytes(),
        nonces=NONCES,
        evidence=attester.attest(binding.report_data()).to_bytes(),
        vouch=signed,
    )


def test_an_honest_peer_is_believed(attempt: Attempt) -> None:
    shown = dossier(attempt, "bob")
    key = judge_peer(attempt, Dossier.parse(shown.to_bytes()), NOW)
    assert (key.member, key.keys.to_bytes(), key.manifest) == ("bob", shown.keys, attempt.manifest.digest)


def test_a_peer_that_the_aggregator_made_up_is_refused(attempt: Attempt) -> None:
    """Approved code on a TEE of the operator's own, in bob's name: bob's node never vouched."""
    with pytest.raises(Untrusted):
        judge_peer(attempt, dossier(attempt, "bob", on="operator", signer="alice"), NOW)


def test_keys_that_were_not_attested_are_refused(attempt: Attempt) -> None:
    shown, other = dossier(attempt, "bob"), dossier(attempt, "bob")
    with pytest.raises(NotVouched):
        judge_peer(attempt, replace(shown, keys=other.keys), NOW)
    with pytest.raises(BindingMismatch):
        judge_peer(attempt, replace(shown, evidence=other.evidence), NOW)


def test_another_members_dossier_is_refused(attempt: Attempt) -> None:
    with pytest.raises(NotVouched):
        judge_peer(attempt, replace(dossier(attempt, "bob"), member="carol"), NOW)


def test_other_code_is_refused(attempt: Attempt) -> None:
    with pytest.raises(UnapprovedMeasurement):
        judge_peer(attempt, dossier(attempt, "bob", code=OTHER_CODE), NOW)


def test_a_dossier_of_another_attempt_or_run_is_refused(attempt: Attempt) -> None:
    shown = dossier(attempt, "bob")
    for other in (replace(attempt, number=2), replace(attempt, run="run-2")):
        with pytest.raises(NotVouched):
            judge_peer(other, shown, NOW)


def test_other_challenges_are_refused(attempt: Attempt) -> None:
    with pytest.raises(NotVouched):
        judge_peer(attempt, replace(dossier(attempt, "bob"), nonces=(NONCES[0], b"x" * 32)), NOW)


def test_a_name_that_is_none_is_refused(attempt: Attempt) -> None:
    with pytest.raises(Malformed):
        judge_peer(attempt, replace(dossier(attempt, "bob"), member="../bob"), NOW)
