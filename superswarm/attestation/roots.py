"""The vendors' roots: all that is trusted without proof, each by the SHA-256 of its public key (SPKI, DER).

A key is pinned rather than a certificate, since vendors reissue certificates over the same key. The certificates
travel with the evidence. No manifest, file or flag adds to this table; development authorities are another, which
only a simulated manifest names.

To check an entry: `openssl x509 -in ROOT -noout -pubkey | openssl pkey -pubin -outform der | sha256sum`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from superswarm.values import Digest


class Vendor(StrEnum):
    """What a root speaks for. A root never serves for another purpose than its own."""

    INTEL_SGX = "intel-sgx"  # PCK, TCB info and QE identity of SGX and TDX
    AMD_MILAN = "amd-milan"  # ASK and ASVK of the Milan line
    AMD_GENOA = "amd-genoa"  # of Genoa, Bergamo and Siena
    AMD_TURIN = "amd-turin"
    NVIDIA_DEVICE = "nvidia-device"  # GPUs and NVSwitches
    NVIDIA_RIM = "nvidia-rim"  # reference integrity manifests


@dataclass(frozen=True, slots=True)
class Root:
    """A pinned key, the name in its certificate, and where its owner publishes it."""

    vendor: Vendor
    subject: str
    spki: Digest
    source: str


def _root(vendor: Vendor, subject: str, spki: str, source: str) -> Root:
    return Root(vendor, subject, Digest(bytes.fromhex(spki)), source)


ROOTS: Final = (
    _root(
        Vendor.INTEL_SGX,
        "Intel SGX Root CA",
        "a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e",
        "https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.pem",
    ),
    _root(
        Vendor.AMD_MILAN,
        "ARK-Milan",
        "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
        "https://kdsintf.amd.com/vcek/v1/Milan/cert_chain, also /vlek/v1/Milan/cert_chain",
    ),
    _root(
        Vendor.AMD_GENOA,
        "ARK-Genoa",
        "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
        "https://kdsintf.amd.com/vcek/v1/Genoa/cert_chain, also /vlek/v1/Genoa/cert_chain",
    ),
    _root(
        Vendor.AMD_TURIN,
        "ARK-Turin",
        "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
        "https://kdsintf.amd.com/vcek/v1/Turin/cert_chain, also /vlek/v1/Turin/cert_chain",
    ),
    _root(
        Vendor.NVIDIA_DEVICE,
        "NVIDIA Device Identity CA",
        "a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4",
        "https://github.com/NVIDIA/nvtrust, guest_tools/gpu_verifiers: verifier_device_root.pem",
    ),
    _root(
        Vendor.NVIDIA_RIM,
        "NVIDIA CoRIM signing Root CA",
        "dec1dc316477aa851eebdf51327ae9f864bc8d89254657ed1e7eb9168af1e1a3",
        "https://github.com/NVIDIA/nvtrust, guest_tools/gpu_verifiers: verifier_RIM_root.pem",
    ),
)
"""An Azure vTPM has no root of its own here: its attestation key is vouched for by the SNP or TDX report below it."""


def pinned(*vendors: Vendor) -> dict[Digest, Vendor]:
    """The pinned keys of these vendors."""
    return {root.spki: root.vendor for root in ROOTS if root.vendor in vendors}
