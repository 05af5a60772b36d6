"""The TEE that this machine is: what the kernel says of the CPU, and what NVIDIA's library says of the GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from superswarm.attestation.evidence import Evidence
from superswarm.attestation.nvidia.evidence import DeviceEvidence, manifests_and_staples
from superswarm.consortium.manifest import Platform
from superswarm.errors import Environment, Malformed, NotATee
from superswarm.io import nvml
from superswarm.io.evidence import read_folder, stapled
from superswarm.io.tsm import Kernel, LinuxKernel, TsmAttester
from superswarm.io.vtpm import VtpmAttester

NVIDIA: Final = "nvidia"  # the part of the collateral folder that is stapled to devices' evidence


class HardwareTee:
    """A real machine, as `Attester`. What lies in its collateral folder is stapled, and read anew each time."""

    def __init__(self, collateral: Path | None, *, kernel: Kernel | None = None, library: nvml.Library | None = None):
        self._collateral, self._library = collateral, library
        self._cpu = _cpu(kernel if kernel is not None else LinuxKernel(), self._stapled)
        self._gpus = has_gpus(library)

    @property
    def platform(self) -> Platform:
        return self._cpu.platform

    def attest(self, report_data: bytes) -> Evidence:
        return self._cpu.attest(report_data)

    def ask_devices(self, nonce: bytes) -> tuple[DeviceEvidence, ...]:
        if not self._gpus:
            return ()
        folder = None if self._collateral is None else self._collateral / NVIDIA
        files = read_folder(folder) if folder is not None and folder.is_dir() else {}
        manifests, staples = manifests_and_staples(files)
        return tuple(
            replace(device, manifests=manifests, staples=staples) for device in nvml.collect(nonce, self._library)
        )

    def _stapled(self, platform: Platform) -> dict[str, bytes]:
        return {} if self._collateral is None else stapled(self._collateral, platform)


def _cpu(kernel: Kernel, collateral: Callable[[Platform], dict[str, bytes]]) -> TsmAttester | VtpmAttester:
    """Bare TDX or SEV-SNP through the kernel; else a paravisor's vTPM. Raises NotATee where there is neither."""
    try:
        return TsmAttester(kernel, collateral)
    except NotATee as error:
        try:
            return VtpmAttester(collateral)
        except (NotATee, Environment, Malformed):
            raise error from None


def has_gpus(library: nvml.Library | None = None) -> bool:
    """Whether GPUs are attached that protect what they are given. Raises NotATee for GPUs that do not.

    Plaintext would be training on them, so a machine with such a GPU is no TEE, even if nobody asked for a GPU.
    """
    try:
        found = nvml.inspect(library)
    except NotATee:  # no NVIDIA driver, or no GPU that it knows: nothing can be given to one
        return False
    if not found.gpus:
        return False
    if found.dev_tools or not (found.enabled or found.protected_pcie):
        raise NotATee(f"{len(found.gpus)} GPU(s) of this machine would see plaintext: {found.verdict}")
    return True
