"""A whole machine: CPU and GPUs together, endorsed from its collateral folder, or refused when a GPU would leak."""

from __future__ import annotations

from pathlib import Path

import pytest

from superswarm.attestation.evidence import Binding, Evidence, SessionKeys
from superswarm.attestation.nvidia.binding import attest_machine, device_nonce
from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.consortium.manifest import Platform
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey
from superswarm.errors import NotATee
from superswarm.io.tee import HardwareTee, has_gpus
from superswarm.values import Digest, MemberId, Role
from tests.io.fake_nvml import FakeNvml
from tests.io.tsm_kernel import FakeKernel

KEYS = SessionKeys(kem=KemKey.generate().public, signing=SigningKey.generate().public)
NO_GPU = FakeNvml(gpus=0)


def binding() -> Binding:
    return Binding(
        domain="superswarm/v1/real",
        role=Role.TRAINER,
        member=MemberId("alice"),
        run="run-1",
        nonce=bytes(32),
        keys=KEYS,
        manifest=Digest.of(b"manifest"),
        devices=Evidence(Platform.SEV_SNP, b"").device_digest,
    )


def gpu(**changes: object) -> FakeNvml:
    return FakeNvml(sign=lambda nonce: b"GPU signs " + nonce, chain=b"chain", **changes)  # type: ignore[arg-type]


def test_cpu_and_gpu_answer_one_challenge(tmp_path: Path) -> None:
    (tmp_path / "ark.crl.der").write_bytes(b"crl")
    (tmp_path / "nvidia").mkdir()
    (tmp_path / "nvidia" / "driver.xml").write_bytes(b"<manifest/>")
    tee = HardwareTee(tmp_path, kernel=FakeKernel(), library=gpu())
    evidence, bound = attest_machine(tee, binding())
    # The GPU answered the nonce that the CPU's challenge gives, and its manifest travels along.
    (raw,) = evidence.devices
    device = DeviceEvidence.parse(raw)
    assert device.report == b"GPU signs " + device_nonce(binding())
    assert device.manifests == (b"<manifest/>",)
    # The CPU's report covers the GPU's evidence.
    assert bound.devices == evidence.device_digest != binding().devices
    assert evidence.quote == b"quote over " + bound.report_data()
    assert evidence.endorsement("ark.crl.der") == b"crl"


def test_a_machine_without_gpus_has_no_devices() -> None:
    tee = HardwareTee(None, kernel=FakeKernel(), library=NO_GPU)
    evidence, bound = attest_machine(tee, binding())
    assert evidence.devices == ()
    assert bound == binding()


@pytest.mark.parametrize("changes", [{"feature": 0}, {"dev_tools": 1}, {"support": False}])
def test_a_gpu_that_would_see_plaintext_makes_it_no_tee(changes: dict[str, object]) -> None:
    """Even where no policy asks for a GPU: training would use it."""
    with pytest.raises(NotATee, match="plaintext"):
        HardwareTee(None, kernel=FakeKernel(), library=gpu(**changes))


def test_no_driver_is_no_gpu() -> None:
    assert not has_gpus(FakeNvml(init=9))
    assert not has_gpus(NO_GPU)
    assert has_gpus(gpu())


def test_collateral_is_read_anew_each_time(tmp_path: Path) -> None:
    tee = HardwareTee(tmp_path, kernel=FakeKernel(), library=NO_GPU)
    assert tee.attest(bytes(64)).endorsements == ()
    (tmp_path / "leaf.der").write_bytes(b"leaf")
    assert tee.attest(bytes(64)).endorsements == (("leaf.der", b"leaf"),)
