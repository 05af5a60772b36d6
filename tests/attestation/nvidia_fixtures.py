"""One minted vendor for all NVIDIA tests of a process, and shorthands around it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from mint_nvidia import AT, DRIVER, VBIOS, Device, Vendor, pem

from superswarm.attestation.nvidia.verify import VerifiedDevice, verify_device
from superswarm.consortium.policy import NvidiaPolicy
from superswarm.errors import EvidenceRejected

NONCE = bytes(range(100, 132))


@functools.cache
def vendor() -> Vendor:
    return Vendor()


@functools.cache
def gpu() -> Device:
    return vendor().device()


@functools.cache
def manifests() -> tuple[bytes, bytes]:
    """The minted GPU's driver and VBIOS manifests."""
    return vendor().manifest(DRIVER, range(20, 41)), vendor().manifest(VBIOS, range(13))


def verified(device: Device, *, at: int = AT, staples: tuple[bytes, ...] = ()) -> VerifiedDevice:
    return verify_device(device.attest(NONCE), pem(device.chain), at=at, staples=staples, roots=vendor().roots)


def policy(**changes: Any) -> NvidiaPolicy:
    """Accepts what is minted; revocation is asked for only where a test does."""
    settings: dict[str, Any] = {
        "required": True,
        "architectures": ("hopper", "blackwell", "nvswitch"),
        "driver_versions": "any",
        "vbios_versions": "any",
        "devices": "any",
        "revocation": "any",
        "collateral_maximum_age_days": 7,
    }
    return NvidiaPolicy(**{**settings, **changes})


def refused(call: Callable[[], object]) -> tuple[str, ...]:
    """The reasons for which a call refuses evidence."""
    with pytest.raises(EvidenceRejected) as caught:
        call()
    return caught.value.reasons
