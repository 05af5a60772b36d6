"""Event logs: they replay to the registers of the quote beside them, or are refused."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minting import NOW, machine
from vectors import NEEDS_VECTORS, cases, files

from superswarm.attestation.evidence import Evidence
from superswarm.attestation.reasons import Reason
from superswarm.attestation.show import show_evidence
from superswarm.attestation.tdx import ccel
from superswarm.attestation.tdx.quote import parse_quote
from superswarm.attestation.tdx.verify import EVENT_LOG, EVENT_LOG_TABLE, verify_tdx
from superswarm.consortium.manifest import Platform
from superswarm.errors import Error, EvidenceRejected, Malformed, TooLarge
from superswarm.values import LIMITS

M = machine("alice")
LOGGED = [case for case in cases("tdx") if (case / "ccel.bin").exists()]


def header(
    algorithms: tuple[tuple[int, int], ...] = ((ccel.SHA384, 48),), signature: bytes = ccel.SIGNATURE
) -> bytes:
    body = signature + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(algorithms))
    body += b"".join(struct.pack("<HH", *algorithm) for algorithm in algorithms) + b"\0"
    return struct.pack("<II20sI", 1, ccel.EV_NO_ACTION, bytes(20), len(body)) + body


def event(register: int, data: bytes, kind: int = 4, digest: bytes | None = None) -> bytes:
    digest = hashlib.sha384(data).digest() if digest is None else digest
    return struct.pack("<IIIH", register, kind, 1, ccel.SHA384) + digest + struct.pack("<I", len(data)) + data


LOG = header() + event(1, b"a") + event(2, b"b") + event(3, b"c") + event(4, b"d") + event(1, b"e")


def extend(*data: bytes) -> bytes:
    register = bytes(48)
    for item in data:
        register = hashlib.sha384(register + hashlib.sha384(item).digest()).digest()
    return register


RTMR = (extend(b"a", b"e"), extend(b"b"), extend(b"c"), extend(b"d"))


def test_a_log_replays_to_the_registers() -> None:
    events = ccel.parse_ccel(LOG)
    assert ccel.replay(events) == RTMR
    assert [e.proven for e in events] == [b"a", b"b", b"c", b"d", b"e"]
    for padding in (b"\0" * 100, b"\xff" * 100, b"\xff"):
        assert ccel.parse_ccel(LOG + padding) == events


def test_information_is_measured_into_nothing() -> None:
    with_note = header() + event(1, b"note", kind=ccel.EV_NO_ACTION) + LOG[len(header()) :]
    assert ccel.replay(ccel.parse_ccel(with_note)) == RTMR


def test_a_description_that_the_digest_is_not_of_proves_nothing() -> None:
    lie = event(1, b"kernel: good", digest=hashlib.sha384(b"kernel: evil").digest())
    (parsed,) = ccel.parse_ccel(header() + lie)
    assert parsed.proven is None
    command = event(3, b"grub_cmd: linux /vmlinuz\0", kind=0xD, digest=hashlib.sha384(b"linux /vmlinuz").digest())
    (parsed,) = ccel.parse_ccel(header() + command)
    assert parsed.proven == b"linux /vmlinuz"


def evidence(log: bytes, rtmr: tuple[bytes, bytes, bytes, bytes] = RTMR) -> tuple[bytes, dict[str, bytes]]:
    shown = M.evidence(rtmr=rtmr)  # type: ignore[arg-type]
    return shown.quote, dict(shown.endorsements) | {EVENT_LOG: log}


def test_evidence_with_its_log_verifies() -> None:
    events = verify_tdx(*evidence(LOG), NOW, roots=M.trust.development).events
    assert events is not None
    assert len(events) == 5


SWAPPED = header() + event(2, b"b") + event(1, b"e") + event(1, b"a") + event(3, b"c") + event(4, b"d")


@pytest.mark.parametrize(
    "log",
    [
        LOG + event(1, b"more"),
        LOG[: -len(event(1, b"e"))],
        SWAPPED,
        header(),
        LOG[:-1],
    ],
    ids=["one more", "one less", "another order", "none", "cut short"],
)
def test_a_log_that_does_not_explain_the_registers_is_refused(log: bytes) -> None:
    with pytest.raises((EvidenceRejected, Malformed)) as caught:
        verify_tdx(*evidence(log), NOW, roots=M.trust.development)
    if isinstance(caught.value, EvidenceRejected):
        assert caught.value.reason == Reason.EVENT_LOG_MISMATCH


@pytest.mark.parametrize(
    "log",
    [
        b"",
        header(signature=b"Spec ID Event02\0"),
        header(algorithms=()),
        header(algorithms=((0xB, 32),)),
        header(algorithms=((ccel.SHA384, 32),)),
        header(algorithms=((ccel.SHA384, 48), (ccel.SHA384, 48))),
        header(algorithms=((ccel.SHA384, 48), (0x77, 16))),
        header() + event(0, b"into MRTD"),
        header() + event(5, b"into RTMR4"),
        header() + struct.pack("<IIIH", 1, 4, 2, ccel.SHA384) + bytes(200),
        header() + struct.pack("<IIIH", 1, 4, 1, 0xB) + bytes(200),
        header() + struct.pack("<IIIH", 1, 4, 1, ccel.SHA384) + bytes(48) + struct.pack("<I", 2**31),
        LOG + b"\0" * 20 + b"\1",
        LOG + b"\xff" * 20 + b"\0",
    ],
)
def test_malformed_logs_are_refused(log: bytes) -> None:
    with pytest.raises(Malformed):
        ccel.replay(ccel.parse_ccel(log))


def test_a_log_has_a_size() -> None:
    with pytest.raises(TooLarge):
        ccel.parse_ccel(bytes(LIMITS.evidence_bytes + 1))
    with pytest.raises(TooLarge):
        ccel.parse_ccel(header() + event(1, b"") * (ccel.MAX_EVENTS + 1))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_whatever_the_bytes_only_our_errors_are_raised(tail: bytes) -> None:
    for raw in (tail, header() + tail, LOG + tail):
        try:
            ccel.replay(ccel.parse_ccel(raw))
        except Error:
            continue


# --- real logs ---------------------------------------------------------------------------------------------------


@NEEDS_VECTORS
@pytest.mark.parametrize("case", LOGGED, ids=lambda case: case.name)
def test_a_real_log_replays_and_names_the_kernels_command_line(case: Path) -> None:
    logged = files(case)
    events = ccel.parse_ccel(logged["ccel.bin"])
    assert ccel.replay(events) == parse_quote(logged["quote.bin"]).td.rtmr
    ccel.check_table(logged["ccel_acpi_table.bin"])
    assert any(e.proven is not None and b"/vmlinuz" in e.proven for e in events)


@NEEDS_VECTORS
@pytest.mark.parametrize("case", LOGGED, ids=lambda case: case.name)
def test_flips_in_a_real_log_are_refused_where_they_are_measured(case: Path) -> None:
    """What a log says beside its digests is not measured; a flip there changes no register, and `proven` tells."""
    logged = files(case)
    rtmr = parse_quote(logged["quote.bin"]).td.rtmr
    raw = logged["ccel.bin"]
    original = ccel.parse_ccel(raw)
    used = len(raw.rstrip(b"\xff").rstrip(b"\0"))
    for bit in random.Random(7).sample(range(8 * used), 2000):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            events = ccel.parse_ccel(bytes(changed))
            ccel.require_replay(events, rtmr)
        except Error:
            continue
        assert [e.digest for e in events if e.type != 3] == [e.digest for e in original if e.type != 3]


@NEEDS_VECTORS
@pytest.mark.parametrize("case", LOGGED, ids=lambda case: case.name)
def test_an_altered_table_is_refused(case: Path) -> None:
    table = files(case)["ccel_acpi_table.bin"]
    for bit in range(8 * len(table)):
        changed = bytearray(table)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Malformed):
            ccel.check_table(bytes(changed))
    for cut in range(len(table)):
        with pytest.raises(Malformed):
            ccel.check_table(table[:cut])


def test_a_table_of_another_kind_of_guest_is_refused() -> None:
    def table(cc_type: int, subtype: int = 0, least: int = 4096, signature: bytes = b"CCEL") -> bytes:
        raw = ccel.TABLE.pack(signature, 56, 1, 0, b"", b"", 0, b"", 0, cc_type, subtype, 0, least, 0)
        return raw[:9] + bytes((-sum(raw) % 256,)) + raw[10:]

    ccel.check_table(table(2))
    for bad in (table(1), table(2, subtype=1), table(2, least=0), table(2, signature=b"TPM2")):
        with pytest.raises(Malformed):
            ccel.check_table(bad)
    quote, stapled = evidence(LOG)
    with pytest.raises(Malformed):
        verify_tdx(quote, stapled | {EVENT_LOG_TABLE: table(1)}, NOW, roots=M.trust.development)


def test_events_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ccel.parse_ccel(LOG)[0].digest = b""  # type: ignore[misc]


def test_showing_evidence_names_its_events() -> None:
    quote, stapled = evidence(LOG)
    shown = dict(show_evidence(Evidence(Platform.TDX, quote, tuple(sorted(stapled.items())))))
    assert shown["event.0"].startswith("rtmr0 EV_SEPARATOR ")
    assert shown["event.0"].endswith(" 'a'")
    assert shown["events.replay_to_the_registers"] == "yes"
    quote, stapled = evidence(LOG + event(1, b"\x1b[31m", digest=bytes(48)))
    shown = dict(show_evidence(Evidence(Platform.TDX, quote, tuple(sorted(stapled.items())))))
    assert shown["events.replay_to_the_registers"] == "no"
    assert shown["event.5"] == "rtmr0 EV_SEPARATOR 0000000000000000"
