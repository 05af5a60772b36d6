"""Appraise verified evidence against an approved manifest and a binding: the last step before a key is trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import InitVar, dataclass

from superswarm.attestation.evidence import Binding, SessionKeys
from superswarm.attestation.judge import judge_report
from superswarm.attestation.nvidia.binding import appraise_devices
from superswarm.attestation.reasons import Fault, Reason, refuse, rejected
from superswarm.attestation.tdx.verify import VerifiedTdx
from superswarm.attestation.verify import TrustRoots, VerifiedReport
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.manifest import Platform, Workload
from superswarm.errors import BindingMismatch, UnapprovedMeasurement
from superswarm.values import Digest, Measurement, MemberId, Role

_PROOF = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerKey:
    """Session keys held by approved trainer code. Only `appraise_trainer` makes one.

    Which member they speak for is claimed until that member's vouch is checked.
    """

    keys: SessionKeys
    member: MemberId
    manifest: Digest
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        _only(proof, "appraise_trainer")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKey:
    """Session keys held by approved serving code. Only `appraise_server` makes one.

    Which member they speak for is claimed until that member's vouch is checked.
    """

    keys: SessionKeys
    member: MemberId
    manifest: Digest
    run: str  # whose result it serves
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        _only(proof, "appraise_server")


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatorKey:
    """Session keys held by approved aggregator code. Only `appraise_aggregator` makes one."""

    keys: SessionKeys
    manifest: Digest
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        _only(proof, "appraise_aggregator")


def trust_roots(manifest: ApprovedManifest) -> TrustRoots:
    """The development authorities that a simulated manifest names; none under a real one."""
    named = [member.development_authority for member in manifest.manifest.members]
    named.append(manifest.manifest.coordinator.development_authority)
    return TrustRoots(frozenset(Digest.parse(text) for text in named if text is not None and manifest.simulated))


def appraise_trainer(report: VerifiedReport, manifest: ApprovedManifest, binding: Binding) -> TrainerKey:
    """Trust a trainer's session keys. Raises EvidenceRejected, BindingMismatch or UnapprovedMeasurement."""
    # (1) Chains, signatures and time hold, or this would not be a VerifiedReport.
    # (2) The binding is a trainer's, of a member that trains.
    member = binding.member
    if binding.role is not Role.TRAINER or member is None:
        raise BindingMismatch("the binding is not a trainer's")
    if member not in manifest.manifest.trainers:
        raise BindingMismatch("the binding names somebody who contributes no data under this manifest")
    # (3) to (6) The report is for this binding, of approved code, on the member's machine, as the policy asks.
    _require_members_machine(report, manifest, binding, member, manifest.manifest.workloads.trainer)
    return TrainerKey(keys=binding.keys, member=member, manifest=manifest.digest, proof=_PROOF)


def appraise_server(report: VerifiedReport, manifest: ApprovedManifest, binding: Binding) -> ServerKey:
    """Trust a server's session keys. Raises EvidenceRejected, BindingMismatch or UnapprovedMeasurement."""
    # (1) Chains, signatures and time hold, or this would not be a VerifiedReport.
    # (2) The binding is a server's, of a member that serves results.
    member, workload = binding.member, manifest.manifest.workloads.server
    if binding.role is not Role.SERVER or member is None:
        raise BindingMismatch("the binding is not a server's")
    if workload is None or member not in manifest.manifest.result.serving:
        raise BindingMismatch("the binding names somebody who serves no result under this manifest")
    # (3) to (6) The report is for this binding, of approved code, on the member's machine, as the policy asks.
    _require_members_machine(report, manifest, binding, member, workload)
    return ServerKey(keys=binding.keys, member=member, manifest=manifest.digest, run=binding.run, proof=_PROOF)


def appraise_aggregator(report: VerifiedReport, manifest: ApprovedManifest, binding: Binding) -> AggregatorKey:
    """Trust the aggregator's session keys. Raises EvidenceRejected, BindingMismatch or UnapprovedMeasurement."""
    # (1) Chains, signatures and time hold, or this would not be a VerifiedReport.
    # (2) The binding is the aggregator's, which speaks for no single member.
    if binding.role is not Role.AGGREGATOR or binding.member is not None:
        raise BindingMismatch("the binding is not the aggregator's")
    # (3) The report speaks for this binding and this manifest.
    _require_binding(report, manifest, binding)
    # (4) The consortium approved this code, on this platform, as the aggregator.
    require_workload(report, manifest.manifest.workloads.aggregator)
    # (5) Evidence is as real as the manifest; simulated evidence comes from the coordinator's own authority.
    refuse(_kind_faults(report, manifest, manifest.manifest.coordinator.development_authority))
    # (6) Real hardware, and the devices attached to it, are what the workload's policy asks for.
    _require_policy(report, manifest.manifest.workloads.aggregator, binding)
    return AggregatorKey(keys=binding.keys, manifest=manifest.digest, proof=_PROOF)


def _require_members_machine(
    report: VerifiedReport, manifest: ApprovedManifest, binding: Binding, member: MemberId, workload: Workload
) -> None:
    """The part of an appraisal that every TEE of a member's goes through."""
    # (3) The report speaks for this binding and this manifest.
    _require_binding(report, manifest, binding)
    # (4) The consortium approved this code, on this platform, for this workload.
    require_workload(report, workload)
    # (5) Evidence is as real as the manifest; simulated evidence comes from this member's own authority.
    entry = manifest.manifest.member(member)
    if entry is None:
        raise BindingMismatch("the binding names somebody who is not a member")
    refuse(_kind_faults(report, manifest, entry.development_authority))
    # (6) Real hardware, and the devices attached to it, are what the workload's policy asks for.
    _require_policy(report, workload, binding)


def _require_binding(report: VerifiedReport, manifest: ApprovedManifest, binding: Binding) -> None:
    if binding.manifest != manifest.digest or binding.domain != manifest.domain:
        raise BindingMismatch("the binding names another manifest")
    if binding.devices != report.devices:
        raise BindingMismatch("the binding names other devices than the evidence shows")
    if not report.speaks_for(binding.report_data()):
        raise BindingMismatch("report_data covers another key, nonce, role, member, run or manifest")


def require_workload(report: VerifiedReport, workload: Workload) -> None:
    """Refuse a platform or a measurement that the workload does not list."""
    if report.platform not in workload.platforms:
        raise rejected(Fault(Reason.PLATFORM_NOT_ACCEPTED, f"the manifest does not allow {report.platform} here"))
    if report.measurement not in [Measurement.parse(text) for text in workload.measurements]:
        raise UnapprovedMeasurement(f"the manifest does not allow {report.measurement} here")


def _kind_faults(report: VerifiedReport, manifest: ApprovedManifest, authority: str | None) -> Iterator[Fault]:
    """Simulated evidence needs the party's own authority and a current TCB; real evidence is judged by policy."""
    if (report.platform is Platform.SIMULATED) != manifest.simulated:
        kinds = (report.platform, manifest.manifest.attestation)
        yield Fault(
            Reason.PLATFORM_NOT_ACCEPTED, f"{kinds[0]} evidence under a manifest whose attestation is {kinds[1]}"
        )
    if not manifest.simulated or not isinstance(report.claims, VerifiedTdx):
        return
    if authority is None or report.authority != Digest.parse(authority):
        yield Fault(Reason.ROOT_UNTRUSTED, "simulated evidence comes from another party's development authority")
    dcap = report.claims.dcap
    if dcap.status != "UpToDate" or dcap.advisories:
        yield Fault(Reason.TCB_STATUS, f"the simulated platform's TCB is {dcap.status}, not UpToDate")


def _require_policy(report: VerifiedReport, workload: Workload, binding: Binding) -> None:
    """Judge real evidence. Simulated evidence has no policy; a manifest is never both."""
    if report.platform is Platform.SIMULATED:
        return
    if workload.policy is None:
        raise rejected(Fault(Reason.PLATFORM_NOT_ACCEPTED, f"the manifest has no policy for {report.platform}"))
    judge_report(report, workload.policy)
    appraise_devices(report, binding, workload.policy.nvidia)


def _only(proof: object, maker: str) -> None:
    if proof is not _PROOF:
        raise TypeError(f"only {maker}() makes this key")
