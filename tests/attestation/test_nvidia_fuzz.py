"""Reports and manifests from grammars that are almost right, and random staples: only our errors come out."""

from __future__ import annotations

import contextlib
import os
import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree
from mint_nvidia import AT, Vendor, issue, pem
from nvidia_fixtures import NONCE, gpu, manifests, policy, vendor

from superswarm.attestation.nvidia.binding import appraise_device
from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.attestation.nvidia.revocation import parse_staple
from superswarm.attestation.nvidia.rim import read_manifest, verify_rim
from superswarm.attestation.nvidia.show import device_rows
from superswarm.attestation.nvidia.spdm import Report, parse_report
from superswarm.attestation.nvidia.verify import verify_device
from superswarm.attestation.nvidia.xml import parse_xml
from superswarm.errors import Error

EXAMPLES = 20_000 if os.environ.get("SUPERSWARM_FUZZ") else 200
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

# --- SPDM ----------------------------------------------------------------------------------------------------------

few = st.integers(0, 3)
byte = st.integers(0, 255)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """A measurement block; its lengths are right most of the time."""
    value = draw(st.binary(max_size=64))
    size = draw(st.sampled_from([len(value)] * 8 + [0, 1, 0xFFFF]))
    outer = draw(st.sampled_from([size + 3] * 8 + [0, 2, 0xFFFF])) & 0xFFFF
    return struct.pack("<BBHBH", draw(byte), draw(st.sampled_from([1] * 8 + [0, 2])), outer, draw(byte), size) + value


@st.composite
def fields(draw: st.DrawFn) -> bytes:
    """A field of the opaque data, often one that means something, with a value that often means nothing."""
    values = [b"\xaa", b"\x55", b"\1\0", b"580.65.06\0", bytes(8), bytes(48), b"\0" * 5 + b"\1\1\1"]
    value = draw(st.sampled_from(values) | st.binary(max_size=160))
    size = draw(st.sampled_from([len(value)] * 8 + [0, 1, 0xFFFF]))
    return struct.pack("<HH", draw(st.integers(0, 40) | st.integers(0, 0xFFFF)), size) + value


@st.composite
def reports(draw: st.DrawFn) -> bytes:
    """A request and response; each fixed part is now and then wrong."""
    record = b"".join(draw(st.lists(blocks(), max_size=6)))
    opaque = b"".join(draw(st.lists(fields(), max_size=12)))
    count = draw(st.integers(0, 7))
    length = draw(st.sampled_from([len(record)] * 8 + [0, 1, 0xFFFFFF]))
    opaque_length = draw(st.sampled_from([len(opaque)] * 8 + [0, 1, 0xFFFF]))
    request = draw(st.sampled_from([b"\x11\xe0\x01\xff"] * 8 + [b"\x12\xe0\x01\xff", b"\x11\xe0\x00\xff"]))
    response = draw(st.sampled_from([b"\x11\x60\x00\x00"] * 8 + [b"\x11\x60\x00\x01", b"\x11\x7f\x00\x00"]))
    signature = draw(st.sampled_from([bytes(96), b"\xff" * 96, bytes(95), bytes(97), b""]))
    return b"".join(
        (
            request,
            NONCE,
            b"\0",
            response,
            bytes((count,)),
            length.to_bytes(3, "little"),
            record,
            bytes(32),
            struct.pack("<H", opaque_length),
            opaque,
            signature,
        )
    )


def read_all(report: Report) -> None:
    """Ask a parsed report for everything that it may be asked for."""
    list(report.fields())
    names = ("driver_version", "vbios_version", "fwid", "chip_info", "nvdec0_enabled", "protected_pcie", "mode")
    for name in (*names, "own_pdi", "linked_switches"):
        with contextlib.suppress(Error):
            getattr(report, name)


@fuzz
@given(reports())
def test_reports_from_a_grammar(data: bytes) -> None:
    with contextlib.suppress(Error):
        read_all(parse_report(data))
    with contextlib.suppress(Error):
        verify_device(data, pem(gpu().chain), at=AT, roots=vendor().roots)
    with contextlib.suppress(Error):
        list(device_rows(DeviceEvidence(report=data, chain=pem(gpu().chain))))


@fuzz
@given(st.binary(max_size=400))
def test_reports_from_chance(data: bytes) -> None:
    for candidate in (data, gpu().attest(NONCE)[:41] + data):
        with contextlib.suppress(Error):
            read_all(parse_report(candidate))


@fuzz
@given(st.lists(st.tuples(st.integers(0, 5000), byte), min_size=1, max_size=8))
def test_altered_reports_are_refused(changes: list[tuple[int, int]]) -> None:
    genuine = gpu().attest(NONCE)
    data = bytearray(genuine)
    for offset, value in changes:
        data[offset % len(data)] = value
    accepted = False
    with contextlib.suppress(Error):
        verify_device(bytes(data), pem(gpu().chain), at=AT, roots=vendor().roots)
        accepted = True
    assert accepted == (bytes(data) == genuine)


# --- XML -----------------------------------------------------------------------------------------------------------

NAMES = (
    "SoftwareIdentity",
    "ns0:Meta",
    "ns0:Payload",
    "ns0:Resource",
    "ds:Signature",
    "ds:SignedInfo",
    "ds:Reference",
    "ds:Transforms",
    "ds:X509Certificate",
    "x",
)
ATTRIBUTES = (
    "index",
    "active",
    "alternatives",
    "ns2:Hash0",
    "size",
    "type",
    "URI",
    "Algorithm",
    "product",
    "xmlns:a",
)
VALUES = ("0", "1", "True", "48", "Measurement", "", "0" * 96, "GH100", "&lt;", "&#0;", "&x;", "\u0661", "99999")
SPACES = (
    'xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" '
    'xmlns:ns0="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" '
    'xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" xmlns:ds="http://www.w3.org/2000/09/xmldsig#"'
)


@st.composite
def elements(draw: st.DrawFn, depth: int = 4) -> str:
    """An element of a manifest's vocabulary, with children, comments, instructions and text in any order."""
    name = draw(st.sampled_from(NAMES))
    chosen = draw(st.lists(st.tuples(st.sampled_from(ATTRIBUTES), st.sampled_from(VALUES)), max_size=5))
    attributes = "".join(f' {key}="{value}"' for key, value in chosen)
    texts = st.sampled_from(["", "text", "<!-- c -->", "<?p i?>", "<![CDATA[x]]>", "&amp;", "QUJD", "\n  "])
    inner = [draw(texts)] + ([draw(elements(depth - 1)) for _ in range(draw(few))] if depth else [])
    return f"<{name}{attributes}>{''.join(inner)}</{name}>"


@fuzz
@given(elements())
def test_xml_from_a_grammar(text: str) -> None:
    document = text.replace(">", f" {SPACES}>", 1).encode()
    with contextlib.suppress(Error):
        verify_rim(document, at=AT, roots=vendor().roots)
    with contextlib.suppress(Error):
        read_manifest(parse_xml(document))


@fuzz
@given(st.data())
def test_genuine_manifests_with_parts_moved_are_refused(data: st.DataObject) -> None:
    """Take a part of a signed manifest away, copy it or move it, inside the signature too."""
    genuine = manifests()[0]
    root = etree.fromstring(genuine)
    parts = list(root.iter())[1:]
    part, place = data.draw(st.sampled_from(parts)), data.draw(st.sampled_from(parts))
    action = data.draw(st.sampled_from(["drop", "copy", "move"]))
    if action != "copy" and part.getparent() is not None:
        part.getparent().remove(part)
    if action != "drop" and place is not part and part not in place.iterancestors():
        place.addnext(etree.fromstring(etree.tostring(part)))
    document = etree.tostring(root)
    accepted = None
    with contextlib.suppress(Error):
        accepted = verify_rim(document, at=AT, roots=vendor().roots).manifest
    assert accepted is None or accepted == verify_rim(genuine, at=AT, roots=vendor().roots).manifest


@fuzz
@given(st.text(max_size=200) | st.binary(max_size=200))
def test_xml_from_chance(data: str | bytes) -> None:
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    for document in (raw, b"<a>" + raw + b"</a>", b'<?xml version="1.0"' + raw, b'<a b="' + raw + b'"/>'):
        with contextlib.suppress(Error):
            parse_xml(document)


# --- everything around them ----------------------------------------------------------------------------------------


@fuzz
@given(st.data())
def test_altered_certificates_and_staples_raise_only_our_errors(data: st.DataObject) -> None:
    der = data.draw(st.sampled_from(SAMPLES))
    changed = bytearray(der)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(byte)
    with contextlib.suppress(Error):
        parse_staple(bytes(changed))
    with contextlib.suppress(Error):
        verify_device(gpu().attest(NONCE), pem(gpu().chain), at=AT, staples=(bytes(changed),), roots=vendor().roots)


@fuzz
@given(st.binary(max_size=300), st.binary(max_size=300), st.lists(st.binary(max_size=50), max_size=3))
def test_device_evidence_from_chance(report: bytes, chain: bytes, others: list[bytes]) -> None:
    evidence = DeviceEvidence(report=report, chain=chain, manifests=tuple(others), staples=tuple(others))
    assert DeviceEvidence.parse(evidence.to_bytes()) == evidence
    with contextlib.suppress(Error):
        DeviceEvidence.parse(report)
    with contextlib.suppress(Error):
        appraise_device(evidence, NONCE, policy(), at=AT, roots=vendor().roots)
    with contextlib.suppress(Error):
        list(device_rows(evidence))


def _samples(of: Vendor) -> list[bytes]:
    chip, responder = gpu().chain[1], issue("responder", of.device_ca, ca=False)
    return [
        of.crl(of.device_ca),
        of.crl(of.device_ca, (chip,)),
        of.ocsp(chip, of.device_ca),
        of.ocsp(chip, of.device_ca, responder=responder),
    ]


SAMPLES = _samples(vendor())
