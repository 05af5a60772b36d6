"""Judge a verified device against its vendor's reference manifests and the consortium's policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass

from superswarm.attestation.nvidia.identity import Identity
from superswarm.attestation.nvidia.revocation import Revocation
from superswarm.attestation.nvidia.rim import Component, ReferenceManifest, VerifiedManifest, verify_rim
from superswarm.attestation.nvidia.roots import NVIDIA, Roots
from superswarm.attestation.nvidia.spdm import Measurement, Report
from superswarm.attestation.nvidia.verify import VerifiedDevice
from superswarm.attestation.reasons import Fault, Reason, refuse, rejected
from superswarm.consortium.policy import NvidiaPolicy
from superswarm.errors import EvidenceRejected, Malformed

_PROOF = object()

DAY = 86_400
NVDEC0_INDEX = 36  # measurement of the first video decoder; void where the report says that it is off


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedDevice:
    """A genuine device with firmware that NVIDIA published and the policy accepts. Only `judge_device` makes one."""

    identity: Identity
    report: Report
    driver_version: str | None
    vbios_version: str
    matched: dict[Component, int]  # active measurements that equal their reference, by manifest
    revocation_known: bool  # every certificate that the vendor answers for has a current, good answer
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only judge_device() makes a JudgedDevice")


def verify_manifests(
    documents: Sequence[bytes], *, at: int, staples: Sequence[bytes] = (), roots: Roots = NVIDIA
) -> tuple[VerifiedManifest, ...]:
    """Verify the manifests that came with a device. What fails is `rim-invalid`, with its own reason behind."""
    verified = []
    for document in documents:
        try:
            verified.append(verify_rim(document, at=at, staples=staples, roots=roots))
        except EvidenceRejected as error:
            behind = Fault(Reason(error.reason), str(error))
            raise rejected(Fault(Reason.RIM_INVALID, "a reference manifest does not verify"), behind) from None
        except Malformed as error:
            raise rejected(Fault(Reason.RIM_INVALID, f"a reference manifest does not parse: {error}")) from None
    return tuple(verified)


def judge_device(
    device: VerifiedDevice, manifests: Sequence[VerifiedManifest], policy: NvidiaPolicy, *, at: int
) -> JudgedDevice:
    """Judge one device at `at` (unix seconds). Raises EvidenceRejected with every reason that was found."""
    report = device.report
    found = [verified.manifest for verified in manifests]
    refuse(
        [
            # (1) The consortium accepts such a device, this chip, and these versions.
            *_identity_faults(device.identity, report, policy),
            # (2) Each manifest is for this product and version; the ones that the policy asks for are there.
            *_manifest_faults(device.identity, report, found, policy),
            # (3) Every active measurement is there and has one of its right values.
            *_measurement_faults(report, found),
            # (4) Nothing is revoked (or there would be no VerifiedDevice), and where the policy asks, that is known.
            *_revocation_faults([device.revocation, *(v.revocation for v in manifests)], policy, at),
        ]
    )
    return JudgedDevice(
        identity=device.identity,
        report=report,
        driver_version=report.driver_version,
        vbios_version=report.vbios_version or "",
        matched={
            manifest.component: sum(not _is_void(report, index) for index in manifest.measurements)
            for manifest in found
        },
        revocation_known=all(r.complete for r in (device.revocation, *(v.revocation for v in manifests))),
        proof=_PROOF,
    )


def _identity_faults(identity: Identity, report: Report, policy: NvidiaPolicy) -> Iterator[Fault]:
    if identity.architecture not in policy.architectures:
        yield Fault(Reason.GPU_NOT_ACCEPTED, f"the policy accepts no {identity.architecture} device")
    if policy.devices != "any" and identity.serial not in policy.devices:
        yield Fault(Reason.CHIP_NOT_ACCEPTED, f"the policy does not list the chip {identity.serial}")
    if identity.architecture.is_switch != (report.driver_version is None) or report.vbios_version is None:
        yield Fault(Reason.MALFORMED, "the report lacks a version, or is not of the kind that the certificate names")
    if not _accepts(policy.vbios_versions, report.vbios_version):
        yield Fault(Reason.GPU_NOT_ACCEPTED, f"the policy does not accept VBIOS {report.vbios_version}")
    if not identity.architecture.is_switch and not _accepts(policy.driver_versions, report.driver_version):
        yield Fault(Reason.GPU_NOT_ACCEPTED, f"the policy does not accept driver {report.driver_version}")


def _accepts(versions: tuple[str, ...] | str, version: str | None) -> bool:
    return versions == "any" or version in versions


def _manifest_faults(
    identity: Identity, report: Report, manifests: Sequence[ReferenceManifest], policy: NvidiaPolicy
) -> Iterator[Fault]:
    reported = {Component.DRIVER: report.driver_version, Component.VBIOS: report.vbios_version}
    products = {identity.product, report.chip_info}
    edition = "SWITCH" if identity.architecture.is_switch else "GPU"
    for manifest in manifests:
        what = f"a {manifest.component} manifest for {manifest.product} {manifest.version}"
        if manifest.product not in products or manifest.edition != edition:
            yield Fault(Reason.RIM_MISMATCH, f"{what} is not for this device, a {identity.product}")
        elif manifest.version != reported[manifest.component]:
            yield Fault(Reason.RIM_MISMATCH, f"{what} is not for the version {reported[manifest.component]} here")
    present = [manifest.component for manifest in manifests]
    if len(set(present)) != len(present):
        yield Fault(Reason.RIM_MISMATCH, "two manifests describe the same component")
    if policy.vbios_rim == "required" and Component.VBIOS not in present:
        yield Fault(Reason.RIM_MISSING, f"no manifest for VBIOS {report.vbios_version}")
    if policy.driver_rim == "required" and not identity.architecture.is_switch and Component.DRIVER not in present:
        yield Fault(Reason.RIM_MISSING, f"no manifest for driver {report.driver_version}")


def _measurement_faults(report: Report, manifests: Sequence[ReferenceManifest]) -> Iterator[Fault]:
    claimed: set[int] = set()
    for manifest in manifests:
        if claimed & manifest.measurements.keys():
            yield Fault(Reason.RIM_MISMATCH, "two manifests describe the same measurement")
        claimed |= manifest.measurements.keys()
        wrong = [
            index
            for index, allowed in manifest.measurements.items()
            if not _is_void(report, index) and not _matches(report.measurements.get(index), allowed)
        ]
        if wrong:
            numbers = ", ".join(str(index) for index in wrong)
            message = f"measurements {numbers} are not those of {manifest.component} {manifest.version}"
            yield Fault(Reason.RIM_MISMATCH, message)


def _matches(measurement: Measurement | None, allowed: frozenset[bytes]) -> bool:
    return measurement is not None and measurement.is_digest and measurement.value in allowed


def _is_void(report: Report, index: int) -> bool:
    """NVIDIA's verifier skips the video decoder's measurement where the (signed) report says that it is off."""
    return index == NVDEC0_INDEX and report.nvdec0_enabled is False


def _revocation_faults(known: Sequence[Revocation], policy: NvidiaPolicy, at: int) -> Iterator[Fault]:
    if policy.revocation == "any":
        return
    if any(revocation.missing for revocation in known):
        yield Fault(Reason.REVOCATION_MISSING, "a certificate has no stapled answer about its revocation")
    if any(revocation.stale for revocation in known):
        yield Fault(Reason.CRL_STALE, "a stapled answer about revocation is outside its window")
    days = policy.collateral_maximum_age_days
    if any(revocation.oldest is not None and at - revocation.oldest > days * DAY for revocation in known):
        yield Fault(Reason.COLLATERAL_TOO_OLD, f"a stapled answer about revocation is older than {days} days")
