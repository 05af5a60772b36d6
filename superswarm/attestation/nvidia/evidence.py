"""One device's evidence as it travels in `Evidence.devices`: its report, and what is needed to judge it offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from superswarm.errors import Malformed, TooLarge
from superswarm.values import LIMITS
from superswarm.wire import join, pack, split, unpack_list

FORMAT = "superswarm/v1/nvidia-device"
MANIFESTS = 4
DEVICES = 64  # attached to one machine: GPUs and switches


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvidence:
    """Report, certificate chain, reference manifests and stapled revocation answers. Proves nothing."""

    report: bytes  # SPDM request and response
    chain: bytes  # PEM, the device's certificate first
    manifests: tuple[bytes, ...] = ()  # XML
    staples: tuple[bytes, ...] = ()  # DER CRLs and OCSP responses, of the device's and the manifests' chains

    def to_bytes(self) -> bytes:
        return pack(FORMAT, self.report, self.chain, join(self.manifests), join(self.staples))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Invert `to_bytes`. Raises Malformed, or TooLarge over the limit."""
        match unpack_list(data, limit=LIMITS.evidence_bytes):
            case [str(name), bytes(report), bytes(chain), bytes(manifests), bytes(staples)] if name == FORMAT:
                return cls(
                    report=report, chain=chain, manifests=_few(split(manifests)), staples=tuple(split(staples))
                )
            case _:
                raise Malformed("not the evidence of an NVIDIA device")

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """Read what a folder holds: report.bin, chain.pem, manifests and staples."""
        if "report.bin" not in files or "chain.pem" not in files:
            raise Malformed("a device's evidence needs report.bin and chain.pem")
        manifests, staples = manifests_and_staples(files)
        return cls(report=files["report.bin"], chain=files["chain.pem"], manifests=manifests, staples=staples)


def manifests_and_staples(files: Mapping[str, bytes]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """A folder's manifests (*.xml, *.swidtag), and its CRLs and OCSP responses (*.der), sorted by name."""
    named = sorted(files.items())
    manifests = [data for name, data in named if name.endswith((".xml", ".swidtag"))]
    return _few(manifests), tuple(data for name, data in named if name.endswith(".der"))


def _few(manifests: Sequence[bytes]) -> tuple[bytes, ...]:
    if len(manifests) > MANIFESTS:
        raise TooLarge(f"a device has at most {MANIFESTS} reference manifests")
    return tuple(manifests)
