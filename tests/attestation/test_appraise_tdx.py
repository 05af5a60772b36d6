"""Under a real manifest a TDX quote is appraised by its workload's policy. Minted, in Intel's place."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from consortia import DATA, TDX_POLICY, approved, member
from minting import CODE, NOW, machine
from test_appraise import KEYS, OTHER_CODE, binding, for_aggregator

from superswarm.attestation import simulated_pki as pki
from superswarm.attestation import verify as door
from superswarm.attestation.appraise import (
    AggregatorKey,
    TrainerKey,
    appraise_aggregator,
    appraise_trainer,
    trust_roots,
)
from superswarm.attestation.evidence import Binding, Evidence
from superswarm.attestation.reasons import Reason
from superswarm.attestation.tdx.verify import verify_tdx
from superswarm.attestation.verify import verify
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.manifest import Platform
from superswarm.errors import BindingMismatch, EvidenceRejected, Malformed, UnapprovedMeasurement
from superswarm.values import Measurement, MemberId

M = machine("intel")


@pytest.fixture(autouse=True)
def _minter_in_intels_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "verify_tdx", functools.partial(verify_tdx, roots=M.trust.development))


def real(**changes: Any) -> ApprovedManifest:
    zero = "00" * 48
    image = {"mrtd": CODE.raw.hex(), "rtmr0": zero, "rtmr1": zero, "rtmr2": zero, "rtmr3": zero}
    policy = TDX_POLICY | {"images": [image], "minimum_evaluation_number": 1} | changes
    workload = {"platforms": ["tdx"], "measurements": [str(CODE)], "policy": {"tdx": policy}}
    return approved(
        *(member(name, DATA, simulated=False) for name in ("alice", "bob", "carol")),
        attestation="real",
        workloads={"trainer": workload, "aggregator": workload},
    )


MANIFEST = real()


def shown(bound: Binding, code: Measurement = CODE, **body: Any) -> Evidence:
    simulated = M.evidence(report_data=bound.report_data(), measurement=code, **body)
    return Evidence(Platform.TDX, simulated.quote, simulated.endorsements)


def trainer(evidence: Evidence, bound: Binding, manifest: ApprovedManifest = MANIFEST) -> TrainerKey:
    return appraise_trainer(verify(evidence, trust_roots(manifest), NOW), manifest, bound)


def aggregator(evidence: Evidence, bound: Binding, manifest: ApprovedManifest = MANIFEST) -> AggregatorKey:
    return appraise_aggregator(verify(evidence, trust_roots(manifest), NOW), manifest, bound)


def test_approved_code_on_an_accepted_platform_is_trusted() -> None:
    bound = binding(MANIFEST)
    assert trainer(shown(bound), bound).keys == KEYS
    bound = for_aggregator(MANIFEST)
    assert aggregator(shown(bound), bound).keys == KEYS


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"modules": ["11" * 48]}, Reason.MODULE_NOT_ACCEPTED),
        ({"platforms": ["11" * 16]}, Reason.CHIP_NOT_ACCEPTED),
        ({"minimum_evaluation_number": 2}, Reason.EVALUATION_NUMBER),
        ({"images": TDX_POLICY["images"]}, Reason.MEASUREMENT),
    ],
    ids=["module", "platform", "evaluation number", "image"],
)
def test_what_the_policy_does_not_accept_is_refused(policy: dict[str, Any], reason: Reason) -> None:
    manifest = real(**policy)
    bound = binding(manifest)
    with pytest.raises(EvidenceRejected) as caught:
        trainer(shown(bound), bound, manifest)
    assert caught.value.reason == reason
    bound = for_aggregator(manifest)
    with pytest.raises(EvidenceRejected) as caught:
        aggregator(shown(bound), bound, manifest)
    assert caught.value.reason == reason


def test_a_tcb_that_is_out_of_date_needs_the_policys_consent() -> None:
    stale = M.endorse(tcb_info=pki.tcb_info(at=NOW, days=9, status="OutOfDate"))
    for statuses in ((), ("UpToDate", "OutOfDate")):
        manifest = real(**({"tcb_statuses": statuses} if statuses else {}))
        bound = binding(manifest)
        evidence = shown(bound, endorsements=stale)
        if statuses:
            trainer(evidence, bound, manifest)
            continue
        with pytest.raises(EvidenceRejected) as caught:
            trainer(evidence, bound, manifest)
        assert caught.value.reason == Reason.TCB_STATUS


def test_unapproved_code_and_another_binding_are_refused() -> None:
    bound = binding(MANIFEST)
    with pytest.raises(UnapprovedMeasurement):
        trainer(shown(bound, OTHER_CODE), bound)
    with pytest.raises(BindingMismatch):
        trainer(shown(bound), binding(MANIFEST, member=MemberId("bob")))


def test_the_log_beside_a_quote_must_explain_it() -> None:
    bound = binding(MANIFEST)
    evidence = shown(bound)
    stapled = tuple(sorted((*evidence.endorsements, ("ccel", b"no log"))))
    with pytest.raises(Malformed, match="event log"):
        trainer(Evidence(Platform.TDX, evidence.quote, stapled), bound)


def test_devices_need_a_clause_of_their_own() -> None:
    evidence = Evidence(Platform.TDX, b"", (), (b"gpu",))
    bound = binding(MANIFEST, devices=evidence.device_digest)
    attested = shown(bound)
    with pytest.raises(EvidenceRejected) as caught:
        trainer(Evidence(Platform.TDX, attested.quote, attested.endorsements, (b"gpu",)), bound)
    assert caught.value.reason == Reason.GPU_NOT_ACCEPTED


def test_simulated_evidence_stays_simulated() -> None:
    bound = binding(MANIFEST)
    evidence = M.evidence(report_data=bound.report_data())
    with pytest.raises(EvidenceRejected) as caught:
        trainer(evidence, bound)
    assert caught.value.reason == Reason.ROOT_UNTRUSTED
