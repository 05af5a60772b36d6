"""Devices and CPU as one machine: the devices' nonce comes from the CPU's challenge, their evidence's digest sits in
the CPU's report_data.

A device's report for another challenge, another session key or another run has another nonce. A device's evidence
that was swapped after the CPU signed has another digest. What this cannot show is that the device sits in the same
machine: an attester may relay a remote GPU's genuine report (docs/attestation-nvidia.md).
"""

from __future__ import annotations

import hmac
from dataclasses import replace

from superswarm.attestation.evidence import Attester, Binding, Evidence
from superswarm.attestation.nvidia.evidence import DEVICES, DeviceEvidence
from superswarm.attestation.nvidia.judge import JudgedDevice, judge_device, verify_manifests
from superswarm.attestation.nvidia.roots import NVIDIA, Roots
from superswarm.attestation.nvidia.verify import verify_device
from superswarm.attestation.reasons import Fault, Reason, refuse, rejected
from superswarm.attestation.verify import VerifiedReport
from superswarm.consortium.policy import NvidiaPolicy
from superswarm.errors import BindingMismatch, TooLarge
from superswarm.values import Digest
from superswarm.wire import pack


def device_nonce(binding: Binding) -> bytes:
    """The 32 bytes that every attached device signs: all of the binding but the devices' own digest.

    The attester asks its devices with this nonce first, then puts the digest of what they answered into
    `Binding.devices`, and has the CPU sign `Binding.report_data()`.
    """
    packed = pack(
        f"{binding.domain}/device-nonce",
        str(binding.role),
        binding.member or "",
        binding.run,
        binding.nonce,
        binding.keys.kem.raw,
        binding.keys.signing.raw,
        binding.manifest.raw,
    )
    return Digest.of(packed).raw


def attest_machine(attester: Attester, binding: Binding) -> tuple[Evidence, Binding]:
    """Have the devices answer this binding's challenge, then the CPU sign for their answers.

    Gives the evidence, and its binding.
    """
    devices = tuple(device.to_bytes() for device in attester.ask_devices(device_nonce(binding)))
    bound = replace(binding, devices=Evidence(attester.platform, b"", devices=devices).device_digest)
    return replace(attester.attest(bound.report_data()), devices=devices), bound


def appraise_devices(
    report: VerifiedReport, binding: Binding, policy: NvidiaPolicy | None, *, roots: Roots = NVIDIA
) -> tuple[JudgedDevice, ...]:
    """Appraise all devices of a machine whose CPU's evidence is verified.

    `policy` is None where the manifest has no clause for devices: then none may be attached. Raises EvidenceRejected
    for what does not hold, Malformed or TooLarge for what does not parse.
    """
    # (1) The CPU spoke for this binding, and the binding for exactly these devices' evidence.
    evidence = report.evidence
    if not report.speaks_for(binding.report_data()) or binding.devices != evidence.device_digest:
        raise BindingMismatch("report_data does not cover the evidence of these devices")
    # (2) The manifest allows devices, and those that it asks for are there.
    if len(evidence.devices) > DEVICES:
        raise TooLarge(f"a machine has at most {DEVICES} devices")
    if policy is None:
        refuse([Fault(Reason.GPU_NOT_ACCEPTED, "the manifest accepts no devices")] if evidence.devices else [])
        return ()
    # (3) Each device is genuine, answers this challenge, and runs firmware that is published and accepted.
    nonce = device_nonce(binding)
    judged = tuple(
        appraise_device(DeviceEvidence.parse(raw), nonce, policy, at=report.at, roots=roots)
        for raw in evidence.devices
    )
    if policy.required and all(device.identity.architecture.is_switch for device in judged):
        raise rejected(Fault(Reason.GPU_REQUIRED, "the manifest asks for a GPU, and the evidence has none"))
    # (4) No device counts twice, and plaintext between GPUs passes only through switches that are appraised too.
    if len({device.identity.serial for device in judged}) != len(judged):
        raise rejected(Fault(Reason.GPU_NOT_ACCEPTED, "the same device appears twice"))
    _check_switches(judged)
    return judged


def appraise_device(
    evidence: DeviceEvidence, nonce: bytes, policy: NvidiaPolicy, *, at: int, roots: Roots = NVIDIA
) -> JudgedDevice:
    """Verify one device's evidence, compare its nonce, and judge it. Raises as `appraise_devices` does."""
    device = verify_device(evidence.report, evidence.chain, at=at, staples=evidence.staples, roots=roots)
    if not hmac.compare_digest(device.report.nonce, nonce):
        raise BindingMismatch("a device's report answers another challenge, or another machine's")
    manifests = verify_manifests(evidence.manifests, at=at, staples=evidence.staples, roots=roots)
    return judge_device(device, manifests, policy, at=at)


def _check_switches(judged: tuple[JudgedDevice, ...]) -> None:
    """In protected-PCIe mode NVLink carries plaintext: every switch behind a link must have shown evidence too."""
    shown = {device.report.own_pdi for device in judged if device.identity.architecture.is_switch}
    for device in judged:
        links = device.report.linked_switches
        if device.report.protected_pcie and not (links and links <= shown):
            message = "a GPU in protected-PCIe mode names no switches, or one without evidence"
            raise rejected(Fault(Reason.GPU_NOT_ACCEPTED, message))
