"""Say what evidence says, field by field, under the names that the specifications use. Proves nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from superswarm.attestation.certificates import load_certificate, load_crl, utc
from superswarm.attestation.evidence import Evidence
from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.attestation.nvidia.show import device_rows
from superswarm.attestation.snp.chain import LEAVES
from superswarm.attestation.snp.report import Product, Report, Tcb, parse_report
from superswarm.attestation.snp.vek import parse_vek
from superswarm.attestation.tdx.attributes import TdAttribute, Xfam, bits, names
from superswarm.attestation.tdx.ccel import parse_ccel, replay
from superswarm.attestation.tdx.quote import TdReport, parse_quote, without_padding
from superswarm.attestation.tdx.verify import EVENT_LOG
from superswarm.attestation.vtpm.evidence import parse_evidence
from superswarm.consortium.manifest import Platform
from superswarm.errors import Malformed

Row = tuple[str, str]
HOLDERS = ("raw", "signed", "hardware", "runtime_data", "message", "pck_chain", "certificate")
"""Fields that hold others, or are shown as endorsements."""
BITS = ("raw", "r", "s", "launch_mitigations", "current_mitigations", "mitigations")
"""Numbers that are read bit by bit, or are too long for decimal: shown in hexadecimal."""


def show_evidence(evidence: Evidence) -> Iterator[Row]:
    """Every field of a machine's evidence, as name and value. Raises Malformed."""
    yield "platform", str(evidence.platform)
    match evidence.platform:
        case Platform.SEV_SNP:
            yield from _report(parse_report(evidence.quote), dict(evidence.endorsements))
        case Platform.AZURE_VTPM:
            yield from _vtpm(evidence)
        case _:
            quote = parse_quote(without_padding(evidence.quote))
            yield from rows(quote)
            yield from _events(dict(evidence.endorsements).get(EVENT_LOG), quote.td)
    for name, data in evidence.endorsements:
        yield from _endorsement(name, data)
    for number, raw in enumerate(evidence.devices):
        yield from show_device(DeviceEvidence.parse(raw), f"gpu{number}.")


def _events(log: bytes | None, td: TdReport) -> Iterator[Row]:
    """Each event of a log, with what its digest proves of its description, and whether the log explains the quote."""
    if log is None:
        return
    events = parse_ccel(log)
    for number, event in enumerate(events):
        register = f"rtmr{event.register - 1}" if event.register else "mrtd"
        proven = "" if event.proven is None else f" {ascii(event.proven.decode('latin-1'))[:120]}"
        yield f"event.{number}", f"{register} {event.name} {event.digest.hex()[:16]}{proven}"
    yield "events.replay_to_the_registers", _text(replay(events) == td.rtmr)


def show_device(evidence: DeviceEvidence, prefix: str = "") -> Iterator[Row]:
    """Every field of a GPU's or switch's evidence. Raises Malformed."""
    yield from ((f"{prefix}{name}", value) for name, value in device_rows(evidence))


def _report(report: Report, endorsements: Mapping[str, bytes], prefix: str = "") -> Iterator[Row]:
    """An SNP report; its TCBs by name, in the layout of its product."""
    product = report.product
    for name, value in _members(report):
        if isinstance(value, Tcb) and product is not None:
            parts = " ".join(f"{part}={number}" for part, number in value.parts(product).items())
            yield f"{prefix}{name}", f"{value} ({parts})"
        else:
            yield from rows(value, f"{prefix}{name}")
    leaf = next((endorsements[name] for name in LEAVES if name in endorsements), None)
    if leaf is not None:
        vek = parse_vek(load_certificate(leaf))
        yield from rows(vek, f"{prefix}endorsement_key.")
        if product is None and isinstance(vek.product, Product):
            parts = " ".join(f"{part}={number}" for part, number in vek.tcb.parts(vek.product).items())
            yield f"{prefix}endorsement_key.tcb.parts", parts


def _vtpm(evidence: Evidence) -> Iterator[Row]:
    parsed = parse_evidence(evidence.quote)
    yield from rows(parsed.quote, "quote.")
    for index, value in sorted(parsed.pcrs.items()):
        yield f"pcr.{index}", value.hex()
    yield from rows(parsed.hcl, "paravisor.")
    if parsed.td_quote is None:
        yield from _report(parse_report(parsed.hcl.hardware), parsed.endorsements, "beneath.")
    else:
        yield from rows(parse_quote(without_padding(parsed.td_quote)), "beneath.")


def rows(value: object, prefix: str = "") -> Iterator[Row]:
    """A parsed structure, field by field and property by property; bytes in hexadecimal."""
    name = prefix.rstrip(".")
    if is_dataclass(value) and not isinstance(value, Tcb):
        for member, inner in _members(value):
            yield from rows(inner, f"{name}.{member}" if name else member)
        if isinstance(value, TdReport):
            yield f"{name}.td_attributes.names", ", ".join(names(TdAttribute, bits(value.td_attributes))) or "none"
            yield f"{name}.xfam.names", ", ".join(names(Xfam, bits(value.xfam))) or "none"
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from rows(inner, f"{name}.{key}")
    elif isinstance(value, tuple | list) and any(is_dataclass(item) or isinstance(item, bytes) for item in value):
        for number, inner in enumerate(value):
            yield from rows(inner, f"{name}.{number}")
    else:
        yield name, _text(value)


def _members(value: object) -> Iterator[tuple[str, Any]]:
    """A dataclass's fields, and the properties that read single bits out of them."""
    for field in fields(value) if is_dataclass(value) else ():
        member = getattr(value, field.name)
        if field.name in BITS and isinstance(member, int):
            yield field.name, hex(member)
        elif field.name not in HOLDERS:
            yield field.name, member
    for name, kind in vars(type(value)).items():
        if isinstance(kind, property) and name not in HOLDERS:
            yield name, getattr(value, name)


def _text(value: object) -> str:
    match value:
        case bytes():
            return value.hex() or "empty"
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case Enum():
            return value.name.lower()
        case rsa.RSAPublicKey():
            return f"RSA, {value.key_size} bits"
        case tuple() | list() | set() | frozenset():
            return " ".join(_text(item) for item in value) or "none"
        case _:
            return str(value)


def _endorsement(name: str, data: bytes) -> Iterator[Row]:
    """A certificate's or CRL's name and window; of anything else, its size."""
    try:
        if ".crl" in name or name.endswith("_crl"):
            crl = load_crl(data)
            until = "unstated" if crl.next_update is None else utc(crl.next_update)
            yield name, f"CRL, {utc(crl.this_update)} to {until}, {len(crl.serials)} revoked"
        else:
            certificate = load_certificate(data)
            window = f"{utc(certificate.begins)} to {utc(certificate.ends)}"
            yield name, f"{certificate.name}, {window}, key {certificate.spki}"
    except Malformed:
        yield name, f"{len(data)} bytes"
