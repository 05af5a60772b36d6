"""A key is trusted only where evidence, binding and manifest agree in everything."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from failures import with_qe, with_tcb
from minting import CODE, NOW, Machine, machine

from superswarm.attestation.appraise import (
    AggregatorKey,
    TrainerKey,
    appraise_aggregator,
    appraise_trainer,
    trust_roots,
)
from superswarm.attestation.evidence import Binding, Evidence, SessionKeys
from superswarm.attestation.reasons import Reason
from superswarm.attestation.verify import TrustRoots, verify
from superswarm.consortium.approval import ApprovedManifest
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey
from superswarm.errors import BindingMismatch, EvidenceRejected, UnapprovedMeasurement
from superswarm.values import Digest, Measurement, MemberId, Role
from tests.consortia import DATA, TDX_POLICY, approved, member

OTHER_CODE = Measurement(hashlib.sha384(b"other code").digest())
KEYS = SessionKeys(kem=KemKey.generate().public, signing=SigningKey.generate().public)
NONCE = bytes(range(32))
NO_DEVICES = Evidence.parse(machine("alice").evidence().to_bytes()).device_digest


def consortium(**changes: Any) -> ApprovedManifest:
    """Alice and Bob bring data, Carol nothing; each has an authority of its own, and so has the operator."""
    members = [
        member("alice", DATA) | {"development_authority": str(machine("alice").authority.spki_digest)},
        member("bob", DATA) | {"development_authority": str(machine("bob").authority.spki_digest)},
        member("carol", "hosting") | {"development_authority": str(machine("carol").authority.spki_digest)},
    ]
    workload = {"platforms": ["simulated"], "measurements": [str(CODE)]}
    operator = str(machine("operator").authority.spki_digest)
    return approved(
        *members,
        coordinator={"name": "Operator", "development_authority": operator},
        workloads={"trainer": workload, "aggregator": workload} | changes.pop("workloads", {}),
        **changes,
    )


MANIFEST = consortium()


def binding(under: ApprovedManifest = MANIFEST, **changes: Any) -> Binding:
    fields: dict[str, Any] = {
        "domain": under.domain,
        "role": Role.TRAINER,
        "member": MemberId("alice"),
        "run": "run-1",
        "nonce": NONCE,
        "keys": KEYS,
        "manifest": under.digest,
        "devices": NO_DEVICES,
    }
    return Binding(**(fields | changes))


def for_aggregator(under: ApprovedManifest = MANIFEST, **changes: Any) -> Binding:
    return binding(under, **({"role": Role.AGGREGATOR, "member": None} | changes))


def trainer(
    shown: Binding,
    asked: Binding | None = None,
    *,
    on: Machine = machine("alice"),  # noqa: B008
    manifest: ApprovedManifest = MANIFEST,
    code: Measurement = CODE,
) -> TrainerKey:
    """Appraise as a trainer: evidence made for `shown`, by a verifier that asked for `asked`."""
    report = verify(on.attest(shown.report_data(), code), trust_roots(manifest), NOW)
    return appraise_trainer(report, manifest, asked or shown)


def aggregator(
    shown: Binding,
    asked: Binding | None = None,
    *,
    on: Machine = machine("operator"),  # noqa: B008
    manifest: ApprovedManifest = MANIFEST,
    code: Measurement = CODE,
) -> AggregatorKey:
    report = verify(on.attest(shown.report_data(), code), trust_roots(manifest), NOW)
    return appraise_aggregator(report, manifest, asked or shown)


def test_a_trainer_and_the_aggregator_are_trusted() -> None:
    key = trainer(binding())
    assert (key.keys, key.member, key.manifest) == (KEYS, "alice", MANIFEST.digest)
    assert trainer(binding(member=MemberId("bob")), on=machine("bob")).member == "bob"
    assert aggregator(for_aggregator()).keys == KEYS


def test_only_appraisal_makes_keys() -> None:
    with pytest.raises(TypeError):
        TrainerKey(keys=KEYS, member=MemberId("alice"), manifest=MANIFEST.digest, proof=None)
    with pytest.raises(TypeError):
        AggregatorKey(keys=KEYS, manifest=MANIFEST.digest, proof=None)
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(trainer(binding()), member=MemberId("bob"))


OTHER_KEYS = SessionKeys(kem=KemKey.generate().public, signing=KEYS.signing)
OTHER_SIGNER = SessionKeys(kem=KEYS.kem, signing=SigningKey.generate().public)
LIES: dict[str, dict[str, Any]] = {
    "nonce": {"nonce": bytes(32)},
    "run": {"run": "run-2"},
    "role": {"role": Role.AGGREGATOR},
    "node": {"role": Role.NODE},
    "member": {"member": MemberId("bob")},
    "no member": {"member": None},
    "KEM key": {"keys": OTHER_KEYS},
    "signing key": {"keys": OTHER_SIGNER},
    "manifest": {"manifest": Digest.of(b"another manifest")},
    "domain": {"domain": "superswarm/v1/real"},
    "devices": {"devices": Digest.of(b"a device")},
}


@pytest.mark.parametrize("lie", LIES)
def test_evidence_for_another_binding_is_refused(lie: str) -> None:
    """The evidence speaks for something else than what the verifier asked."""
    with pytest.raises(BindingMismatch):
        trainer(binding(**LIES[lie]), binding())


@pytest.mark.parametrize("lie", sorted(LIES.keys() - {"role", "no member"}))
def test_evidence_for_another_binding_is_no_aggregators(lie: str) -> None:
    with pytest.raises(BindingMismatch):
        aggregator(for_aggregator(**LIES[lie]), for_aggregator())


def test_a_trainers_evidence_is_no_aggregators() -> None:
    with pytest.raises(BindingMismatch):
        aggregator(binding(), for_aggregator(), on=machine("alice"))
    with pytest.raises(BindingMismatch):
        trainer(for_aggregator(), binding(), on=machine("operator"))


@pytest.mark.parametrize("lie", ["role", "node", "no member", "manifest", "domain", "devices"])
def test_a_binding_that_cannot_be_a_trainers_is_refused(lie: str) -> None:
    """Also where the evidence agrees with it."""
    with pytest.raises(BindingMismatch):
        trainer(binding(**LIES[lie]))


@pytest.mark.parametrize(
    "changes",
    [{"role": Role.TRAINER}, {"role": Role.NODE}, {"member": MemberId("alice")}, {"manifest": Digest.of(b"x")}],
    ids=["trainer", "node", "member", "manifest"],
)
def test_a_binding_that_cannot_be_the_aggregators_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BindingMismatch):
        aggregator(for_aggregator(**changes))


@pytest.mark.parametrize("name", ["carol", "mallory"])
def test_who_contributes_no_data_has_no_trainer(name: str) -> None:
    with pytest.raises(BindingMismatch):
        trainer(binding(member=MemberId(name)), on=machine("carol"))


def test_unapproved_code_is_refused() -> None:
    with pytest.raises(UnapprovedMeasurement):
        trainer(binding(), code=OTHER_CODE)
    with pytest.raises(UnapprovedMeasurement):
        aggregator(for_aggregator(), code=OTHER_CODE)


def test_each_workload_has_code_of_its_own() -> None:
    workloads = {"aggregator": {"platforms": ["simulated"], "measurements": [str(OTHER_CODE)]}}
    manifest = consortium(workloads=workloads)
    trainer(binding(manifest), manifest=manifest)
    shown = for_aggregator(manifest)
    aggregator(shown, manifest=manifest, code=OTHER_CODE)
    with pytest.raises(UnapprovedMeasurement):
        aggregator(shown, manifest=manifest, code=CODE)
    with pytest.raises(UnapprovedMeasurement):
        trainer(binding(manifest), manifest=manifest, code=OTHER_CODE)


@pytest.mark.parametrize("name", ["bob", "carol", "operator"])
def test_another_partys_authority_does_not_speak_for_a_trainer(name: str) -> None:
    """All of them are in the manifest, and so verify; none may mint a trainer for Alice."""
    with pytest.raises(EvidenceRejected) as caught:
        trainer(binding(), on=machine(name))
    assert caught.value.reason == Reason.ROOT_UNTRUSTED


@pytest.mark.parametrize("name", ["alice", "bob", "carol"])
def test_a_members_authority_does_not_speak_for_the_aggregator(name: str) -> None:
    with pytest.raises(EvidenceRejected) as caught:
        aggregator(for_aggregator(), on=machine(name))
    assert caught.value.reason == Reason.ROOT_UNTRUSTED


def test_an_authority_that_no_manifest_names_is_refused() -> None:
    with pytest.raises(EvidenceRejected) as caught:
        trainer(binding(), on=machine("mallory"))
    assert caught.value.reason == Reason.ROOT_UNTRUSTED


@pytest.mark.parametrize(
    "mint",
    [
        lambda: with_tcb(status="OutOfDate"),
        lambda: with_tcb(status="SWHardeningNeeded"),
        lambda: with_tcb(advisories=["INTEL-SA-00001"]),
        lambda: with_qe(status="OutOfDate"),
    ],
    ids=["platform OutOfDate", "hardening needed", "advisory", "QE OutOfDate"],
)
def test_a_tcb_that_is_not_current_is_refused(mint: Callable[[], Evidence]) -> None:
    shown = binding()
    quote = machine("alice").evidence(report_data=shown.report_data()).quote
    report = verify(dataclasses.replace(mint(), quote=quote), trust_roots(MANIFEST), NOW)
    with pytest.raises(EvidenceRejected) as caught:
        appraise_trainer(report, MANIFEST, shown)
    assert caught.value.reason == Reason.TCB_STATUS


def real_manifest() -> ApprovedManifest:
    workload = {"platforms": ["tdx"], "measurements": [str(CODE)], "policy": {"tdx": TDX_POLICY}}
    return approved(
        *(member(name, DATA, simulated=False) for name in ("alice", "bob", "carol")),
        attestation="real",
        workloads={"trainer": workload, "aggregator": workload},
    )


def test_simulated_evidence_is_refused_under_a_real_manifest() -> None:
    manifest = real_manifest()
    assert trust_roots(manifest) == TrustRoots()
    shown = binding(manifest)
    evidence = machine("alice").attest(shown.report_data())
    with pytest.raises(EvidenceRejected) as caught:
        verify(evidence, trust_roots(manifest), NOW)
    assert caught.value.reason == Reason.ROOT_UNTRUSTED
    # Also where somebody verified it under other roots.
    with pytest.raises(EvidenceRejected) as caught:
        appraise_trainer(machine("alice").verify(evidence), manifest, shown)
    assert caught.value.reason == Reason.PLATFORM_NOT_ACCEPTED
    shown = for_aggregator(manifest)
    report = machine("alice").verify(machine("alice").attest(shown.report_data()))
    with pytest.raises(EvidenceRejected) as caught:
        appraise_aggregator(report, manifest, shown)
    assert caught.value.reason == Reason.PLATFORM_NOT_ACCEPTED


def test_trust_roots_are_those_that_the_manifest_names() -> None:
    names = ("alice", "bob", "carol", "operator")
    assert trust_roots(MANIFEST).development == {machine(name).authority.spki_digest for name in names}
