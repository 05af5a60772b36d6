"""What NVML says of a machine is told as it is, and only GPUs in a confidential mode give evidence."""

from __future__ import annotations

import ctypes

import pytest
from fake_nvml import DRIVER_NOT_LOADED, FakeNvml

from superswarm.errors import Environment, NotATee
from superswarm.io import nvml
from superswarm.io.nvml import collect, inspect

NONCE = bytes(range(32))


def test_a_gpu_in_cc_mode_is_described() -> None:
    found = inspect(FakeNvml(gpus=2))
    assert [gpu.uuid for gpu in found.gpus] == ["GPU-0", "GPU-1"]
    assert (found.enabled, found.protected_pcie, found.dev_tools, found.ready) == (True, False, False, False)
    assert (found.cpu_capability, found.environment, found.driver_version) == (
        "AMD SEV-SNP",
        "production",
        "580.65.06",
    )
    assert found.verdict == "in CC mode"


@pytest.mark.parametrize(
    ("library", "verdict"),
    [
        (FakeNvml(feature=0), "not in CC mode: it is supported, and turned off"),
        (FakeNvml(feature=0, capable=0), "not in CC mode: this GPU, driver or machine does not support it"),
        (FakeNvml(support=False), "not in CC mode: this GPU, driver or machine does not support it"),
        (
            FakeNvml(dev_tools=1),
            "in CC DevTools mode: the GPU's memory can be read, so its evidence is worth nothing",
        ),
    ],
    ids=["off", "not capable", "not supported", "DevTools"],
)
def test_a_gpu_that_protects_nothing_says_so_and_gives_no_evidence(library: FakeNvml, verdict: str) -> None:
    assert inspect(library).verdict == verdict
    with pytest.raises(NotATee, match="NVIDIA H100") as caught:
        collect(NONCE, library)
    assert verdict in str(caught.value)
    assert "nvmlDeviceGetConfComputeGpuAttestationReport" not in library.calls
    assert library.open_sessions == 0


def test_evidence_carries_the_nonce_that_was_asked() -> None:
    library = FakeNvml(gpus=2, sign=lambda nonce: b"report of " + nonce, chain=b"chain")
    found = collect(NONCE, library)
    assert [evidence.report for evidence in found] == [b"report of " + NONCE] * 2
    assert found[0].chain == b"chain"
    assert library.open_sessions == 0
    assert collect(NONCE, FakeNvml(feature=0, multi_gpu=1, sign=lambda _: b"r", chain=b"c"))
    with pytest.raises(ValueError, match="32 bytes"):
        collect(b"short", library)


def test_no_driver_no_gpu_and_no_answer_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(NotATee, match="no NVIDIA driver on this machine"):
        inspect()
    with pytest.raises(NotATee, match="no driver answers"):
        inspect(FakeNvml(init=DRIVER_NOT_LOADED))
    with pytest.raises(NotATee, match="it has no GPU"):
        inspect(FakeNvml(gpus=0))


def test_an_older_driver_without_some_functions_is_described() -> None:
    old = FakeNvml(missing=frozenset({"nvmlSystemGetConfComputeSettings", "nvmlSystemGetConfComputeGpusReadyState"}))
    found = inspect(old)
    assert (found.protected_pcie, found.ready, found.verdict) == (None, None, "in CC mode")


@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetCount_v2",
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlSystemGetConfComputeState",
        "nvmlDeviceGetConfComputeGpuCertificate",
        "nvmlDeviceGetConfComputeGpuAttestationReport",
    ],
)
def test_a_failing_call_is_named_and_the_session_closed(function: str) -> None:
    library = FakeNvml(sign=lambda _: b"r", chain=b"c", failing=frozenset({function}))
    with pytest.raises(Environment, match=f"{function} fails: Unknown Error"):
        collect(NONCE, library)
    assert library.open_sessions == 0


@pytest.mark.parametrize("size", [0, 0x2001, 2**31])
def test_impossible_sizes_read_no_memory(size: int) -> None:
    with pytest.raises(Environment, match="impossible size"):
        collect(NONCE, FakeNvml(sign=lambda _: b"r", chain=b"c", report_size=size))


def test_structures_have_the_sizes_that_nvml_expects() -> None:
    sizes = [ctypes.sizeof(kind) for kind in (nvml.Capabilities, nvml.State, nvml.Settings)]
    assert sizes == [8, 12, 20]
    assert ctypes.sizeof(nvml.Certificate) == 8 + 0x1000 + 0x1400
    assert ctypes.sizeof(nvml.AttestationReport) == 12 + 32 + 0x2000 + 0x1000
