"""NVML as a driver gives it: functions that write into the caller's structures and return a code."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_uint, c_void_p
from dataclasses import dataclass, field
from typing import Any

from superswarm.io.nvml import AttestationReport, Certificate

SUCCESS, NOT_SUPPORTED, UNKNOWN_ERROR = 0, 3, 999
DRIVER_NOT_LOADED = 9


@dataclass
class FakeNvml:
    """One machine's NVML. `missing` functions do not exist, as in an older driver's library."""

    sign: Callable[[bytes], bytes] = lambda _: b""
    chain: bytes = b""
    gpus: int = 1
    init: int = SUCCESS
    support: bool = True  # whether driver and GPU know confidential computing at all
    capable: int = 1
    feature: int = 1
    dev_tools: int = 0
    multi_gpu: int = 0
    report_size: int | None = None
    failing: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    open_sessions: int = 0
    calls: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = FakeNvml.__dict__.get(f"_{name}")
        if function is None or name in self.missing:
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name in self.failing:
                return UNKNOWN_ERROR
            if "ConfCompute" in name and not self.support:
                return NOT_SUPPORTED
            return function(self, *arguments)

        return call

    def _nvmlInit_v2(self) -> int:  # noqa: N802
        self.open_sessions += self.init == SUCCESS
        return self.init

    def _nvmlShutdown(self) -> int:  # noqa: N802
        self.open_sessions -= 1
        return SUCCESS

    def _nvmlErrorString(self, code: int) -> bytes:  # noqa: N802
        return {UNKNOWN_ERROR: b"Unknown Error"}.get(code, b"Some Error")

    def _nvmlSystemGetDriverVersion(self, buffer: Any, size: c_uint) -> int:  # noqa: N802
        buffer.value = b"580.65.06"
        return SUCCESS

    def _nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.gpus
        return SUCCESS

    def _nvmlDeviceGetHandleByIndex_v2(self, index: c_uint, handle: Any) -> int:  # noqa: N802
        handle._obj.value = 0x1000 + index.value
        return SUCCESS

    def _nvmlDeviceGetName(self, handle: c_void_p, buffer: Any, size: c_uint) -> int:  # noqa: N802
        buffer.value = b"NVIDIA H100 80GB HBM3"
        return SUCCESS

    def _nvmlDeviceGetUUID(self, handle: c_void_p, buffer: Any, size: c_uint) -> int:  # noqa: N802
        buffer.value = b"GPU-%d" % ((handle.value or 0) - 0x1000)
        return SUCCESS

    def _nvmlSystemGetConfComputeCapabilities(self, caps: Any) -> int:  # noqa: N802
        caps._obj.cpu, caps._obj.gpus = 3, self.capable
        return SUCCESS

    def _nvmlSystemGetConfComputeState(self, state: Any) -> int:  # noqa: N802
        state._obj.environment, state._obj.feature, state._obj.dev_tools = 2, self.feature, self.dev_tools
        return SUCCESS

    def _nvmlSystemGetConfComputeSettings(self, settings: Any) -> int:  # noqa: N802
        assert settings._obj.version == 20 | 1 << 24  # NVML refuses a structure of another version
        settings._obj.multi_gpu = self.multi_gpu
        return SUCCESS

    def _nvmlSystemGetConfComputeGpusReadyState(self, ready: Any) -> int:  # noqa: N802
        ready._obj.value = 0
        return SUCCESS

    def _nvmlDeviceGetConfComputeGpuCertificate(self, handle: c_void_p, out: Any) -> int:  # noqa: N802
        certificate: Certificate = out._obj
        certificate.attestation_chain_size = len(self.chain)
        certificate.attestation_chain[: len(self.chain)] = list(self.chain)
        return SUCCESS

    def _nvmlDeviceGetConfComputeGpuAttestationReport(self, handle: c_void_p, out: Any) -> int:  # noqa: N802
        report: AttestationReport = out._obj
        signed = self.sign(bytes(report.nonce))
        report.size = len(signed) if self.report_size is None else self.report_size
        report.report[: len(signed)] = list(signed)
        return SUCCESS
