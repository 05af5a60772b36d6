"""Real evidence of NVIDIA's devices: every judgement comes out, no altered bit passes, and it is fast.

Sampled here (2,000 flips for each file of each accepted case); with SUPERSWARM_FUZZ set, every bit of every binary
file and 20,000 of each XML document.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree
from vectors import NEEDS_VECTORS, accepted, cases, files

from superswarm.attestation import baseline, conformance
from superswarm.attestation.nvidia.binding import appraise_device
from superswarm.attestation.nvidia.chain import Chain, parse_pem_chain
from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.attestation.nvidia.rim import find_signature, signer_chain, verify_rim
from superswarm.attestation.nvidia.spdm import parse_report
from superswarm.attestation.nvidia.verify import verify_device
from superswarm.attestation.nvidia.xml import parse_xml
from superswarm.errors import EvidenceRejected, Malformed

EXHAUSTIVE = bool(os.environ.get("SUPERSWARM_FUZZ"))
DEVICES = [case for case in cases("nvidia-gpu") if accepted(case) is not None]
MANIFESTS = ("rim.xml", "vbios_rim.swidtag")
SIGNED = [
    (case, name)
    for case in cases("nvidia-gpu", "nvidia-rim")
    if accepted(case) is not None
    for name in MANIFESTS
    if (case / name).exists()
]


def bits(size: int, most: int) -> list[int]:
    """Which bits to flip: all or `most`, drawn by the size alone."""
    everything = range(size * 8)
    return list(everything) if most >= len(everything) else random.Random(size).sample(everything, most)


def flip(data: bytes, bit: int) -> bytes:
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


def at(case: Path) -> int:
    return conformance.Case.model_validate(json.loads((case / "case.json").read_text())).at


def passes(call: Callable[[], object]) -> bool:
    """Whether it is accepted; anything but an answer of ours fails the test."""
    try:
        call()
    except (EvidenceRejected, Malformed):
        return False
    return True


@NEEDS_VECTORS
@pytest.mark.parametrize("case", cases("nvidia-gpu", "nvidia-rim"), ids=lambda case: case.name)
def test_every_judgement_comes_out(case: Path) -> None:
    lines = list(conformance.judge_case(case))
    assert lines
    assert [str(line) for line in lines if not line.holds] == []


@NEEDS_VECTORS
@pytest.mark.parametrize("case", DEVICES, ids=lambda case: case.name)
def test_every_flip_in_a_report_is_refused(case: Path) -> None:
    """All but the signature is signed, and the signature has no loose bits."""
    given, now = files(case), at(case)
    report, chain = given["report.bin"], given["chain.pem"]
    assert passes(lambda: verify_device(report, chain, at=now))
    sample = bits(len(report), 10**9 if EXHAUSTIVE else 2000)
    assert [bit for bit in sample if passes(lambda: verify_device(flip(report, bit), chain, at=now))] == []  # noqa: B023


@NEEDS_VECTORS
@pytest.mark.parametrize("case", DEVICES, ids=lambda case: case.name)
def test_every_flip_in_a_chain_is_refused(case: Path) -> None:
    """White space between base64 lines may become other white space: the certificates then stay the same."""
    given, now = files(case), at(case)
    report, chain = given["report.bin"], given["chain.pem"]
    known = raw(parse_pem_chain(chain))
    for bit in bits(len(chain), 10**9 if EXHAUSTIVE else 2000):
        altered = flip(chain, bit)
        if passes(lambda: verify_device(report, altered, at=now)):  # noqa: B023
            assert raw(parse_pem_chain(altered)) == known


@NEEDS_VECTORS
@pytest.mark.parametrize(("case", "name"), SIGNED, ids=lambda value: getattr(value, "name", value))
def test_every_flip_in_a_manifest_is_refused(case: Path, name: str) -> None:
    """Only what canonical XML drops, and white space around unsigned base64, may change."""
    document, now = (case / name).read_bytes(), at(case)
    manifest, known = verify_rim(document, at=now).manifest, signed_content(document)
    for bit in bits(len(document), 20_000 if EXHAUSTIVE else 2000):
        altered = flip(document, bit)
        if passes(lambda: verify_rim(altered, at=now)):  # noqa: B023
            assert signed_content(altered) == known
            assert verify_rim(altered, at=now).manifest == manifest


@NEEDS_VECTORS
@pytest.mark.parametrize("case", DEVICES, ids=lambda case: case.name)
def test_reports_and_chains_cut_or_lengthened_are_refused(case: Path) -> None:
    given, now = files(case), at(case)
    report, chain = given["report.bin"], given["chain.pem"]
    tail = random.Random(case.name).randbytes(4096)
    for size in range(len(report)):
        assert not passes(lambda: parse_report(report[:size]))  # noqa: B023
    for size in range(1, 4097):
        assert not passes(lambda: parse_report(report + tail[:size]))  # noqa: B023
        assert not passes(lambda: parse_report(report + bytes(size)))  # noqa: B023
    for size in range(0, len(chain) - 2, 1 if EXHAUSTIVE else 41):
        assert not passes(lambda: verify_device(report, chain[:size], at=now))  # noqa: B023
    for size in range(1, 4097, 1 if EXHAUSTIVE else 61):
        assert not passes(lambda: verify_device(report, chain + b"x" + tail[:size], at=now))  # noqa: B023
        assert not passes(lambda: verify_device(report, chain + chain[:size], at=now))  # noqa: B023


@NEEDS_VECTORS
@pytest.mark.parametrize(("case", "name"), SIGNED, ids=lambda value: getattr(value, "name", value))
def test_manifests_cut_or_lengthened_are_refused(case: Path, name: str) -> None:
    document, now = (case / name).read_bytes().rstrip(), at(case)
    tail = random.Random(case.name).randbytes(4096)
    for size in range(0, len(document), 1 if EXHAUSTIVE else 101):
        assert not passes(lambda: verify_rim(document[:size], at=now))  # noqa: B023
    for size in range(1, 4097, 1 if EXHAUSTIVE else 61):
        assert not passes(lambda: verify_rim(document + b"x" + tail[:size], at=now))  # noqa: B023
        assert not passes(lambda: verify_rim(document + document[:size], at=now))  # noqa: B023


@NEEDS_VECTORS
def test_a_gpu_with_a_manifest_is_judged_in_time() -> None:
    """The budget is 50 ms. Tests run beside others, so processor time counts, and the best of several runs."""
    for case in DEVICES:
        consents = baseline.check_consents(accepted(case) or ())
        given = {name: data for name, data in files(case).items() if "mismatch" not in name}
        evidence, now = DeviceEvidence.from_files(given), at(case)
        nonce, policy = parse_report(evidence.report).nonce, baseline.nvidia_policy(consents)
        best = min(measure(lambda: appraise_device(evidence, nonce, policy, at=now)) for _ in range(7))  # noqa: B023
        assert best < 0.05


def measure(call: Callable[[], object]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def raw(chain: Chain) -> list[bytes]:
    return [certificate.raw.public_bytes(Encoding.DER) for certificate in chain]


def signed_content(document: bytes) -> tuple[object, ...]:
    """All of a manifest that a signature covers: its canonical body and SignedInfo, and the certificates."""
    root = parse_xml(document)
    signature = find_signature(root)
    info, value = etree.tostring(signature[0], method="c14n"), "".join((signature[1].text or "").split())
    chain = raw(signer_chain(signature))
    root.remove(signature)
    return etree.tostring(root, method="c14n", with_comments=False), info, value, chain
