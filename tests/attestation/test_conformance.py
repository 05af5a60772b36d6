"""The conformance runner: it accepts only what comes out, and no fault of a case passes for a refusal."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from superswarm.attestation import conformance
from superswarm.attestation.conformance import run
from superswarm.errors import Misconfigured
from tests.attestation.vectors import NEEDS_VECTORS, cases


@NEEDS_VECTORS
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_real_evidence_comes_out(case: Path) -> None:
    lines = list(run(case))
    assert lines
    assert [str(line) for line in lines if not line.holds] == []


@NEEDS_VECTORS
@pytest.mark.parametrize(
    ("name", "milliseconds"),
    [("snp-genoa-v3", 10), ("snp-turin-v5", 10), ("tdx-v5-uptodate", 10), ("vtpm-azure-snp-milan-v2", 20)],
)
def test_evidence_is_judged_quickly(name: str, milliseconds: int) -> None:
    """The quickest of several runs, so that a busy machine fails no test."""
    case = Path(os.environ["SUPERSWARM_VECTORS"]) / name
    if not case.is_dir():
        pytest.skip(f"no case {name}")
    list(run(case))
    took = []
    for _ in range(5):
        begin = time.process_time()
        judgements = len(list(run(case)))
        took.append((time.process_time() - begin) / judgements * 1000)
    assert min(took) < milliseconds


# --- faulty cases ------------------------------------------------------------------------------------------------


def write(folder: Path, **changes: Any) -> Path:
    """A case whose evidence is one byte, and so malformed."""
    case = folder / "case"
    case.mkdir()
    (case / "report.bin").write_bytes(b"x")
    document: dict[str, Any] = {
        "kind": "sev-snp",
        "verify_at": "2026-03-01",
        "files": {"report.bin": hashlib.sha256(b"x").hexdigest()},
        "judge": [{"consent": [], "verdict": "reject", "reason": "malformed"}],
        "note": "fields for people are not read",
    }
    (case / "case.json").write_text(json.dumps(document | changes))
    return folder


def test_a_refusal_for_the_stated_reason_holds(tmp_path: Path) -> None:
    (line,) = run(write(tmp_path))
    assert line.holds
    assert str(line) == "ok   case (consent: none): reject malformed"


def test_a_refusal_for_another_reason_does_not(tmp_path: Path) -> None:
    (line,) = run(write(tmp_path, judge=[{"consent": [], "verdict": "reject", "reason": "debug"}]))
    assert not line.holds
    assert "refused for malformed" in str(line)


def test_an_acceptance_that_is_refused_does_not(tmp_path: Path) -> None:
    (line,) = run(write(tmp_path, judge=[{"consent": [], "verdict": "accept"}]))
    assert not line.holds


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "crystal-ball"},
        {"judge": []},
        {"judge": [{"consent": ["all:any"], "verdict": "reject"}]},
        {"judge": [{"consent": [], "verdict": "maybe"}]},
        {"judge": [{"consent": [], "verdict": "reject", "hint": 1}]},
        {"judge": [{"consent": [], "verdict": "reject", "files": ["other.bin"]}]},
        {"files": {"report.bin": "00" * 32}},
        {"files": {"../case.json": "00" * 32}},
        {"files": {}},
        {"verify_at": "someday"},
    ],
)
def test_a_case_at_fault_never_holds(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Even where a refusal is wanted without a reason: nothing was judged."""
    wanted = [{"consent": [], "verdict": "reject"}]
    lines = list(run(write(tmp_path, **{"judge": wanted, **changes})))
    assert [line.holds for line in lines] == [False]
    assert "cannot be judged" in str(lines[0])


def test_a_folder_without_cases_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured):
        list(run(tmp_path))


def test_the_time_is_noon_utc() -> None:
    case = conformance.Case.model_validate(
        {
            "kind": "tdx",
            "verify_at": "2026-03-01",
            "files": {"a": "b"},
            "judge": [{"consent": [], "verdict": "accept"}],
        }
    )
    assert case.at == 1_772_366_400
