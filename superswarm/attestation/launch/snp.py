"""The launch digest of an SEV-SNP guest, by IBM's and AMD's sev-snp-measure: its only import."""

from __future__ import annotations

from pathlib import Path

from superswarm.errors import Environment, Malformed, Misconfigured
from superswarm.values import Measurement

VMMS = ("qemu", "ec2", "gce")
GUEST_FEATURES = 0x1  # SNP active; QEMU's default. Another VMM or kernel may set more.


def launch_digest(
    firmware: Path,
    *,
    vcpus: int,
    vcpu_type: str,
    vmm: str = "qemu",
    guest_features: int = GUEST_FEATURES,
    kernel: Path | None = None,
    initrd: Path | None = None,
    command_line: str = "",
) -> Measurement:
    """What the secure processor measures of this start: firmware, kernel hashes, and each virtual CPU's state.

    Raises Malformed for firmware that is not built for SNP, Misconfigured for an unknown CPU type or VMM.
    """
    try:
        from sevsnpmeasure import guest, vcpu_types
        from sevsnpmeasure.vmm_types import VMMType
    except ImportError:
        raise Environment("sev-snp-measure is not installed: pip install 'superswarm[measure]'") from None
    if vcpu_type not in vcpu_types.CPU_SIGS:
        raise Misconfigured(f"unknown CPU type; known are {', '.join(sorted(vcpu_types.CPU_SIGS))}")
    if vmm not in VMMS:
        raise Misconfigured(f"unknown VMM; known are {', '.join(VMMS)}")
    if not 1 <= vcpus <= 1024:
        raise Misconfigured("a guest has 1 to 1024 virtual CPUs")
    try:
        digest = guest.snp_calc_launch_digest(
            vcpus,
            vcpu_types.CPU_SIGS[vcpu_type],
            str(firmware),
            str(kernel) if kernel else "",
            str(initrd) if initrd else "",
            command_line,
            guest_features,
            "",
            VMMType[vmm if vmm != "qemu" else "QEMU"],
        )
    except OSError as error:
        raise Environment(f"{error.filename} cannot be read: {error.strerror}") from None
    except (RuntimeError, ValueError, KeyError, AssertionError) as error:
        raise Malformed(f"the firmware cannot be measured for SNP: {error}") from None
    return Measurement(digest)
