"""Every field of a device's evidence with its name, for people. Nothing is verified here."""

from __future__ import annotations

from collections.abc import Iterator

from superswarm.attestation.certificates import utc
from superswarm.attestation.nvidia.chain import Chain, parse_pem_chain
from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.attestation.nvidia.identity import identify
from superswarm.attestation.nvidia.names import manifest_names
from superswarm.attestation.nvidia.revocation import parse_staple
from superswarm.attestation.nvidia.rim import find_signature, read_manifest, signer_chain
from superswarm.attestation.nvidia.spdm import Report, parse_report
from superswarm.attestation.nvidia.xml import parse_xml
from superswarm.errors import EvidenceRejected, Malformed

Row = tuple[str, str]


def device_rows(evidence: DeviceEvidence) -> Iterator[Row]:
    """The report's fields, the device that the chain names, then manifests and staples. Raises Malformed."""
    report, chain = parse_report(evidence.report), parse_pem_chain(evidence.chain)
    yield from _identity(chain)
    yield from report.fields()
    yield from _chain(chain, "certificate")
    yield from _wanted(report)
    for number, document in enumerate(evidence.manifests):
        for name, value in _manifest(document):
            yield f"manifest-{number} {name}", value
    for number, staple in enumerate(evidence.staples):
        yield f"staple-{number}", f"{type(parse_staple(staple)).__name__}, {len(staple)} bytes"


def _identity(chain: Chain) -> Iterator[Row]:
    try:
        device = identify(chain)
    except EvidenceRejected as error:
        yield "device", f"not named: {error}"
        return
    yield "device", f"{device.architecture}, {device.product}, serial {device.serial}"
    yield "certificate-fwid", device.fwid.hex()
    if device.flags:
        yield "certificate-flags", " ".join(str(bit) for bit in sorted(device.flags))


def _chain(chain: Chain, name: str) -> Iterator[Row]:
    for number, certificate in enumerate(chain):
        window = f"{utc(certificate.begins)} to {utc(certificate.ends)}"
        yield f"{name}-{number}", f"{certificate.name}, {window}, key {certificate.spki}"


def _wanted(report: Report) -> Iterator[Row]:
    try:
        yield "manifests-needed", " ".join(manifest_names(report))
    except Malformed as error:
        yield "manifests-needed", f"cannot be told: {error}"


def _manifest(document: bytes) -> Iterator[Row]:
    root = parse_xml(document)
    manifest = read_manifest(root)
    yield "for", f"{manifest.component} {manifest.version} of {manifest.product} ({manifest.edition})"
    yield "tag", manifest.tag
    yield "active-measurements", " ".join(str(index) for index in sorted(manifest.measurements))
    yield from _chain(signer_chain(find_signature(root)), "signer")
