"""Alter real TDX evidence: what is signed is refused, and whatever the bytes, only our errors are raised.

Sampled here (2,000 flips for each quote, 500 for its collateral); with SUPERSWARM_FUZZ set, every bit.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minting import DAYS, NOW, flip, machine
from vectors import NEEDS_VECTORS, accepted, cases, files

from superswarm.attestation import conformance
from superswarm.attestation import simulated_pki as pki
from superswarm.attestation.tdx.cases import endorsements
from superswarm.attestation.tdx.quote import parse_quote
from superswarm.attestation.tdx.verify import verify_tdx
from superswarm.errors import Error, Malformed

EXHAUSTIVE = bool(os.environ.get("SUPERSWARM_FUZZ"))
FLIPS = 2000
CASES = [case for case in cases("tdx") if accepted(case) is not None]
M = machine("alice")
QUOTE = M.evidence().quote


def sample(size: int, wanted: int) -> list[int]:
    """Bits to flip: all of them, or a sample that depends on the size alone."""
    every = range(8 * size)
    return list(every) if EXHAUSTIVE or wanted >= len(every) else random.Random(size).sample(every, wanted)


def verifies(case: Path, quote: bytes, stapled: dict[str, bytes]) -> bool:
    """Whether altered evidence verifies; any error but ours fails the test."""
    at = conformance.Case.model_validate(json.loads((case / "case.json").read_text())).at
    try:
        verify_tdx(quote, stapled, at)
    except Error:
        return False
    return True


def visible(data: bytes) -> list[bytes]:
    """Without what PEM ignores: white space, and the zero byte that ends some quotes."""
    return data.removesuffix(b"\0").split()


@NEEDS_VECTORS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_flips_in_a_quote_are_refused(case: Path) -> None:
    """All of a quote counts, except the white space around its PEM certificates."""
    raw = files(case)["quote.bin"]
    stapled = endorsements(files(case))
    for bit in sample(len(raw), FLIPS):
        altered = flip(raw, bit)
        if verifies(case, altered, stapled):
            assert visible(altered) == visible(raw), bit


@NEEDS_VECTORS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_flips_in_collateral_are_refused(case: Path) -> None:
    """So does all of the collateral; its event log has a test of its own."""
    raw = files(case)["quote.bin"]
    stapled = {name: data for name, data in endorsements(files(case)).items() if not name.startswith("ccel")}
    total = sum(map(len, stapled.values()))
    for name, data in stapled.items():
        for bit in sample(len(data), max(25, FLIPS * len(data) // total // 4)):
            altered = flip(data, bit)
            if verifies(case, raw, stapled | {name: altered}):
                assert visible(altered) == visible(data), (name, bit)


@NEEDS_VECTORS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cut_and_lengthened_evidence_is_refused(case: Path) -> None:
    """Evidence has exact lengths; `without_padding` is for whoever reads a service's buffer."""
    raw = files(case)["quote.bin"]
    stapled = endorsements(files(case))
    for size in range(len(raw)):
        if raw[size:] != b"\0":  # the zero byte that some quotes end their PEM with
            assert not verifies(case, raw[:size], stapled), size
    for extra in (1, 2, 48, 584, 4096):
        assert not verifies(case, raw + bytes(extra), stapled)
        assert not verifies(case, raw + raw[:extra], stapled)
    for name, data in stapled.items():
        for size in range(0, len(data), 1 if EXHAUSTIVE else 211):
            if data[size:].strip():
                assert name.startswith("ccel") or not verifies(case, raw, stapled | {name: data[:size]}), (name, size)


@NEEDS_VECTORS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_random_bytes_in_place_of_a_part_are_refused(case: Path) -> None:
    raw = files(case)["quote.bin"]
    stapled = endorsements(files(case))
    chance = random.Random(case.name)
    for size in (0, 1, 3, 64, 1184, 5000):
        assert not verifies(case, chance.randbytes(size), stapled)
        for name in stapled:
            assert not verifies(case, raw, stapled | {name: chance.randbytes(size)})


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(QUOTE)), st.integers(0, 300))
def test_whatever_the_bytes_parsing_raises_only_our_errors(patch: bytes, at: int, dropped: int) -> None:
    """Grammar: a genuine quote with a piece replaced by another of any length."""
    for raw in (patch, QUOTE[:at] + patch + QUOTE[at + dropped :]):
        try:
            parse_quote(raw)
        except Malformed:
            continue


# --- what a development authority may sign: any member is one -------------------------------------------------------

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    256,
    65_536,
    2**32,
    2**64,
    1.5,
    "",
    "x",
    "00" * 6,
    "F" * 96,
    "\x1b[31m",
)
VALUES += ([], [1], {}, {"a": 1}, "Revoked", "OutOfDate", "2016-12-31T23:59:60Z", "0000-01-01T00:00:00Z")
ODD_DATES = ("2026-11-22t10:00:00z", "2016-12-31T23:59:60Z", "2026-11-22T11:00:00.123456789Z", "2026-11-22 11:00:00Z")


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = document.items() if isinstance(document, dict) else enumerate(document[:3])
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    copied = json.loads(json.dumps(document))
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copied


def judged(name: str, text: str) -> None:
    """Verify evidence whose TCB document its authority signed as it is."""
    with contextlib.suppress(Error):
        M.verify(M.evidence(endorsements=M.endorse(**{name: text}), mr_service_td=bytes(48)))


@pytest.mark.parametrize("name", ["tcb_info", "qe_identity"])
def test_signed_documents_raise_only_our_errors(name: str) -> None:
    make = {"tcb_info": pki.tcb_info, "qe_identity": pki.qe_identity}[name]
    document = json.loads(make(at=NOW, days=DAYS))
    for date in ODD_DATES:
        judged(name, json.dumps(changed(document, ("issueDate",), date)))
    chance = random.Random(name)
    every = [(path, value) for path in places(document) for value in VALUES]
    for path, value in every if EXHAUSTIVE else chance.sample(every, 300):
        judged(name, json.dumps(changed(document, path, value)))
    for depth in (100, 200, 5000):
        judged(name, '{"x":' + "[" * depth + "]" * depth + "}")
