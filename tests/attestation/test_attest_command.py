"""`superswarm attest`: what people see, and the exit code that says who must act."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from superswarm.attestation.ear import Appraisal, ear, exit_code
from superswarm.attestation.evidence import Evidence
from superswarm.attestation.reasons import Claim, Fault, Reason
from superswarm.cli import run
from superswarm.commands.attest import parse_time
from superswarm.consortium.manifest import Platform
from superswarm.errors import Misconfigured
from tests.attestation.minting import machine
from tests.attestation.snp_mint import Authority, report, sign
from tests.attestation.vectors import NEEDS_VECTORS, cases

POLICY = """
platforms = ["sev-snp"]
measurements = ["sha384:{measurement}"]

[policy.sev_snp]
chips = "any"
host_data = "any"
id_keys = "any"
author_keys = "any"
crl_maximum_age_days = 400
{changes}

[policy.sev_snp.genoa]
minimum_tcb = {{ bootloader = 1, tee = 0, snp = 1, microcode = 1 }}
minimum_firmware = "1.55.0"
mitigations = 0
"""


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """A folder of minted SNP evidence, with its CRL."""
    authority = Authority()
    key, leaf = authority.endorse()
    folder = tmp_path / "evidence"
    folder.mkdir()
    (folder / "report.bin").write_bytes(sign(report(), key))
    for name, data in authority.endorsements(leaf, authority.crl()).items():
        (folder / name).write_bytes(data)
    return folder


def policy(folder: Path, measurement: str = "11" * 48, changes: str = "") -> str:
    path = folder / "policy.toml"
    path.write_text(POLICY.format(measurement=measurement, changes=changes))
    return str(path)


def test_show_names_every_field(evidence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["attest", "show", str(evidence), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["policy.debug"] == "no"
    assert shown["measurement"] == "11" * 48
    assert shown["reported_tcb"].endswith("(bootloader=10 tee=0 snp=23 microcode=84)")
    assert shown["endorsement_key.product_name"] == "Genoa"
    assert "CRL" in shown["ark.crl.der"]
    assert run(["attest", "show", str(evidence / "report.bin")]) == 0
    assert "report_id_ma" in capsys.readouterr().out


def test_a_development_root_is_refused_as_an_attack(evidence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["attest", "verify", str(evidence), "--policy", policy(evidence.parent), "--at", "2026-03-01"])
    out = capsys.readouterr().out
    assert code == 4
    assert "root-untrusted" in out
    assert "suspect an attack" in out
    assert out.rstrip().endswith("REFUSED: root-untrusted")


def test_simulated_evidence_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evidence.bin"
    path.write_bytes(machine("alice").attest(bytes(64)).to_bytes())
    assert run(["attest", "verify", str(path), "--policy", policy(tmp_path), "--at", "2026-03-01"]) == 4
    assert "protects nothing" in capsys.readouterr().out
    assert run(["attest", "show", str(path)]) == 0


def test_what_is_no_evidence_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    for data in (b"", b"noise", bytes(1184), b"{}", Evidence(Platform.SEV_SNP, b"short").to_bytes()):
        path.write_bytes(data)
        assert run(["attest", "show", str(path)]) == 3
    (tmp_path / "empty").mkdir()
    assert run(["attest", "show", str(tmp_path / "empty")]) == 2


@pytest.mark.parametrize("text", ["", "yesterday", "2026-03-01T12:00:00", "2026-13-01", "1772366400"])
def test_a_time_without_a_zone_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured):
        parse_time(text)


def test_times_are_read_in_their_zone() -> None:
    assert parse_time("2026-03-01") == parse_time("2026-03-01T12:00:00Z") == parse_time("2026-03-01T13:00:00+01:00")


# --- real evidence -----------------------------------------------------------------------------------------------

GENOA = next((case for case in cases("sev-snp") if case.name == "snp-genoa-v3"), Path())
LENIENT = 'smt = "accepted"\nsingle_socket = "any"\nciphertext_hiding = "any"\n'
CODE = "5feee30d6d7e1a29f403d70a4198237ddfb13051a2d6976439487c609388ed7f98189887920ab2fa0096903a0c23fca1"


@NEEDS_VECTORS
def test_real_evidence_is_accepted_by_a_policy_that_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = policy(tmp_path, CODE, LENIENT + 'crl_stale = "accepted"').replace("400", "4000")
    path = Path(chosen)
    path.write_text(path.read_text().replace("= 400", "= 3650"))
    arguments = ["attest", "verify", str(GENOA), "--policy", chosen, "--at", "2026-03-01"]
    assert run(arguments) == 0
    assert capsys.readouterr().out.rstrip().endswith("ACCEPTED")
    assert run([*arguments, "--report-data", "00" * 64]) == 0
    assert run([*arguments, "--report-data", "01" * 64]) == 4
    capsys.readouterr()
    assert run([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["eat_profile"] == "tag:ietf.org,2026:rats/ear#04"
    vector = result["submods"]["cpu"]["ear_trustworthiness_vector"]
    assert vector == {"instance-identity": 2, "configuration": 2, "executables": 3, "hardware": 2}


@NEEDS_VECTORS
def test_real_evidence_that_can_be_mended_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["attest", "verify", str(GENOA), "--policy", policy(tmp_path, CODE, LENIENT), "--at", "2026-03-01"])
    assert code == 5
    assert "collateral fetch" in capsys.readouterr().out


@NEEDS_VECTORS
def test_other_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = policy(tmp_path, "22" * 48, LENIENT)
    assert run(["attest", "verify", str(GENOA), "--policy", chosen, "--at", "2026-03-01"]) == 4
    assert "measurement" in capsys.readouterr().out


@NEEDS_VECTORS
@pytest.mark.parametrize("case", cases("sev-snp", "tdx", "azure-vtpm", "nvidia-gpu"), ids=lambda case: case.name)
def test_every_case_can_be_shown(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["attest", "show", str(case)]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 20


@NEEDS_VECTORS
def test_conformance_ends_with_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["attest", "conformance", str(GENOA)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "2 of 2 judgements in 1 cases come out"


def test_conformance_fails_when_a_case_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "case.json").write_text("{}")
    assert run(["attest", "conformance", str(tmp_path)]) == 4
    assert "0 of 1" in capsys.readouterr().out


# --- EAR ---------------------------------------------------------------------------------------------------------


def test_a_failed_signature_leaves_nothing_affirmed() -> None:
    part = Appraisal("cpu", (Fault(Reason.SIGNATURE_INVALID, ""),))
    assert part.vector == {Claim.INSTANCE: 99, Claim.CONFIGURATION: 0, Claim.EXECUTABLES: 0, Claim.HARDWARE: 0}
    assert part.status == "contraindicated"


def test_the_worst_fault_of_a_claim_counts() -> None:
    part = Appraisal("cpu", (Fault(Reason.TCB_FLOOR, ""), Fault(Reason.PRODUCT_NOT_ACCEPTED, "")))
    assert part.vector[Claim.HARDWARE] == 96
    assert Appraisal("cpu", part.faults[:1]).status == "warning"
    assert Appraisal("cpu").status == "affirming"
    assert Appraisal("cpu", judged=False).status == "none"


def test_the_whole_is_as_good_as_its_worst_part() -> None:
    good, bad = Appraisal("cpu"), Appraisal("gpu0", (Fault(Reason.RIM_MISSING, "no RIM"),))
    result = ear([good, bad], 1)
    assert result["ear_status"] == "warning"
    assert set(result["submods"]) == {"cpu", "gpu0"}
    assert exit_code([good]) == 0
    assert exit_code([good, bad]) == 5
    assert exit_code([bad, Appraisal("cpu", (Fault(Reason.BINDING, ""),))]) == 4
