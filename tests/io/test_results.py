"""Results on disk: checked before they are kept, opened whole or not at all."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from superswarm.errors import (
    BadSignature,
    CannotOpen,
    DiskFull,
    Environment,
    Malformed,
    Misconfigured,
    Mismatch,
    Untrusted,
)
from superswarm.io.results import ResultFolder, describe_result, open_result, vouched_signer
from superswarm.updates.adapter import encode_adapter
from superswarm.updates.card import CARD, CONFIG, WEIGHTS
from superswarm.updates.publish import publish
from superswarm.values import MemberId
from tests import consortia

ALICE, CAROL = MemberId("alice"), MemberId("carol")
SIGNER = consortia.signing_key("aggregator session")
ADAPTER = {"w": np.random.default_rng(0).standard_normal(1 << 19, np.float32)}  # 2 MiB: three chunks
MANIFEST = consortia.approved(result={"recipients": ["alice", "bob"]})
RESULT = publish(ADAPTER, manifest=MANIFEST, job=MANIFEST.manifest.jobs[0], run="run-1", rounds=2, signer=SIGNER)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    folder = ResultFolder(tmp_path / "results")
    folder.store("run-1", RESULT, SIGNER.public)
    return folder.results()[0][0].path


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Make the operating system refuse larger files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_result_is_kept_listed_and_opened(stored: Path, tmp_path: Path) -> None:
    found, faulty = ResultFolder(stored.parent).results()
    assert not faulty
    assert [(r.header.run, r.header.rounds, r.nbytes, r.path) for r in found] == [("run-1", 2, len(RESULT), stored)]
    assert vouched_signer(stored) == SIGNER.public
    out = tmp_path / "adapter"
    header = open_result(stored, consortia.kem_key("alice"), ALICE, out, expected_signer=vouched_signer(stored))
    assert header.run == "run-1"
    assert everything(out) == sorted([CARD, CONFIG, WEIGHTS])
    assert (out / WEIGHTS).read_bytes() == encode_adapter(ADAPTER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "results"]
    assert not [name for name in everything(tmp_path) if Path(name).name.startswith(".")]


@pytest.mark.parametrize(
    ("container", "run", "signer", "error"),
    [
        (RESULT, "run-2", "aggregator session", Mismatch),
        (RESULT, "run-1", "another session", Untrusted),
        (RESULT[:-1], "run-1", "aggregator session", BadSignature),
        (b"junk", "run-1", "aggregator session", Malformed),
    ],
)
def test_a_node_keeps_only_what_its_aggregator_signed(
    tmp_path: Path, container: bytes, run: str, signer: str, error: type[Exception]
) -> None:
    folder = tmp_path / "results"
    with pytest.raises(error) as caught:
        ResultFolder(folder).store(run, container, consortia.public_key(signer))
    assert caught.type is error
    assert everything(tmp_path) == []


def test_a_full_disk_leaves_nothing_half_written(stored: Path, tmp_path: Path) -> None:
    before = everything(tmp_path)
    with files_limited_to(1 << 20), pytest.raises(DiskFull):
        open_result(stored, consortia.kem_key("alice"), ALICE, tmp_path / "out", expected_signer=SIGNER.public)
    assert everything(tmp_path) == before
    with files_limited_to(1 << 20), pytest.raises(DiskFull):
        ResultFolder(tmp_path / "other").store("run-1", RESULT, SIGNER.public)
    assert [path.name for path in (tmp_path / "other").glob("*.result")] == []


@pytest.mark.parametrize("at", [-1, -(1 << 20), 5000])
def test_an_altered_container_leaves_no_folder(tmp_path: Path, at: int) -> None:
    raw = bytearray(RESULT)
    raw[at] ^= 1
    path = tmp_path / "x.result"
    path.write_bytes(raw)
    with pytest.raises((BadSignature, Malformed, CannotOpen)):
        open_result(path, consortia.kem_key("alice"), ALICE, tmp_path / "out", expected_signer=None)
    assert everything(tmp_path) == ["x.result"]


def test_somebody_else_gets_no_folder(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotOpen):
        open_result(stored, consortia.kem_key("carol"), CAROL, tmp_path / "out", expected_signer=SIGNER.public)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_opening_leaves_no_folder(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    before = everything(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        open_result(stored, consortia.kem_key("alice"), ALICE, tmp_path / "out", expected_signer=SIGNER.public)
    with pytest.raises(KeyboardInterrupt):
        ResultFolder(stored.parent).store("run-1", RESULT, SIGNER.public)
    assert everything(tmp_path) == before


def test_what_is_there_is_not_overwritten(stored: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Misconfigured):
        open_result(stored, consortia.kem_key("alice"), ALICE, out, expected_signer=SIGNER.public)


def test_faulty_files_are_named_and_hide_no_others(stored: Path) -> None:
    junk = stored.parent / "junk.result"
    junk.write_bytes(b"junk")
    found, faulty = ResultFolder(stored.parent).results()
    assert [result.path for result in found] == [stored]
    assert [(path, type(error)) for path, error in faulty] == [(junk, Malformed)]


def test_the_consortiums_epochs_are_kept_with_a_result(tmp_path: Path) -> None:
    ResultFolder(tmp_path, b"epochs").store("run-1", RESULT, SIGNER.public)
    (kept,) = tmp_path.glob("*.consortium")
    assert kept.read_bytes() == b"epochs"
    assert [result.path for result in ResultFolder(tmp_path).results()[0]] == [kept.with_suffix(".result")]


def test_a_file_from_elsewhere_has_no_vouched_signer(tmp_path: Path) -> None:
    path = tmp_path / "x.result"
    path.write_bytes(RESULT)
    assert vouched_signer(path) is None
    path.with_suffix(".signer").write_bytes(b"\xff\xfe")
    with pytest.raises(Malformed):
        vouched_signer(path)


def test_a_missing_file_is_the_machines_fault(tmp_path: Path) -> None:
    with pytest.raises(Environment):
        describe_result(tmp_path / "none.result")


def test_two_publications_of_one_run_do_not_replace_each_other(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    other = consortia.signing_key("another session")
    again = publish(ADAPTER, manifest=MANIFEST, job=MANIFEST.manifest.jobs[0], run="run-1", rounds=2, signer=other)
    for _ in range(2):
        folder.store("run-1", RESULT, SIGNER.public)
        folder.store("run-1", again, other.public)
    found, _ = folder.results()
    assert {result.path.read_bytes(): vouched_signer(result.path) for result in found} == {
        RESULT: SIGNER.public,
        again: other.public,
    }
    assert len(found) == 2
