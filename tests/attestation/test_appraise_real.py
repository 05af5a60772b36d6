"""A real manifest: keys of real hardware are trusted only under the workload's policy and for this binding.

AMD's roots are replaced by a development root for these tests, at the one place where a test can reach them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest

from superswarm.attestation import verify as verify_module
from superswarm.attestation.appraise import appraise_trainer, trust_roots
from superswarm.attestation.evidence import Binding, Evidence, SessionKeys
from superswarm.attestation.reasons import Reason
from superswarm.attestation.snp.chain import verify_snp
from superswarm.attestation.verify import TrustRoots, verify
from superswarm.attestation.vtpm.chain import qualifying_data, verify_vtpm
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.manifest import Platform
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey
from superswarm.errors import BindingMismatch, EvidenceRejected, UnapprovedMeasurement
from superswarm.values import MemberId, Role
from tests.attestation import test_vtpm as vtpm
from tests.attestation.snp_mint import AT, CHIP, Authority, report, sign
from tests.consortia import DATA, approved, member

SNP_POLICY: dict[str, Any] = {
    "chips": [CHIP.hex()],
    "host_data": ["00" * 32],
    "id_keys": "any",
    "author_keys": "any",
    "crl_maximum_age_days": 60,
    "genoa": {
        "minimum_tcb": {"bootloader": 10, "tee": 0, "snp": 23, "microcode": 84},
        "minimum_firmware": "1.55.40",
        "mitigations": 1,
    },
}
VTPM_POLICY = {"sev_snp": SNP_POLICY, "pcrs": [{"index": 4, "allowed": [vtpm.PCRS[4].hex()]}]}
KEYS = SessionKeys(kem=KemKey.generate().public, signing=SigningKey.generate().public)
CODE = "sha384:" + "11" * 48
AUTHORITY = Authority()
KEY, LEAF = AUTHORITY.endorse()
ENDORSEMENTS = tuple(sorted(AUTHORITY.endorsements(LEAF, AUTHORITY.crl()).items()))


@pytest.fixture(autouse=True)
def _development_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "verify_snp", functools.partial(verify_snp, roots=AUTHORITY.roots))
    monkeypatch.setattr(verify_module, "verify_vtpm", functools.partial(verify_vtpm, roots=vtpm.AUTHORITY.roots))


@functools.cache
def manifest(platform: str = "sev-snp") -> ApprovedManifest:
    policy = {"sev_snp": SNP_POLICY} if platform == "sev-snp" else {"azure_vtpm": VTPM_POLICY}
    workload = {"platforms": [platform], "measurements": [CODE], "policy": policy}
    return approved(
        *(member(name, DATA, simulated=False) for name in ("alice", "bob", "carol")),
        attestation="real",
        workloads={"trainer": workload, "aggregator": workload},
    )


def binding(under: ApprovedManifest, **changes: Any) -> Binding:
    blank = Evidence(Platform.SEV_SNP, b"")
    fields: dict[str, Any] = {
        "domain": under.domain,
        "role": Role.TRAINER,
        "member": MemberId("alice"),
        "run": "run-1",
        "nonce": bytes(32),
        "keys": KEYS,
        "manifest": under.digest,
        "devices": blank.device_digest,
    }
    return Binding(**{**fields, **changes})


def snp_evidence(shown: Binding, **changes: object) -> Evidence:
    quote = sign(report(report_data=shown.report_data(), **changes), KEY)
    return Evidence(Platform.SEV_SNP, quote, ENDORSEMENTS)


def vtpm_evidence(shown: Binding) -> Evidence:
    mint = vtpm.Mint(message=vtpm.quote(nonce=qualifying_data(shown.report_data())))
    certificates = vtpm.AUTHORITY.endorsements(vtpm.LEAF, vtpm.AUTHORITY.crl())
    return Evidence(Platform.AZURE_VTPM, mint.json, tuple(sorted(certificates.items())))


KINDS: list[tuple[str, Callable[[Binding], Evidence]]] = [("sev-snp", snp_evidence), ("azure-vtpm", vtpm_evidence)]


@pytest.mark.parametrize(("platform", "make"), KINDS)
def test_keys_of_real_hardware_are_trusted_under_its_policy(
    platform: str, make: Callable[[Binding], Evidence]
) -> None:
    under = manifest(platform)
    shown = binding(under)
    assert trust_roots(under) == TrustRoots()
    report = verify(make(shown), trust_roots(under), AT)
    assert report.authority is None
    key = appraise_trainer(report, under, shown)
    assert (key.keys, key.member, key.manifest) == (KEYS, "alice", under.digest)


@pytest.mark.parametrize(("platform", "make"), KINDS)
@pytest.mark.parametrize(
    "changes",
    [{"nonce": b"\x01" * 32}, {"run": "run-2"}, {"member": MemberId("bob")}],
    ids=["nonce", "run", "member"],
)
def test_evidence_for_another_binding_is_refused(
    platform: str, make: Callable[[Binding], Evidence], changes: dict[str, Any]
) -> None:
    under = manifest(platform)
    report = verify(make(binding(under, **changes)), trust_roots(under), AT)
    with pytest.raises(BindingMismatch):
        appraise_trainer(report, under, binding(under))


def test_other_code_is_refused() -> None:
    under = manifest()
    shown = binding(under)
    report = verify(snp_evidence(shown, measurement=b"\x22" * 48), trust_roots(under), AT)
    with pytest.raises(UnapprovedMeasurement):
        appraise_trainer(report, under, shown)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"vmpl": 1}, Reason.VMPL_NOT_ACCEPTED), ({"mitigations": (0, 0)}, Reason.MITIGATION_MISSING)],
)
def test_the_policy_of_the_manifest_decides(changes: dict[str, object], reason: Reason) -> None:
    under = manifest()
    shown = binding(under)
    report = verify(snp_evidence(shown, **changes), trust_roots(under), AT)
    with pytest.raises(EvidenceRejected) as caught:
        appraise_trainer(report, under, shown)
    assert set(caught.value.reasons) == {reason}


def test_a_platform_that_the_manifest_does_not_allow_is_refused() -> None:
    under = manifest("azure-vtpm")
    shown = binding(under)
    report = verify(snp_evidence(shown), trust_roots(under), AT)
    with pytest.raises(EvidenceRejected) as caught:
        appraise_trainer(report, under, shown)
    assert caught.value.reason == Reason.PLATFORM_NOT_ACCEPTED


def test_a_device_without_a_clause_is_refused() -> None:
    under = manifest()
    with_device = Evidence(Platform.SEV_SNP, b"", devices=(b"a GPU's evidence",))
    shown = binding(under, devices=with_device.device_digest)
    evidence = dataclasses.replace(snp_evidence(shown), devices=with_device.devices)
    with pytest.raises(EvidenceRejected) as caught:
        appraise_trainer(verify(evidence, trust_roots(under), AT), under, shown)
    assert caught.value.reason == Reason.GPU_NOT_ACCEPTED


def test_without_the_development_root_nothing_of_this_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests replace is what protects: AMD's pinned keys."""
    monkeypatch.setattr(verify_module, "verify_snp", verify_snp)
    under = manifest()
    with pytest.raises(EvidenceRejected) as caught:
        verify(snp_evidence(binding(under)), trust_roots(under), AT)
    assert caught.value.reason == Reason.ROOT_UNTRUSTED
