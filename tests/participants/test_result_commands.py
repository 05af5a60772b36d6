"""`superswarm result`: what a member sees, and what it is protected from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from superswarm import cli
from superswarm.io.keystore import MemberKeys, save_keys
from superswarm.io.results import ResultFolder
from superswarm.updates.card import CARD, CONFIG, WEIGHTS
from superswarm.updates.publish import publish
from tests import consortia

PASSPHRASE = "correct horse battery staple"
SIGNER = consortia.signing_key("aggregator session")
MANIFEST = consortia.approved(result={"recipients": ["alice"]})
RESULT = publish(
    {"w": np.ones(8, np.float32)},
    manifest=MANIFEST,
    job=MANIFEST.manifest.jobs[0],
    run="run-1",
    rounds=2,
    signer=SIGNER,
)


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("keys")
    for name in ("alice", "carol"):
        keys = replace(MemberKeys.generate(name), signing=consortia.signing_key(name), kem=consortia.kem_key(name))
        save_keys(made / f"{name}.keys", keys, PASSPHRASE)
    return made


@pytest.fixture
def folder(tmp_path: Path, key_files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's folder as the current one: keys of alice and carol, and one result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUPERSWARM_PASSPHRASE", PASSPHRASE)
    for file in key_files.iterdir():
        shutil.copy(file, tmp_path)
    results = ResultFolder(tmp_path / "results")
    results.store("run-1", RESULT, SIGNER.public)
    stored = results.results()[0][0].path
    stored.rename(stored.with_name("r.result"))
    stored.with_suffix(".signer").rename(stored.with_name("r.signer"))
    return tmp_path


def run(*args: str) -> int:
    return cli.run(["result", *args])


def test_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "results" / "junk.result").write_bytes(b"junk")
    assert run("list") == 0
    shown = capsys.readouterr()
    assert "run-1" in shown.out
    assert "alice" in shown.out
    assert MANIFEST.digest.short in shown.out
    assert "junk.result" in shown.err
    assert run("list", "--json") == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["run"], line["rounds"], line["bytes"]) == ("run-1", 2, len(RESULT))
    assert (line["manifest"], line["recipients"]) == (str(MANIFEST.digest), ["alice"])


def test_a_folder_that_is_none(folder: Path) -> None:
    assert run("list", "elsewhere") == 2


def test_open(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("open", "results/r.result", "--keys", "alice.keys", "--out", "adapter") == 0
    assert sorted(path.name for path in Path("adapter").iterdir()) == sorted([CARD, CONFIG, WEIGHTS])
    assert "PeftModel" in capsys.readouterr().out
    assert run("open", "results/r.result", "--keys", "alice.keys", "--out", "adapter") == 2


def test_open_as_somebody_else(folder: Path) -> None:
    assert run("open", "results/r.result", "--keys", "carol.keys", "--out", "adapter") == 4
    assert not Path("adapter").exists()


def test_a_signer_that_nobody_vouched_for_needs_a_word(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An operator hands over a file by mail: no node recorded who signed it."""
    Path("mailed.result").write_bytes(RESULT)
    arguments = ["open", "mailed.result", "--keys", "alice.keys", "--out", "adapter"]
    assert run(*arguments) == 2
    assert not Path("adapter").exists()
    assert run(*arguments, "--signer", "results/r.signer") == 0
    assert run(*arguments[:-1], "second", "--any-signer") == 0
    assert "nobody vouched" in capsys.readouterr().err


def test_another_signer_than_the_vouched_one_is_refused(folder: Path) -> None:
    Path("other.signer").write_text(f"{consortia.public_key('another session')}\n")
    for arguments in (["--signer", "other.signer"], ["--signer", "other.signer", "--any-signer"]):
        code = run("open", "results/r.result", "--keys", "alice.keys", "--out", "adapter", *arguments)
        assert code == (2 if "--any-signer" in arguments else 4)
    assert not Path("adapter").exists()


def test_a_result_that_is_not_there_is_said_to_be_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("open", "results/none-*.result", "--keys", "alice.keys", "--out", "adapter") == 2
    assert "results/none-*.result is not there" in capsys.readouterr().err
