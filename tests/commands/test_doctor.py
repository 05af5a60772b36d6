"""`superswarm doctor`: what it says of a program's machine, manifest, code, base model and data."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from superswarm import cli
from superswarm.attestation.measure import measure_packages
from superswarm.commands import consortium_checks as checks
from superswarm.commands import doctor
from superswarm.consortium.approval import chain_to_bytes
from superswarm.consortium.manifest import Manifest
from superswarm.io import machine
from superswarm.io.example import example
from superswarm.io.machine import Finding, Level
from superswarm.values import Digest
from tests import consortia


def levels(findings: object) -> list[tuple[str, Level]]:
    return [(finding.check, finding.level) for finding in findings]  # type: ignore[attr-defined]


def written(folder: Path, manifest: Manifest, **signing: Any) -> Path:
    path = folder / "manifest.json"
    path.write_bytes(chain_to_bytes([consortia.sign_all(manifest, **signing)]))
    return path


def test_an_approved_manifest(tmp_path: Path) -> None:
    path = written(tmp_path, consortia.manifest())
    found = checks.read_manifest(path, None)
    assert not isinstance(found, Finding)
    assert levels(checks.check_manifest(found, str(found.digest), "alice", tmp_path)) == [
        ("manifest", Level.OK),
        ("tee", Level.WARNING),  # it is simulated
    ]
    assert ("manifest", Level.WARNING) in levels(checks.check_manifest(found, None, None, tmp_path))
    assert ("manifest", Level.PROBLEM) in levels(checks.check_manifest(found, None, "mallory", tmp_path))


def test_a_manifest_that_nobody_should_run(tmp_path: Path) -> None:
    half = written(tmp_path, consortia.manifest(), by=["alice"])
    assert isinstance(checks.read_manifest(half, None), Finding)
    whole = written(tmp_path, consortia.manifest())
    assert isinstance(checks.read_manifest(whole, str(Digest.of(b"another"))), Finding)
    whole.write_text("{}")
    assert isinstance(checks.read_manifest(whole, None), Finding)
    assert isinstance(checks.read_manifest(tmp_path / "absent", None), Finding)


@pytest.mark.parametrize(
    ("code", "credentials", "expected"),
    [
        ("mine", True, [("code", Level.OK)]),
        ("other", True, [("code", Level.PROBLEM)]),
        ("mine", False, [("tee", Level.PROBLEM), ("code", Level.OK)]),
    ],
)
def test_the_code_is_compared_with_the_manifest(
    code: str, credentials: bool, expected: list[tuple[str, Level]], tmp_path: Path
) -> None:
    measured = str(measure_packages()) if code == "mine" else consortia.measurement("other")
    workload = {"platforms": ["simulated"], "measurements": [measured]}
    manifest = consortia.approved(workloads={"trainer": workload, "aggregator": workload})
    approved = manifest.manifest.workloads.trainer
    found = checks.check_code(manifest, "trainer", approved, tmp_path if credentials else None)
    assert levels(found) == expected


def test_the_base_model(tmp_path: Path) -> None:
    assert checks.check_model("owner/name").level is Level.WARNING
    assert checks.check_model(str(tmp_path / "absent")).level is Level.PROBLEM
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(2048))
    assert checks.check_model(str(tmp_path)).level is Level.OK
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    unsafe = checks.check_model(str(tmp_path))
    assert (unsafe.level, "pytorch_model.bin" in unsafe.what) == (Level.PROBLEM, True)


@pytest.mark.parametrize(
    ("content", "level"),
    [
        ('{"prompt": "a", "completion": "b"}\n', Level.OK),
        ("", Level.PROBLEM),
        ('{"prompt": "the patient is called Canary"}\n', Level.PROBLEM),
        ("not JSON: Canary\n", Level.PROBLEM),
    ],
)
def test_the_data(content: str, level: Level, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(content)
    finding = checks.check_data("train", path)
    assert finding.level is level
    assert "Canary" not in finding.what + finding.do


def test_simulated_credentials_under_a_real_manifest(tmp_path: Path) -> None:
    entries = [consortia.member(name, "data", simulated=False) for name in ("alice", "bob")]
    manifest = consortia.approved(*entries, attestation="real")
    found = levels(checks.check_manifest(manifest, None, None, tmp_path))
    assert ("tee", Level.PROBLEM) in found
    assert list(checks.check_code(manifest, "trainer", manifest.manifest.workloads.trainer, None)) == []


def test_doctor_ends_with_5_where_something_must_be_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "check_versions", lambda _extra: [])
    path = tmp_path / "trainer.toml"
    text = example(doctor.MODELS[doctor.Program.TRAINER], "trainer").replace("# model =", "model =")
    path.write_text(text + 'asset = ["base=no.such.file"]\n')
    assert cli.run(["doctor", "--program", "trainer", "--config", str(path), "--json"]) == 5
    findings = {(one["check"], one["level"]): one for one in json.loads(capsys.readouterr().out)}
    assert findings["files", "problem"]["do"]
    assert findings["model", "problem"]["do"]
    assert findings["asset", "problem"]["do"]
    assert findings["relay", "problem"]["do"]


@pytest.mark.parametrize("program", list(doctor.Program))
def test_doctor_explains_a_missing_configuration(
    program: doctor.Program, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.run(["doctor", "--program", program, "--config", str(tmp_path / "absent.toml")]) == 5
    assert f"superswarm {program} config" in capsys.readouterr().out


def test_doctor_without_a_program_is_content_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "check_disk", lambda name, folder: machine.good("disk", f"{name} {folder}"))
    monkeypatch.setattr(machine, "check_versions", lambda _extra: [])
    assert cli.run(["doctor"]) == 0
    assert " 0 to fix" in " " + capsys.readouterr().out.splitlines()[-1]


def test_an_operator_s_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "check_versions", lambda _extra: [])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "relay.toml").write_text(f'port = {port}\nhttp = "off"\n')
        assert cli.run(["doctor", "--program", "coordinator", "--config", str(tmp_path / "relay.toml")]) == 5
    assert f"127.0.0.1:{port}" in capsys.readouterr().out
