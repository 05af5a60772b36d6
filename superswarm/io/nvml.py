"""What NVIDIA's management library (NVML) says of this machine's GPUs, and the evidence that they give through it.

Structures and values are those of nvml.h (CUDA 12.4 and later, group "Confidential Computing"). The library comes
with the driver, so it is loaded where it is and asked by ctypes; `Library` is what a test puts in its place.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_ubyte, c_uint, c_void_p
from dataclasses import dataclass
from typing import Any, Final, Protocol

from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.errors import Environment, NotATee

LIBRARY: Final = "libnvidia-ml.so.1"
SUCCESS: Final = 0
NOT_SUPPORTED: Final = (3, 13)  # NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_FUNCTION_NOT_FOUND
NONCE_BYTES: Final = 32
ENVIRONMENTS: Final = ("unavailable", "simulation", "production")
CPU_CAPABILITIES: Final = ("none", "AMD SEV", "Intel TDX", "AMD SEV-SNP", "AMD SEV-SNP with vTOM")


class Capabilities(Structure):
    """nvmlConfComputeSystemCaps_t."""

    _fields_ = (("cpu", c_uint), ("gpus", c_uint))


class State(Structure):
    """nvmlConfComputeSystemState_t."""

    _fields_ = (("environment", c_uint), ("feature", c_uint), ("dev_tools", c_uint))


class Settings(Structure):
    """nvmlSystemConfComputeSettings_v1_t."""

    _fields_ = (
        ("version", c_uint),
        ("environment", c_uint),
        ("feature", c_uint),
        ("dev_tools", c_uint),
        ("multi_gpu", c_uint),
    )


class Certificate(Structure):
    """nvmlConfComputeGpuCertificate_t: two PEM chains; the second one's leaf signs reports."""

    _fields_ = (
        ("chain_size", c_uint),
        ("attestation_chain_size", c_uint),
        ("chain", c_ubyte * 0x1000),
        ("attestation_chain", c_ubyte * 0x1400),
    )


class AttestationReport(Structure):
    """nvmlConfComputeGpuAttestationReport_t: SPDM request and response, and a second one from boards with a CEC."""

    _fields_ = (
        ("has_cec", c_uint),
        ("size", c_uint),
        ("cec_size", c_uint),
        ("nonce", c_ubyte * NONCE_BYTES),
        ("report", c_ubyte * 0x2000),
        ("cec_report", c_ubyte * 0x1000),
    )


class Library(Protocol):
    """NVML's functions, as ctypes gives them: attributes that are called and give a return code."""

    def __getattr__(self, name: str) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    index: int
    name: str
    uuid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidentiality:
    """What NVML reports. None stands for what this driver or GPU does not report at all."""

    driver_version: str
    gpus: tuple[Gpu, ...]
    cpu_capability: str | None
    gpus_capable: bool | None
    enabled: bool | None  # CC mode
    protected_pcie: bool | None
    dev_tools: bool | None  # on: the GPU attests, but its memory can be read
    environment: str | None
    ready: bool | None  # GPUs take work only once somebody verified them and said so

    @property
    def confidential(self) -> bool:
        """Whether evidence is worth asking for."""
        return not self.dev_tools and bool(self.enabled or self.protected_pcie)

    @property
    def verdict(self) -> str:
        """One line of truth for people."""
        if self.dev_tools:
            return "in CC DevTools mode: the GPU's memory can be read, so its evidence is worth nothing"
        if self.enabled:
            return "in CC mode"
        if self.protected_pcie:
            return "in protected-PCIe mode"
        if self.gpus_capable is False or self.enabled is None:
            return "not in CC mode: this GPU, driver or machine does not support it"
        return "not in CC mode: it is supported, and turned off"


def inspect(library: Library | None = None) -> Confidentiality:
    """Ask NVML about this machine. Raises NotATee where there is no driver library or no GPU."""
    with _session(library) as nvml:
        caps = _optional(nvml, "nvmlSystemGetConfComputeCapabilities", Capabilities())
        state = _optional(nvml, "nvmlSystemGetConfComputeState", State())
        settings = _optional(
            nvml, "nvmlSystemGetConfComputeSettings", Settings(version=ctypes.sizeof(Settings) | 1 << 24)
        )
        ready = _optional(nvml, "nvmlSystemGetConfComputeGpusReadyState", c_uint())
        return Confidentiality(
            driver_version=_text(nvml, "nvmlSystemGetDriverVersion"),
            gpus=tuple(_gpu(nvml, index, handle) for index, handle in enumerate(_handles(nvml))),
            cpu_capability=_named(CPU_CAPABILITIES, caps.cpu) if caps is not None else None,
            gpus_capable=bool(caps.gpus) if caps is not None else None,
            enabled=bool(state.feature) if state is not None else None,
            protected_pcie=settings.multi_gpu == 1 if settings is not None else None,
            dev_tools=bool(state.dev_tools) if state is not None else None,
            environment=_named(ENVIRONMENTS, state.environment) if state is not None else None,
            ready=bool(ready.value) if ready is not None else None,
        )


def collect(nonce: bytes, library: Library | None = None) -> tuple[DeviceEvidence, ...]:
    """Have every GPU sign this nonce. Raises NotATee where they are not in a confidential mode.

    Manifests and revocation answers are stapled by the caller: NVML has none. Switches answer through another library
    (NSCQ), on the machine that owns the fabric.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a device's nonce has {NONCE_BYTES} bytes")
    found = inspect(library)
    if not found.confidential:
        raise NotATee(f"{len(found.gpus)} GPU(s), {found.gpus[0].name}: {found.verdict}")
    with _session(library) as nvml:
        return tuple(_evidence(nvml, handle, nonce) for handle in _handles(nvml))


def _evidence(nvml: Library, handle: c_void_p, nonce: bytes) -> DeviceEvidence:
    certificate, report = Certificate(), AttestationReport()
    report.nonce[:] = list(nonce)
    _check(nvml, "nvmlDeviceGetConfComputeGpuCertificate", handle, byref(certificate))
    _check(nvml, "nvmlDeviceGetConfComputeGpuAttestationReport", handle, byref(report))
    return DeviceEvidence(
        report=_taken(report.report, report.size),
        chain=_taken(certificate.attestation_chain, certificate.attestation_chain_size),
    )


def _taken(buffer: ctypes.Array[c_ubyte], size: int) -> bytes:
    if not 0 < size <= len(buffer):
        raise Environment("NVML gave evidence of an impossible size")
    return bytes(buffer[:size])


@contextmanager
def _session(library: Library | None) -> Iterator[Library]:
    nvml = library if library is not None else load()
    if _call(nvml, "nvmlInit_v2") != SUCCESS:
        raise NotATee("an NVIDIA driver library is installed, but no driver answers: no GPU can attest")
    try:
        yield nvml
    finally:
        _call(nvml, "nvmlShutdown")


def load() -> Library:
    """The driver's library. Raises NotATee where the machine has none."""
    try:
        library: Library = ctypes.CDLL(LIBRARY)
    except OSError:
        raise NotATee(f"no NVIDIA driver on this machine ({LIBRARY} is not installed): no GPU can attest") from None
    library.nvmlErrorString.restype = c_char_p
    library.nvmlErrorString.argtypes = (c_int,)
    library.nvmlDeviceGetHandleByIndex_v2.argtypes = (c_uint, POINTER(c_void_p))
    return library


def _handles(nvml: Library) -> list[c_void_p]:
    count = c_uint()
    _check(nvml, "nvmlDeviceGetCount_v2", byref(count))
    if not count.value:
        raise NotATee("an NVIDIA driver is installed, but it has no GPU")
    handles = [c_void_p() for _ in range(count.value)]
    for index, handle in enumerate(handles):
        _check(nvml, "nvmlDeviceGetHandleByIndex_v2", c_uint(index), byref(handle))
    return handles


def _gpu(nvml: Library, index: int, handle: c_void_p) -> Gpu:
    return Gpu(
        index=index,
        name=_text(nvml, "nvmlDeviceGetName", handle),
        uuid=_text(nvml, "nvmlDeviceGetUUID", handle),
    )


def _text(nvml: Library, function: str, *arguments: Any) -> str:
    buffer = ctypes.create_string_buffer(96)
    _check(nvml, function, *arguments, buffer, c_uint(len(buffer)))
    return buffer.value.decode("ascii", "replace")


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else f"unknown ({number})"


def _optional(nvml: Library, function: str, out: Any) -> Any:
    """What a function writes; None where this driver or GPU does not support it."""
    code = _call(nvml, function, byref(out))
    if code in NOT_SUPPORTED:
        return None
    if code != SUCCESS:
        raise Environment(f"{function} fails: {_reason(nvml, code)}")
    return out


def _check(nvml: Library, function: str, *arguments: Any) -> None:
    code = _call(nvml, function, *arguments)
    if code != SUCCESS:
        raise Environment(f"{function} fails: {_reason(nvml, code)}")


def _call(nvml: Library, function: str, *arguments: Any) -> int:
    """NVML's return code; an older library that lacks the function counts as not supporting it."""
    try:
        call = getattr(nvml, function)
    except AttributeError:
        return NOT_SUPPORTED[1]
    return int(call(*arguments))


def _reason(nvml: Library, code: int) -> str:
    text = nvml.nvmlErrorString(code)
    return text.decode("ascii", "replace") if isinstance(text, bytes) else f"NVML code {code}"
