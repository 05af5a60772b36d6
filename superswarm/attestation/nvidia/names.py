"""Under which names NVIDIA publishes a device's reference manifests (rim.attestation.nvidia.com/v1/rim/<name>)."""

from __future__ import annotations

from superswarm.attestation.nvidia.spdm import OpaqueType, Report

SWITCH_BOARD = "5612_0002_890"  # the one NVSwitch board that attests, LS10; its report does not name it


def manifest_names(report: Report) -> tuple[str, ...]:
    """The names of the manifests that judging this report needs, as NVIDIA's public verifier composes them."""
    vbios = (report.vbios_version or "").replace(".", "")
    if report.driver_version is None:
        return (f"NV_SWITCH_BIOS_{SWITCH_BOARD}_{vbios}",)
    board = "_".join(
        (report.text(kind) or "") for kind in (OpaqueType.PROJECT, OpaqueType.PROJECT_SKU, OpaqueType.CHIP_SKU)
    )
    return (f"NV_GPU_{_driver_family(report)}_{report.driver_version}", f"NV_GPU_VBIOS_{board}_{vbios}")


def _driver_family(report: Report) -> str:
    """VBIOS versions 96 are Hopper's. Later GPUs name their chip; the first Blackwell firmware did not."""
    if (report.vbios_version or "").startswith("96."):
        return "DRIVER_GH100"
    return f"CC_DRIVER_{report.chip_info or 'GB100'}"
