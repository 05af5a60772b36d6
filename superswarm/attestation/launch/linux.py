"""RTMR1 and RTMR2 of a trust domain whose VMM hands kernel, initrd and command line to the firmware (direct boot).

This models edk2's OVMF under QEMU, which leaves a confidential guest's kernel as it is: RTMR1 holds the kernel's
image and the firmware's own steps, RTMR2 what the kernel's EFI stub measures: its command line, as OVMF hands it on,
and the initrd. Another VMM or boot loader measures otherwise: take the registers from the event log of a reference
boot then, and compare what you know of it. RTMR0 depends on the virtual machine's shape (memory, ACPI tables, boot
variables), and comes from an event log only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from superswarm.attestation.launch.pe import authenticode
from superswarm.errors import Malformed

BOOT_EVENTS = (
    b"Calling EFI Application from Boot Option",
    bytes(4),  # a separator: before it the firmware, after it the system
    b"Exit Boot Services Invocation",
    b"Exit Boot Services Returned with Success",
)
INITRD_OPTION = "initrd=initrd "  # OVMF puts it before the command line where there is an initrd


def rtmr1(kernel: bytes) -> bytes:
    """The register after the firmware has started this kernel. Raises Malformed for a kernel without an EFI stub."""
    return extend([authenticode(kernel), *map(_sha384, BOOT_EVENTS)])


def rtmr2(command_line: str, initrd: bytes | None) -> bytes:
    """The register after the kernel's EFI stub has taken its command line and its initrd."""
    if "\0" in command_line:
        raise Malformed("a kernel's command line has no zero bytes")
    options = command_line if initrd is None else INITRD_OPTION + command_line
    digests = [_sha384((options + "\0").encode("utf-16-le"))]
    if initrd is not None:
        digests.append(_sha384(initrd))
    return extend(digests)


def extend(digests: Iterable[bytes]) -> bytes:
    """A register that starts as zeros, after these digests."""
    register = bytes(48)
    for digest in digests:
        register = _sha384(register + digest)
    return register


def _sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()
