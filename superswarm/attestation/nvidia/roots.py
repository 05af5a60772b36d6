"""NVIDIA's roots, pinned by the SHA-256 of their public key (SubjectPublicKeyInfo, DER)."""

from __future__ import annotations

from dataclasses import dataclass

from superswarm.values import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where chains may end. Tests and development authorities bring their own; `NVIDIA` is for real devices."""

    device: frozenset[Digest]
    reference: frozenset[Digest]  # of the signers of reference manifests


NVIDIA = Roots(
    # CN=NVIDIA Device Identity CA, O=NVIDIA, valid 2021-11-05 to 9999-12-31: verifier_device_root.pem in
    # github.com/NVIDIA/nvtrust, guest_tools/gpu_verifiers/local_gpu_verifier/src/verifier/certs.
    device=frozenset({Digest.parse("sha256:a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4")}),
    # CN=NVIDIA CoRIM signing Root CA, O=NVIDIA, C=US, valid 2023-03-16 to 2053-03-08: verifier_RIM_root.pem there.
    reference=frozenset({Digest.parse("sha256:dec1dc316477aa851eebdf51327ae9f864bc8d89254657ed1e7eb9168af1e1a3")}),
)
