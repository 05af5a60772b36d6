"""Alter real evidence: a flip in what is signed is refused, and whatever the bytes, only our errors are raised.

Sampled here (2,000 flips for each accepted case); `make fuzz` sets SUPERSWARM_FUZZ and goes through every bit.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from superswarm.attestation import conformance
from superswarm.attestation.snp.report import parse_report
from superswarm.errors import Malformed
from tests.attestation.vectors import NEEDS_VECTORS, accepted, cases, files

FLIPS = 2000
EXHAUSTIVE = bool(os.environ.get("SUPERSWARM_FUZZ"))
SNP = [case for case in cases("sev-snp") if accepted(case) is not None]
VTPM = [case for case in cases("azure-vtpm") if accepted(case) is not None]


def bits(size: int, share: float = 1.0) -> list[int]:
    """Which bits to flip: all, or a sample that depends on the size alone."""
    everything = range(size * 8)
    wanted = int(FLIPS * share)
    if EXHAUSTIVE or wanted >= len(everything):
        return list(everything)
    return random.Random(size).sample(everything, wanted)


def flip(data: bytes, bit: int) -> bytes:
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


def judged(case: Path, changed: dict[str, bytes]) -> bool:
    """Whether altered evidence is accepted; anything but an answer of ours fails the test."""
    loaded = json.loads((case / "case.json").read_text())
    at = conformance.Case.model_validate(loaded).at
    return conformance.outcome(loaded["kind"], changed, accepted(case) or (), at).accepted


@NEEDS_VECTORS
@pytest.mark.parametrize("case", SNP, ids=lambda case: case.name)
def test_every_flip_in_an_snp_report_is_refused(case: Path) -> None:
    """All 1,184 bytes count: 672 are signed, the signature is a signature, the rest must be zero."""
    given = files(case)
    report = given["report.bin"]
    passed = [bit for bit in bits(len(report)) if judged(case, {**given, "report.bin": flip(report, bit)})]
    assert passed == []


@NEEDS_VECTORS
@pytest.mark.parametrize("case", SNP, ids=lambda case: case.name)
def test_every_flip_in_an_snp_certificate_or_crl_is_refused(case: Path) -> None:
    given = files(case)
    for name in sorted(given.keys() - {"report.bin"}):
        passed = [bit for bit in bits(len(given[name]), 0.1) if judged(case, {**given, name: flip(given[name], bit)})]
        assert passed == [], name


@NEEDS_VECTORS
@pytest.mark.parametrize("case", SNP, ids=lambda case: case.name)
def test_snp_evidence_cut_or_lengthened_is_refused(case: Path) -> None:
    given = files(case)
    for name, data in given.items():
        cuts = range(len(data)) if name == "report.bin" or EXHAUSTIVE else range(0, len(data), 97)
        for size in cuts:
            assert not judged(case, {**given, name: data[:size]}), (name, size)
        for extra in (1, 2, 64, 1184, 4096):
            assert not judged(case, {**given, name: data + bytes(extra)}), (name, extra)
            assert not judged(case, {**given, name: data + data[:extra]}), (name, extra)


# --- vTPM: the JSON around it is not signed, what it carries is ---------------------------------------------------


def carried(document: dict[str, object]) -> dict[str, tuple[bytes, Callable[[bytes], dict[str, object]]]]:
    """The signed parts of a vTPM document, and how to put an altered one back."""
    quote = document["tpm_quote"]
    assert isinstance(quote, dict)

    def in_quote(name: str) -> Callable[[bytes], dict[str, object]]:
        return lambda data: {**document, "tpm_quote": {**quote, name: data.hex()}}

    def outside(name: str) -> Callable[[bytes], dict[str, object]]:
        return lambda data: {**document, name: base64.urlsafe_b64encode(data).decode()}

    return {
        **{name: (bytes.fromhex(quote[name]), in_quote(name)) for name in ("message", "signature")},
        **{name: (base64.urlsafe_b64decode(document[name] + "=="), outside(name)) for name in ("hcl_report", "vcek")},
    }


@NEEDS_VECTORS
@pytest.mark.parametrize("case", VTPM, ids=lambda case: case.name)
def test_every_flip_in_what_a_vtpm_document_carries_is_refused(case: Path) -> None:
    given = files(case)
    for name, (data, put_back) in carried(json.loads(given["evidence.json"])).items():
        passed = []
        for bit in bits(len(data), 0.25):
            altered = json.dumps(put_back(flip(data, bit))).encode()
            if judged(case, {**given, "evidence.json": altered}):
                passed.append(bit)
        if name == "hcl_report":  # version 1 or 2, the one field of the paravisor's header that has two values
            passed = [bit for bit in passed if bit // 8 != 4]
        assert passed == [], name


@NEEDS_VECTORS
@pytest.mark.parametrize("case", VTPM, ids=lambda case: case.name)
def test_flips_in_a_vtpm_document_raise_only_our_errors(case: Path) -> None:
    given = files(case)
    document = given["evidence.json"]
    for bit in bits(len(document)):
        judged(case, {**given, "evidence.json": flip(document, bit)})
    for size in range(0, len(document.rstrip()), 1 if EXHAUSTIVE else 53):
        assert not judged(case, {**given, "evidence.json": document[:size]})


@NEEDS_VECTORS
@pytest.mark.parametrize("case", cases("sev-snp", "azure-vtpm"), ids=lambda case: case.name)
def test_random_bytes_in_place_of_a_file_raise_only_our_errors(case: Path) -> None:
    given = files(case)
    chance = random.Random(case.name)
    for name in given:
        for size in (0, 1, 3, 64, 1184, 2600):
            assert not judged(case, {**given, name: chance.randbytes(size)})


def test_random_reports_raise_only_our_errors() -> None:
    chance = random.Random(0)
    for _ in range(2000):
        data = bytearray(chance.randbytes(0x4A0))
        data[:4] = chance.randrange(7).to_bytes(4, "little")
        with contextlib.suppress(Malformed):
            parse_report(bytes(data))
