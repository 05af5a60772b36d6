"""SEV-SNP against an independent verifier, where one is installed: same fields, same verdicts.

The verifier is @tinfoilsh/verifier 1.1.0 (npm; TypeScript; Genoa, VCEK, reports of version 2 and 3, the machine's own
clock). SUPERSWARM_SNP_VERIFIER names its folder, node_modules/@tinfoilsh/verifier.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from superswarm.attestation.snp.chain import verify_snp
from superswarm.attestation.snp.report import parse_report
from superswarm.errors import Error
from tests.attestation.vectors import ROOT, files

VERIFIER = os.environ.get("SUPERSWARM_SNP_VERIFIER")
GENOA = Path(ROOT or "") / "snp-genoa-v3"
needs_verifier = pytest.mark.skipif(
    not (VERIFIER and shutil.which("node") and ROOT and GENOA.is_dir()),
    reason="SUPERSWARM_SNP_VERIFIER, SUPERSWARM_VECTORS or node is missing",
)


def theirs(reports: list[bytes]) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("differential.mjs")
    run = subprocess.run(
        ["node", script, VERIFIER or "", GENOA / "leaf.der"],
        input="\n".join(report.hex() for report in reports),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in run.stdout.splitlines()]


def accepts(report: bytes, given: dict[str, bytes]) -> bool:
    try:
        verify_snp(report, given, int(time.time()))
    except Error:
        return False
    return True


@needs_verifier
def test_fields_are_read_alike() -> None:
    report = files(GENOA)["report.bin"]
    (answer,) = theirs([report])
    assert answer["ok"], answer
    ours = parse_report(report)
    assert answer["fields"] == {
        "version": ours.version,
        "policy": ours.policy.raw,
        "vmpl": ours.vmpl,
        "report_data": ours.report_data.hex(),
        "measurement": ours.measurement.hex(),
        "host_data": ours.host_data.hex(),
        "id_key_digest": ours.id_key_digest.hex(),
        "report_id": ours.report_id.hex(),
        "chip_id": ours.chip_id.hex(),
        "current_tcb": str(ours.current_tcb),
        "reported_tcb": str(ours.reported_tcb),
        "committed_tcb": str(ours.committed_tcb),
        "launch_tcb": str(ours.launch_tcb),
        "platform_info": ours.platform_info.raw,
    }


@needs_verifier
def test_verdicts_agree_on_altered_reports() -> None:
    given = files(GENOA)
    report = given["report.bin"]
    chance = random.Random(7)
    altered = [report]
    for bit in chance.sample(range(len(report) * 8), 2000):
        changed = bytearray(report)
        changed[bit // 8] ^= 1 << bit % 8
        altered.append(bytes(changed))
    answers = theirs(altered)
    ours = [accepts(data, given) for data in altered]
    assert ours == [True] + [False] * 2000
    for data, answer in zip(altered[1:], answers[1:], strict=True):
        # Where they differ: it drops the upper 24 of the 72 bytes of r and s, which are outside of P-384. Here they
        # count, so such a report has a signature that is out of range.
        assert not answer["ok"] or differs_only_in_padding(report, data)


def differs_only_in_padding(report: bytes, altered: bytes) -> bool:
    at = next(index for index in range(len(report)) if report[index] != altered[index])
    return 0x2A0 + 48 <= at < 0x2A0 + 72 or 0x2E8 + 48 <= at < 0x2E8 + 72
