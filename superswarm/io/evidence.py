"""Open evidence from files: a container of ours, or the bare forms in which machines and tools leave it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from superswarm.attestation.evidence import Evidence
from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.attestation.snp.report import REPORT_BYTES, VERSIONS
from superswarm.attestation.tdx import cases as tdx
from superswarm.attestation.tdx.quote import TEE_TDX
from superswarm.attestation.vtpm.cases import EVIDENCE
from superswarm.consortium.manifest import Platform
from superswarm.errors import Malformed, Misconfigured
from superswarm.io.files import read_bytes
from superswarm.values import LIMITS
from superswarm.wire import MAGIC

REPORT, CHAIN, CASE = "report.bin", "chain.pem", "case.json"
FILES = 64  # in one folder of evidence


def open_evidence(path: Path) -> Evidence | DeviceEvidence:
    """Read a file, or a folder with a quote and what endorses it. Raises Malformed, TooLarge or Environment."""
    if path.is_dir():
        return from_files(read_folder(path))
    data = read_bytes(path, limit=LIMITS.evidence_bytes)
    if data.startswith(MAGIC):
        return Evidence.parse(data)
    return Evidence(_platform(data), data)


def from_files(files: Mapping[str, bytes]) -> Evidence | DeviceEvidence:
    """Tell evidence by its file names, which are those of conformance cases."""
    if EVIDENCE in files:
        more = tdx.endorsements(files) if tdx.COLLATERAL in files else {}
        return _evidence(Platform.AZURE_VTPM, EVIDENCE, files, more)
    if tdx.QUOTE in files:
        return Evidence(Platform.TDX, files[tdx.QUOTE], tuple(sorted(tdx.endorsements(files).items())))
    if REPORT in files and CHAIN in files:
        return DeviceEvidence.from_files(files)
    if REPORT in files:
        return _evidence(Platform.SEV_SNP, REPORT, files, {})
    raise Misconfigured(f"the folder has none of {EVIDENCE}, {tdx.QUOTE} and {REPORT}")


def stapled(folder: Path, platform: Platform) -> dict[str, bytes]:
    """What a collateral folder holds for evidence of this platform, as `Evidence` names it."""
    files = read_folder(folder)
    if platform is Platform.TDX:
        return tdx.endorsements(files)
    return {name: data for name, data in files.items() if name.endswith((".der", ".pem"))}


def _evidence(platform: Platform, quote: str, files: Mapping[str, bytes], more: Mapping[str, bytes]) -> Evidence:
    certificates = {name: data for name, data in files.items() if name.endswith((".der", ".pem"))}
    return Evidence(platform, files[quote], tuple(sorted({**certificates, **more}.items())))


def read_folder(path: Path) -> dict[str, bytes]:
    """The files of one folder, without its case.json. Raises Misconfigured, TooLarge or Environment."""
    if not path.is_dir():
        raise Misconfigured(f"{path} is not a folder")
    names = sorted(entry for entry in path.iterdir() if entry.is_file() and entry.name != CASE)
    if len(names) > FILES:
        raise Misconfigured(f"{path} has more than {FILES} files: give the folder of one piece of evidence")
    return {entry.name: read_bytes(entry, limit=LIMITS.evidence_bytes) for entry in names}


def _platform(data: bytes) -> Platform:
    """Tell a bare quote by its first bytes."""
    if data.lstrip()[:1] == b"{":
        return Platform.AZURE_VTPM
    if len(data) >= 8:
        version, _, tee = struct.unpack_from("<HHI", data)
        if version in (4, 5) and tee == TEE_TDX:
            return Platform.TDX
        if len(data) == REPORT_BYTES and int.from_bytes(data[:4], "little") in VERSIONS:
            return Platform.SEV_SNP
    raise Malformed("not evidence of a kind that is known: SNP report, TDX quote, Azure vTPM document or container")
