"""The comparison with plain Flower runs at all, on a tiny model, and both sides do the same job."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import overhead
from benchmarks.federation.founding import found
from benchmarks.federation.handshake import handshakes
from benchmarks.federation.modes import MODES, protected
from benchmarks.federation.plan import Idle, Plan
from benchmarks.federation.times import Times, between
from benchmarks.journal import Journal
from superswarm.demo.job import demo_tables
from superswarm.demo.stage import stage
from superswarm.values import Digest
from tests.tiny import tiny_model

NAMES = ("alice", "bob")


def splits(folder: Path) -> dict[str, tuple[str, str]]:
    files: dict[str, tuple[str, str]] = {}
    for name in NAMES:
        rows = [{"prompt": f"{name} {i}?", "completion": f"{i * 7 % 10}"} for i in range(8)]
        for split, some in (("train", rows), ("test", rows[:2])):
            (folder / f"{name}.{split}").write_text("".join(f"{json.dumps(row)}\n" for row in some))
        files[name] = str(folder / f"{name}.train"), str(folder / f"{name}.test")
    return files


@pytest.mark.e2e
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("mode", "apart"), [("attested", 1e-5), pytest.param("masked", 1e-3, marks=pytest.mark.slow)]
)
def test_both_sides_do_the_same_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, apart: float) -> None:
    tables = demo_tables(made_up=True, rounds=1, training={"local_steps": 2, "batch_size": 2}, max_examples=2)
    files = splits(tmp_path)
    tables = protected(tables, mode, len(files), clip_norm=1.0, max_weight=overhead.most_examples(files))
    options = argparse.Namespace(repeats=1, max_examples=2, mode=mode, out=tmp_path / "results")
    with stage(tmp_path / "stage", lambda _: None) as on:
        line = overhead.measure_job(options, on, tiny_model(tmp_path / "model"), files, tables)
    assert line["adapters_moved"] > 1e-3
    assert line["adapters_apart"] < apart, "the same data, steps, rates and weights give the same adapter"
    assert line["job_ratio"] > 0
    assert line["aggregator_mebibytes"] > 10
    assert (line["mode"], line["limit"] is None) == (mode, mode != "attested")


def test_a_handshake_of_three_takes_under_two_seconds_of_work(tmp_path: Path) -> None:
    names = ("alice", "bob", "carol")
    tables = demo_tables(made_up=True, rounds=2, training={}, max_examples=None)
    with stage(tmp_path / "stage", lambda _: None) as on:
        founded = found(on, names, Digest.of(b"no model"), tables)
        spent = handshakes(on, founded, {name: Idle(1, 4, n) for n, name in enumerate(names)}, times=2)
    assert max(spent) < 2.0


class Side:
    """A deployment that takes no time, and breaks down in one of its turns."""

    def __init__(self, folder: Path, breaks_in: int = -1) -> None:
        self.folder, self.breaks_in, self.turns = folder, breaks_in, 0

    def start(self) -> float:
        return 0.5

    def run(self, *_: object) -> Times:
        self.turns += 1
        if self.turns - 1 == self.breaks_in:
            raise KeyboardInterrupt
        return Times(job=float(self.turns), rounds={1: 2.0, 2: 3.0})

    def stop(self) -> None:
        pass


def test_a_comparison_that_was_stopped_goes_on_turn_by_turn(tmp_path: Path) -> None:
    def turning(ours: Side, plain: Side) -> overhead.Turning:
        config = {"claim": "job", "mode": "masked"}
        return overhead.Turning(Journal(tmp_path / "turns.jsonl"), config, ours, plain, tmp_path / "plan")  # type: ignore[arg-type]

    ours, plain = Side(tmp_path, breaks_in=1), Side(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        turning(ours, plain).take(3)
    assert [line["cell"]["side"] for line in Journal(tmp_path / "turns.jsonl").lines] == [
        "superswarm",
        "plain",
        "plain",
    ]
    later, other = Side(tmp_path), Side(tmp_path)
    turns = turning(later, other).take(3)
    assert (later.turns, other.turns) == (2, 1), "turns that were taken are read"
    assert turns["superswarm"].jobs == [1.0, 1.0, 2.0]
    assert turns["plain"].rounds(lambda number: number > 1) == [3.0] * 3
    assert len(Journal(tmp_path / "turns.jsonl").lines) == 6


def test_its_figures_are_drawn_from_what_was_recorded(tmp_path: Path) -> None:
    for line in ("job", "transfer"):
        name = f"overhead-{line}.jsonl"
        (tmp_path / name).write_text((Path(overhead.__file__).parent / "results" / name).read_text())
    overhead.main(["--plot", "--out", str(tmp_path)])
    text = (tmp_path / "overhead" / "overhead.md").read_text()
    assert "| job, with the programs' start | attested | 3 |  | 0.642 |" in text, "the limit is not on the start"
    assert (tmp_path / "overhead" / "ratios.png").stat().st_size > 1000


def test_figures_show_every_mode_and_of_each_the_last_comparison(tmp_path: Path) -> None:
    line = json.loads((Path(overhead.__file__).parent / "results" / "overhead-job.jsonl").read_text().splitlines()[0])
    lines = [line, line | {"mode": "he", "limit": None}, line | {"mode": "masked", "limit": None}, line]
    (tmp_path / "overhead-job.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    overhead.main(["--plot", "--out", str(tmp_path)])
    text = (tmp_path / "overhead" / "ratios.svg").read_text()
    rows = [f"<!-- {mode}, 3 members" for mode in ("attested", "masked", "he")]
    assert [text.count(row) for row in rows] == [1, 1, 1]
    assert sorted(rows, key=text.index) == rows


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_gives_a_manifest_that_holds(tmp_path: Path, mode: str) -> None:
    names = ("alice", "bob", "carol")
    tables = demo_tables(made_up=True, rounds=2, training={}, max_examples=None)
    with stage(tmp_path / "stage", lambda _: None) as on:
        founded = found(on, names, Digest.of(b"no model"), protected(tables, mode, 3, clip_norm=1.0, max_weight=100))
    assert founded.manifest.manifest.protection.mode == mode


def test_a_transfer_is_of_the_size_asked_for_and_differs_between_members(tmp_path: Path) -> None:
    plan = Plan(rounds=1, members=dict.fromkeys(NAMES, ("", "")), initial="", job={}, mebibytes=1, tensors=4)
    plan.write(tmp_path / "plan.json")
    alice, bob = (Plan.read(tmp_path / "plan.json").learner(name) for name in NAMES)
    assert alice.spec == bob.spec
    assert alice.spec.nbytes == 1 << 20
    start = alice.initial()
    sent = [learner.train(start, 1)[0] for learner in (alice, bob)]
    assert all(not np.array_equal(sent[0][name], sent[1][name]) for name in start)


def test_rounds_last_until_the_next_begins() -> None:
    assert between({1: 10.0, 2: 12.5, 3: 13.0}) == {1: 2.5, 2: 0.5}
