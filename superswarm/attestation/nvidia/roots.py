"""Where the chains of devices and of reference manifests may end."""

from __future__ import annotations

from dataclasses import dataclass

from superswarm.attestation.roots import Vendor, pinned
from superswarm.values import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Digests of root keys. Tests and development authorities bring their own; `NVIDIA` is for real devices."""

    device: frozenset[Digest]
    reference: frozenset[Digest]  # of the signers of reference manifests


NVIDIA = Roots(device=frozenset(pinned(Vendor.NVIDIA_DEVICE)), reference=frozenset(pinned(Vendor.NVIDIA_RIM)))
