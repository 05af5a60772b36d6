"""Check evidence by hand, outside of any handshake: the same verifiers and judges, told claim by claim.

Nothing here makes a key. Who asked for the evidence is known only where `report_data` is given; devices are asked
for their own nonce, so that an old report of theirs passes. The programs use `verify` and `appraise`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from superswarm.attestation.appraise import require_workload
from superswarm.attestation.ear import Appraisal
from superswarm.attestation.evidence import Evidence
from superswarm.attestation.judge import judge_report
from superswarm.attestation.nvidia.binding import appraise_device
from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.attestation.nvidia.spdm import parse_report
from superswarm.attestation.reasons import Fault, Reason, faults_of
from superswarm.attestation.verify import TrustRoots, VerifiedReport, verify
from superswarm.consortium.manifest import Platform, Workload
from superswarm.consortium.policy import NvidiaPolicy
from superswarm.errors import BindingMismatch, EvidenceRejected


def check(evidence: Evidence, workload: Workload, at: int, report_data: bytes | None = None) -> list[Appraisal]:
    """Check a machine's evidence at a time (unix seconds), part by part. Raises Malformed.

    Simulated evidence is refused: only a manifest says which development authorities count.
    """
    return [_cpu(evidence, workload, at, report_data), *_devices(evidence, workload, at)]


def check_device(name: str, evidence: DeviceEvidence, policy: NvidiaPolicy, at: int) -> Appraisal:
    """Check one GPU's or switch's evidence, its nonce taken as given. Raises Malformed."""
    nonce = parse_report(evidence.report).nonce
    found = _faults(lambda: appraise_device(evidence, nonce, policy, at=at))
    return Appraisal(name, tuple(found))


def _cpu(evidence: Evidence, workload: Workload, at: int, report_data: bytes | None) -> Appraisal:
    if evidence.platform is Platform.SIMULATED:
        simulated = Fault(Reason.PLATFORM_NOT_ACCEPTED, "the evidence is simulated: it protects nothing")
        return Appraisal("cpu", (simulated,), judged=False)
    try:
        report = verify(evidence, TrustRoots(), at)
    except EvidenceRejected as error:
        return Appraisal("cpu", faults_of(error), judged=False)
    checks: list[Callable[[], object]] = [
        lambda: require_workload(report, workload),
        lambda: _require_policy(report, workload),
        lambda: _require_binding(report, report_data),
    ]
    return Appraisal("cpu", tuple(fault for step in checks for fault in _faults(step)))


def _devices(evidence: Evidence, workload: Workload, at: int) -> Iterator[Appraisal]:
    policy = None if workload.policy is None else workload.policy.nvidia
    if policy is not None and policy.required and not evidence.devices:
        yield Appraisal("gpu", (Fault(Reason.GPU_REQUIRED, "the policy asks for a GPU, and there is none"),))
    for number, raw in enumerate(evidence.devices):
        if policy is None:
            yield Appraisal(f"gpu{number}", (Fault(Reason.GPU_NOT_ACCEPTED, "the policy accepts no devices"),))
        else:
            yield check_device(f"gpu{number}", DeviceEvidence.parse(raw), policy, at)


def _require_policy(report: VerifiedReport, workload: Workload) -> None:
    if workload.policy is not None:
        judge_report(report, workload.policy)


def _require_binding(report: VerifiedReport, report_data: bytes | None) -> None:
    if report_data is not None and not report.speaks_for(report_data):
        raise BindingMismatch("the evidence was made for other report_data")


def _faults(step: Callable[[], object]) -> tuple[Fault, ...]:
    try:
        step()
    except EvidenceRejected as error:
        return faults_of(error)
    return ()
