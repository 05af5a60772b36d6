"""Devices against reference manifests, policy, and the machine that they say they sit in."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Callable

import pytest
from mint_nvidia import (
    AT,
    DRIVER,
    NOON,
    VBIOS,
    Device,
    build_report,
    digest_of,
    gpu_opaque,
    issue,
    pem,
    switch_opaque,
)
from nvidia_fixtures import NONCE, gpu, manifests, policy, refused, vendor

from superswarm.attestation.evidence import Binding, Evidence, SessionKeys
from superswarm.attestation.nvidia.binding import appraise_device, appraise_devices, attest_machine, device_nonce
from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.attestation.nvidia.judge import JudgedDevice
from superswarm.attestation.nvidia.names import manifest_names
from superswarm.attestation.nvidia.rim import Component
from superswarm.attestation.nvidia.spdm import OpaqueType, parse_report
from superswarm.consortium.manifest import Platform
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey
from superswarm.errors import BindingMismatch, Malformed, TooLarge
from superswarm.values import Digest, MemberId, Role

SWITCH_MANIFEST = {"product": "LS10", "edition": "SWITCH"}


def judged(
    device: Device | None = None,
    documents: tuple[bytes, ...] | None = None,
    staples: tuple[bytes, ...] = (),
    **changes: object,
) -> JudgedDevice:
    device = device or gpu()
    evidence = DeviceEvidence(
        report=device.attest(NONCE),
        chain=pem(device.chain),
        manifests=manifests() if documents is None else documents,
        staples=staples,
    )
    return appraise_device(evidence, NONCE, policy(**changes), at=AT, roots=vendor().roots)


def changed(index: int, value: bytes | None) -> Device:
    """The minted GPU with another value for one measurement (SPDM index), or without it."""
    measurements = dict(gpu().measurements)
    if value is None:
        del measurements[index]
    else:
        measurements[index] = value
    return dataclasses.replace(gpu(), measurements=measurements)


def with_opaque(**fields: bytes) -> Device:
    opaque = {**gpu().opaque, **{int(OpaqueType[name]): value for name, value in fields.items()}}
    return dataclasses.replace(gpu(), opaque=opaque)


# --- reference manifests -------------------------------------------------------------------------------------------


def test_a_gpu_that_matches_both_manifests_is_accepted() -> None:
    device = judged()
    assert device.matched == {Component.DRIVER: 21, Component.VBIOS: 13}
    assert (device.driver_version, device.vbios_version) == (DRIVER, VBIOS)
    assert not device.revocation_known


def test_a_gpu_with_two_manifests_is_judged_in_under_50_milliseconds() -> None:
    """Processor time: tests run beside others. The first call also loads signxml's schemas."""

    def measured() -> float:
        begun = time.process_time()
        judged()
        return time.process_time() - begun

    assert min(measured() for _ in range(5)) < 0.05


def test_a_missing_manifest_is_refused_unless_its_lack_is_accepted() -> None:
    driver, vbios = manifests()
    assert refused(lambda: judged(documents=())) == ("rim-missing", "rim-missing")
    assert refused(lambda: judged(documents=(driver,))) == ("rim-missing",)
    assert refused(lambda: judged(documents=(vbios,))) == ("rim-missing",)
    assert judged(documents=(vbios,), driver_rim="any").matched == {Component.VBIOS: 13}
    assert judged(documents=(), driver_rim="any", vbios_rim="any").matched == {}


@pytest.mark.parametrize("index", [1, 13, 21, 41])
def test_a_wrong_or_missing_measurement_is_refused(index: int) -> None:
    """The first and last measurement of each manifest: none is skipped."""
    for value in (bytes(48), digest_of(index)[:47], digest_of(index) + b"\0", digest_of(index + 1), b"", None):
        assert refused(lambda v=value: judged(changed(index, v))) == ("rim-mismatch",)


def test_a_measurement_that_no_manifest_names_is_free() -> None:
    assert judged(changed(60, bytes(48))).matched


def test_every_alternative_is_right() -> None:
    documents = (vendor().manifest(DRIVER, [20], alternatives=4), manifests()[1])
    assert judged(documents=documents).matched
    for value in (digest_of(21), bytes([1]) * 48, bytes([3]) * 48):
        assert judged(changed(21, value), documents).matched
    assert refused(lambda: judged(changed(21, bytes([4]) * 48), documents)) == ("rim-mismatch",)


def test_raw_bits_are_no_digest() -> None:
    """A raw measurement of 48 bytes must not pass for the digest that a manifest names."""
    raw = build_report(gpu().key, NONCE, gpu().opaque, gpu().measurements, kind=0x81)
    evidence = DeviceEvidence(report=raw, chain=pem(gpu().chain), manifests=manifests())
    assert set(refused(lambda: appraise_device(evidence, NONCE, policy(), at=AT, roots=vendor().roots))) == {
        "rim-mismatch"
    }


def test_the_video_decoders_measurement_is_void_only_where_the_report_says_it_is_off() -> None:
    documents = (vendor().manifest(DRIVER, [20, 35]), manifests()[1])
    wrong = changed(36, bytes(48))
    assert refused(lambda: judged(wrong, documents)) == ("rim-mismatch",)
    off = dataclasses.replace(wrong, opaque=gpu_opaque(nvdec0=0x55))
    assert judged(off, documents).matched == {Component.DRIVER: 1, Component.VBIOS: 13}
    silent = {kind: value for kind, value in gpu_opaque().items() if kind != OpaqueType.NVDEC0_STATUS}
    assert refused(lambda: judged(dataclasses.replace(wrong, opaque=silent), documents)) == ("rim-mismatch",)
    with pytest.raises(Malformed):
        judged(dataclasses.replace(wrong, opaque=gpu_opaque(nvdec0=0x00)), documents)


def test_manifests_for_other_versions_products_or_kinds_are_refused() -> None:
    driver, vbios = manifests()
    for other in (
        vendor().manifest("580.65.05", range(20, 41)),
        vendor().manifest(DRIVER, range(20, 41), product="GB100"),
        vendor().manifest(DRIVER, range(20, 41), edition="SWITCH"),
    ):
        assert refused(lambda document=other: judged(documents=(document, vbios))) == ("rim-mismatch",)
    older = vendor().manifest("96.00.74.00.1F", range(13))
    assert refused(lambda: judged(documents=(driver, older))) == ("rim-mismatch",)


def test_two_manifests_must_not_claim_the_same() -> None:
    driver, vbios = manifests()
    assert "rim-mismatch" in refused(lambda: judged(documents=(driver, vbios, vbios)))
    more = vendor().manifest(VBIOS, [50])
    assert refused(lambda: judged(documents=(driver, vbios, more))) == ("rim-mismatch",)
    overlapping = vendor().manifest(VBIOS, range(21))
    assert refused(lambda: judged(documents=(driver, overlapping))) == ("rim-mismatch",)


def test_a_manifest_that_does_not_verify_says_why() -> None:
    driver, vbios = manifests()
    altered = driver.replace(DRIVER.encode(), b"580.65.07", 1)
    assert refused(lambda: judged(documents=(altered, vbios))) == ("rim-invalid", "signature-invalid")
    assert refused(lambda: judged(documents=(b"<x/>", vbios))) == ("rim-invalid",)
    old = issue("old signer", vendor().reference_ca, ca=False, not_after=NOON - dt.timedelta(days=1))
    expired = vendor().manifest(DRIVER, range(20, 41), signer=old)
    assert refused(lambda: judged(documents=(expired, vbios))) == ("rim-invalid", "certificate-expired")


def test_blackwell_names_its_manifests_by_chip() -> None:
    """A later chip may carry its family's certificate; its report then says which manifests are meant."""
    device = vendor().device("GB100", opaque={**gpu_opaque(), int(OpaqueType.CHIP_INFO): b"GB102\0"})
    documents = tuple(
        vendor().manifest(version, indices, product="GB102")
        for version, indices in ((DRIVER, range(20, 41)), (VBIOS, range(13)))
    )
    assert judged(device, documents).matched
    assert refused(lambda: judged(vendor().device("GB100"), documents)) == ("rim-mismatch", "rim-mismatch")


def test_the_names_under_which_nvidia_publishes_manifests() -> None:
    assert manifest_names(parse_report(gpu().attest(NONCE))) == (
        "NV_GPU_DRIVER_GH100_580.65.06",
        "NV_GPU_VBIOS_G520_0200_885_9600740020",
    )
    blackwell = vendor().device("GB100", opaque=gpu_opaque(vbios="97.00.88.00.0F"))
    assert manifest_names(parse_report(blackwell.attest(NONCE)))[0] == "NV_GPU_CC_DRIVER_GB100_580.65.06"
    switch = vendor().device("LS_10")
    assert manifest_names(parse_report(switch.attest(NONCE))) == ("NV_SWITCH_BIOS_5612_0002_890_9600740020",)


# --- policy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architectures": ("blackwell",)}, "gpu-not-accepted"),
        ({"devices": ("0" * 16,)}, "chip-not-accepted"),
        ({"driver_versions": ("580.65.05",)}, "gpu-not-accepted"),
        ({"vbios_versions": ("96.00.74.00.1F",)}, "gpu-not-accepted"),
        ({"revocation": "required"}, "revocation-missing"),
    ],
)
def test_what_the_policy_does_not_accept_is_refused(changes: dict[str, object], reason: str) -> None:
    assert refused(lambda: judged(**changes)) == (reason,)


def test_what_the_policy_lists_is_accepted() -> None:
    lists = {"devices": ("48b02d0000000001",), "driver_versions": (DRIVER,), "vbios_versions": (VBIOS,)}
    assert judged(architectures=("hopper",), **lists).matched


def test_all_reasons_are_reported() -> None:
    found = refused(lambda: judged(changed(1, bytes(48)), devices=("0" * 16,), revocation="required"))
    assert found == ("chip-not-accepted", "rim-mismatch", "revocation-missing")


def answers(device: Device, this_update: dt.datetime = NOON - dt.timedelta(days=1)) -> tuple[bytes, ...]:
    """A CRL of every authority in the device's and in the manifests' chains."""
    v, days = vendor(), {"this_update": this_update, "next_update": NOON + dt.timedelta(days=1)}
    authorities = (v.device_ca, v.identity, v.device_root, v.reference_ca, v.reference_root)
    return tuple(v.crl(authority, **days) for authority in authorities)  # type: ignore[arg-type]


def test_required_revocation_needs_a_fresh_answer_about_every_certificate() -> None:
    full = answers(gpu())
    device = judged(staples=full, revocation="required")
    assert device.revocation_known
    for missing in range(len(full)):
        staples = full[:missing] + full[missing + 1 :]
        assert set(refused(lambda s=staples: judged(staples=s, revocation="required"))) == {"revocation-missing"}
    old = answers(gpu(), NOON - dt.timedelta(days=8))
    assert refused(lambda: judged(staples=old, revocation="required")) == ("collateral-too-old",)
    stale = (vendor().crl(vendor().device_ca, next_update=NOON - dt.timedelta(hours=1)), *full[1:])
    assert refused(lambda: judged(staples=stale, revocation="required")) == ("crl-stale",)


def test_a_switch_needs_one_manifest() -> None:
    switch = vendor().device("LS_10")
    assert refused(lambda: judged(switch, ())) == ("rim-missing",)
    document = vendor().manifest(VBIOS, range(31), **SWITCH_MANIFEST)  # type: ignore[arg-type]
    assert judged(switch, (document,)).matched == {Component.VBIOS: 31}
    assert "rim-mismatch" in refused(lambda: judged(switch, (manifests()[1],)))


def test_a_report_of_another_kind_than_the_certificates_is_refused() -> None:
    posing = vendor().device("LS_10", opaque=gpu_opaque())
    document = vendor().manifest(VBIOS, range(31), **SWITCH_MANIFEST)  # type: ignore[arg-type]
    assert "malformed" in refused(lambda: judged(posing, (document,)))
    silent = vendor().device(opaque=switch_opaque())
    assert "malformed" in refused(lambda: judged(silent, driver_rim="any"))


# --- CPU and devices as one machine --------------------------------------------------------------------------------


def binding(nonce: bytes = bytes(32), **changes: object) -> Binding:
    keys = SessionKeys(kem=KEM.public, signing=SIGNING.public)
    fixed = {
        "domain": "superswarm/v1/real",
        "role": Role.TRAINER,
        "member": MemberId("alpha"),
        "run": "run-1",
        "nonce": nonce,
        "keys": keys,
        "manifest": Digest.of(b"manifest"),
        "devices": Digest.of(b""),
    }
    return Binding(**{**fixed, **changes})  # type: ignore[arg-type]


KEM, SIGNING = KemKey.generate(), SigningKey.generate()


class Cpu:
    """A CPU that signs whatever report_data it is given: its quote is taken as verified here."""

    platform = Platform.SEV_SNP

    def __init__(self, ask_devices: Callable[[bytes], tuple[DeviceEvidence, ...]]) -> None:
        self.ask_devices = ask_devices

    def attest(self, report_data: bytes) -> Evidence:
        return Evidence(self.platform, report_data)


def machine(bound: Binding, *devices: Device) -> tuple[Evidence, Binding]:
    """A machine's evidence for a binding, its devices' included."""
    switch = vendor().manifest(VBIOS, range(31), **SWITCH_MANIFEST)  # type: ignore[arg-type]

    def ask(nonce: bytes) -> tuple[DeviceEvidence, ...]:
        switches = ["LS_10" in device.chain[0].subject.rfc4514_string() for device in devices]
        return tuple(
            vendor().evidence(device, nonce, manifests=(switch,) if is_switch else manifests())
            for device, is_switch in zip(devices, switches, strict=True)
        )

    return attest_machine(Cpu(ask), bound)


@dataclasses.dataclass(frozen=True)
class VerifiedCpu:
    """What `verify` makes of the CPU's part. Its own checks are tested with its platforms."""

    evidence: Evidence
    report_data: bytes
    at: int = AT

    def speaks_for(self, report_data: bytes) -> bool:
        return report_data == self.report_data


def appraised(evidence: Evidence, bound: Binding, report_data: bytes | None = None, **changes: object) -> int:
    report = VerifiedCpu(evidence, bound.report_data() if report_data is None else report_data)
    return len(appraise_devices(report, bound, policy(**changes), roots=vendor().roots))


def test_a_machine_with_its_gpus_is_accepted() -> None:
    assert appraised(*machine(binding(), gpu(), vendor().device(serial="48B02D0000000002"))) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": bytes(31) + b"\1"},
        {"run": "run-2"},
        {"member": MemberId("beta")},
        {"role": Role.AGGREGATOR, "member": None},
        {"manifest": Digest.of(b"other")},
        {"domain": "superswarm/v1/simulated"},
        {"keys": SessionKeys(kem=KemKey.generate().public, signing=SIGNING.public)},
        {"keys": SessionKeys(kem=KEM.public, signing=SigningKey.generate().public)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_gpus_evidence_for_another_challenge_is_refused(change: dict[str, object]) -> None:
    """The attacker has a genuine GPU answer of another session, and a CPU that signs the digest of it."""
    other, _ = machine(binding(**change), gpu())  # type: ignore[arg-type]
    replayed = dataclasses.replace(binding(), devices=other.device_digest)
    with pytest.raises(BindingMismatch, match="another challenge"):
        appraised(other, replayed)


def test_a_gpus_evidence_under_another_machines_report_is_refused() -> None:
    """The CPU signed for its own GPU; the attacker shows another GPU's evidence, though it answers this challenge."""
    own, bound = machine(binding(), gpu())
    other, other_bound = machine(binding(), vendor().device(serial="48B02D0000000002"))
    with pytest.raises(BindingMismatch):
        appraised(other, bound)
    with pytest.raises(BindingMismatch):
        appraised(other, other_bound, report_data=bound.report_data())
    for fewer in (dataclasses.replace(own, devices=()), dataclasses.replace(own, devices=own.devices * 2)):
        with pytest.raises(BindingMismatch):
            appraised(fewer, bound)


def test_the_devices_nonce_covers_all_of_the_binding_but_the_devices() -> None:
    assert device_nonce(binding()) == device_nonce(binding(devices=Digest.of(b"other")))
    evidence, bound = machine(binding(), gpu())
    answered = parse_report(DeviceEvidence.parse(evidence.devices[0]).report).nonce
    assert answered == device_nonce(bound)
    assert evidence.quote == bound.report_data()


def test_one_gpu_does_not_count_twice() -> None:
    assert refused(lambda: appraised(*machine(binding(), gpu(), gpu()))) == ("gpu-not-accepted",)


def test_a_manifest_without_a_clause_for_devices_allows_none() -> None:
    evidence, bound = machine(binding(), gpu())
    report = VerifiedCpu(evidence, bound.report_data())
    assert refused(lambda: appraise_devices(report, bound, None)) == ("gpu-not-accepted",)
    bare, bound = machine(binding())
    assert appraise_devices(VerifiedCpu(bare, bound.report_data()), bound, None) == ()


def test_a_required_gpu_must_be_there() -> None:
    assert refused(lambda: appraised(*machine(binding()))) == ("gpu-required",)
    assert refused(lambda: appraised(*machine(binding(), vendor().device("LS_10")))) == ("gpu-required",)
    assert appraised(*machine(binding()), required=False) == 0


def test_protected_pcie_needs_the_switches_evidence() -> None:
    """A GPU lists its switches' identifiers in reversed byte order."""
    links = b"switch-1"[::-1] + bytes(8) + b"switch-2"[::-1]
    pcie = with_opaque(PROTECTED_PCIE_STATUS=b"\xaa", PDI=links, FEATURE_FLAG=b"\2")
    first = vendor().device("LS_10", "48B02D0000000011", opaque=switch_opaque(pdi=b"switch-1"))
    second = vendor().device("LS_10", "48B02D0000000012", opaque=switch_opaque(pdi=b"switch-2"))
    assert refused(lambda: appraised(*machine(binding(), pcie, first))) == ("gpu-not-accepted",)
    assert appraised(*machine(binding(), pcie, first, second)) == 3
    for unlinked in (with_opaque(PROTECTED_PCIE_STATUS=b"\xaa"), with_opaque(FEATURE_FLAG=b"\2")):
        assert refused(lambda gpu=unlinked: appraised(*machine(binding(), gpu, first))) == ("gpu-not-accepted",)


def test_device_evidence_survives_its_bytes_and_refuses_others() -> None:
    evidence = vendor().evidence(gpu(), NONCE, manifests=manifests(), staples=(b"a", b"b"))
    raw = evidence.to_bytes()
    assert DeviceEvidence.parse(raw) == evidence
    for other in (b"", raw[:-1], raw + b"\0", b"x" * 100):
        with pytest.raises(Malformed):
            DeviceEvidence.parse(other)
    many = dataclasses.replace(evidence, manifests=(b"",) * 5)
    with pytest.raises(TooLarge):
        DeviceEvidence.parse(many.to_bytes())
    with pytest.raises(Malformed):
        DeviceEvidence.from_files({"report.bin": b""})


def test_too_many_devices_are_refused_unread() -> None:
    bare = Evidence(Platform.SEV_SNP, b"quote", devices=(b"",) * 65)
    bound = dataclasses.replace(binding(), devices=bare.device_digest)
    with pytest.raises(TooLarge):
        appraised(bare, bound)
