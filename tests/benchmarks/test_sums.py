"""Benchmarks of secure sums: a stopped run goes on, claims are judged as they read, figures are drawn."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import encoding, scale, sums, whole_run
from benchmarks.figures import encoding as encoding_figures
from benchmarks.figures import scale as scale_figures
from benchmarks.figures import sums as sums_figures
from benchmarks.figures.claims import SCALE, SUMS, Claim, table
from benchmarks.journal import Journal
from benchmarks.progress import measure_all
from benchmarks.secure.cells import Cell, extrapolated, measure
from benchmarks.secure.cohort import Tolerance
from benchmarks.secure.draws import CLIP_NORM, SMALLEST_NORM, Draws, Truth
from benchmarks.secure.gauge import Gauge
from benchmarks.secure.link import Failed, process

SIZE = 4096  # parameters: tiny, but a million for claims
PROJECT = Path(__file__).parents[2]


def keys(file: Path) -> list[str]:
    return [json.dumps(json.loads(line)["cell"]) for line in file.read_text().splitlines()]


# --- resumability --------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_and_measures_no_cell_twice(tmp_path: Path) -> None:
    words = ["--parameters", str(SIZE), "--members", "3", "--ways", "numpy", "mean", "--repeats", "3"]
    command = [sys.executable, "-m", "benchmarks.sums", *words, "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    file = tmp_path / "sums.jsonl"
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL) as killed:
        end = time.monotonic() + 300
        while not (file.exists() and keys(file)) and time.monotonic() < end:
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
    before = file.read_text()
    assert 1 <= len(keys(file)) < 6
    subprocess.run(command, cwd=PROJECT, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert file.read_text().startswith(before)
    assert len(keys(file)) == len(set(keys(file))) == 6


def test_a_line_that_was_cut_is_measured_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "cells.jsonl")
    journal.add({"n": 1}, {"value": 1})
    whole = journal.file.read_text()
    journal.file.write_text(whole + whole[: len(whole) // 2])
    again = Journal(journal.file)
    assert [line["cell"] for line in again.lines] == [{"n": 1}]
    again.add({"n": 2}, {"value": 2})
    assert [line["value"] for line in Journal(journal.file).lines] == [1, 2]


def test_fresh_forgets_and_commit_and_seed_are_kept(tmp_path: Path) -> None:
    Journal(tmp_path / "cells.jsonl").add({"n": 1}, {"seed": 5})
    (line,) = Journal(tmp_path / "cells.jsonl").lines
    assert line["seed"] == 5
    assert {"commit", "cpu", "cores", "load", "at"} <= line.keys()
    assert Journal(tmp_path / "cells.jsonl", fresh=True).lines == []


def test_a_cell_that_fails_is_left_for_the_next_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails_for_three(cell: Cell) -> dict[str, Any]:
        if cell.members == 3:
            raise Failed("no memory")
        return {"seed": cell.seed}

    cells = [Cell("numpy", SIZE, members, 0, 1) for members in (3, 4)]
    journal = Journal(tmp_path / "cells.jsonl")
    with pytest.raises(SystemExit, match=re.escape(f"1 cells failed and are left for the next run: {cells[0]}")):
        measure_all(cells, journal, fails_for_three, lambda _: "done")
    assert "no memory" in capsys.readouterr().err
    assert [line["cell"]["members"] for line in journal.lines] == [4]
    measure_all(cells, journal, lambda cell: {"seed": cell.seed}, lambda _: "done")
    assert [line["cell"]["members"] for line in journal.lines] == [4, 3]


# --- what is measured ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "vanish"), [("attested", 0), ("masked", 1), ("he-bfv", 0), ("flower", 1)])
def test_each_way_adds_the_same_updates(way: str, vanish: int) -> None:
    line = measure(Cell(way, SIZE, 4, vanish, 1))
    assert 0 < line["relative_error"] < 2e-3
    assert line["up_bytes"] > SIZE
    assert line["aggregator"]["grown_bytes"]["whole"] > 0 or sys.platform != "linux"
    assert all(times["cpu"] >= 0 for side in ("client", "aggregator") for times in line[side]["seconds"].values())


def test_the_tutorials_ckks_is_extrapolated_only_with_a_label() -> None:
    found = measure(Cell("ckks-8192", SIZE, 3, 0, 1))
    assert "extrapolated_from" not in found
    larger = extrapolated(found, SIZE, 5 * SIZE)
    assert larger["extrapolated_from"] == SIZE
    assert larger["up_bytes"] == 5 * found["up_bytes"]
    seconds = [one["client"]["seconds"]["encrypt"] for one in (found, larger)]
    assert seconds[1]["cpu"] == pytest.approx(5 * seconds[0]["cpu"])
    assert seconds[1]["count"] == seconds[0]["count"]
    assert larger["client"]["grown_bytes"] == {}, "memory does not grow so"


def test_draws_are_the_same_for_a_seed_and_within_the_norm() -> None:
    update = Draws(SIZE, 7).of(1)
    assert (update == Draws(SIZE, 7).of(1)).all()
    assert not (update == Draws(SIZE, 7).of(2)).any()
    assert SMALLEST_NORM * CLIP_NORM <= np.linalg.norm(update) <= CLIP_NORM * (1 + 1e-6)
    truth = Truth(SIZE)
    truth.add(update)
    assert truth.error(update) < 1e-7
    assert truth.error(2 * update) == pytest.approx(1.0)


def test_tolerances_are_those_that_a_manifest_takes() -> None:
    for members in (3, 10, 16, 50, 1000):
        t = Tolerance.of(members)
        assert 2 * t.threshold > members + t.colluders
        assert 1 <= t.dropouts <= members - t.threshold


def test_memory_of_a_phase_is_what_it_adds() -> None:
    gauge = Gauge()
    with gauge.growth("array"):
        array = np.ones(4 * 1024**2)
    assert array.nbytes * 0.9 < gauge.report()["grown_bytes"].get("array", array.nbytes) < 1.5 * array.nbytes


def test_a_process_that_fails_says_why() -> None:
    with process(list) as other, pytest.raises(Failed, match="AttributeError"):
        other.call("no_such_method")


def test_scale_and_encoding_measure_what_they_say(tmp_path: Path) -> None:
    line = scale.measure(scale.Cell(4, SIZE, 1, 1))
    assert line["checked"] == 3, "all that are left check the sum"
    assert line["peak_bytes"] > 0 or sys.platform != "linux"
    assert {"round_wall", "round_cpu", "acquaintance_cpu"} <= line.keys()
    even, spiky = (encoding.measure(encoding.Cell(tail, SIZE * 16, 3, 1)) for tail in ("normal", "t2"))
    assert even["clipped"] == 0
    assert even["relative_error"] < 1e-3
    assert spiky["largest_over_rms"] > 10 * even["largest_over_rms"]
    encoding_figures.write(
        [
            {"cell": cell, **found, "cpu": "x", "cores": 1, "load": 0, "commit": "c"}
            for cell, found in _pairs(even, spiky)
        ],
        tmp_path,
    )
    assert (tmp_path / "error-by-tail.png").stat().st_size > 1000


def _pairs(even: dict[str, Any], spiky: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    cells = [encoding.Cell(tail, SIZE * 16, 3, 1).key for tail in ("normal", "t2")]
    return list(zip(cells, (even, spiky), strict=True))


def test_a_whole_run_goes_from_handshake_to_result() -> None:
    line = whole_run.measure(whole_run.Cell("masked", 3, 1, 1))
    assert len(line["round_cpu"]) == whole_run.ROUNDS
    assert 0 < line["handshake_cpu"] < line["run_cpu"]
    assert line["bytes"] > whole_run.ROUNDS * 3 * 2 * (1 << 18), "an update of two bytes a parameter, three times"


# --- claims --------------------------------------------------------------------------------------------------------


def made_up(
    way: str, members: int = 10, parameters: int = 1_000_000, repeat: int = 1, **changes: Any
) -> dict[str, Any]:
    """A line as a measurement leaves it."""
    seconds = {phase: {"cpu": 0.01, "wall": 0.02, "count": 3} for phase in ("encode", "mask", "check")}
    total = {phase: {"cpu": 0.02, "wall": 0.02, "count": 1} for phase in ("sum", "recover")}
    line = {
        "cell": {"way": way, "parameters": parameters, "members": members, "vanish": 0, "repeat": repeat},
        "client": {"seconds": seconds, "grown_bytes": {"client": 8_000_000}},
        "aggregator": {"seconds": total, "grown_bytes": {"whole": 9_000_000}},
        "up_bytes": 2 * parameters,
        "down_bytes": 2 * parameters,
        "relative_error": 5e-4,
        "aes_pass_cpu": 0.001,
        "streams": 10,
        "numpy_sum_cpu": 0.015,
        "tutorial_client_cpu": 1.0,
        **_machine(),
    }
    return line | changes


def verdicts(claims: tuple[Claim, ...], lines: list[dict[str, Any]]) -> dict[str, str]:
    return {f"{row[0]} {row[1]}": row[-1] for row in table(claims, lines)[1:]}


def test_claims_are_met_by_what_meets_them_and_by_nothing_else() -> None:
    found = verdicts(SUMS, [made_up("numpy"), made_up("masked"), made_up("he-bfv")])
    assert [found[name] for name in found if "all of a client's" not in name] == ["yes"] * 8
    for changes, text in (
        ({"up_bytes": 2_200_000}, "masked, up to 16 members: bytes"),
        ({"relative_error": 2e-3}, "masked, up to 16 members: relative"),
        ({"aes_pass_cpu": 0.0001}, "masked: masking an update"),
        ({"numpy_sum_cpu": 0.005}, "masked: the same, over numpy's in a loop"),
    ):
        found = verdicts(SUMS, [made_up("masked", **changes)])
        assert {name for name in found if found[name] == "no"} >= {n for n in found if n.startswith(text)}
    found = verdicts(SUMS, [made_up("he-bfv", up_bytes=9_000_000, tutorial_client_cpu=0.01)])
    assert [verdict for name, verdict in found.items() if name.startswith("BFV")] == ["yes", "no", "no"]


def test_a_sum_is_held_against_numpys_of_the_same_size_cohort_and_repeat() -> None:
    name = "masked: the aggregator's sum"
    plain, other = made_up("numpy"), made_up("numpy", members=16)
    slow = made_up("masked")
    slow["aggregator"] = {**slow["aggregator"], "seconds": {"sum": {"cpu": 0.05, "wall": 0.05, "count": 1}}}
    for lines, verdict in (
        ([plain, made_up("masked")], "yes"),
        ([plain, slow], "no"),
        ([other, slow], "not measured"),
    ):
        assert next(v for n, v in verdicts(SUMS, lines).items() if n.startswith(name)) == verdict


def test_the_worst_cell_decides_by_its_median_and_errors_by_their_worst() -> None:
    slow = made_up("masked", repeat=2, numpy_sum_cpu=0.001)
    lines = [made_up("masked"), slow, made_up("masked", repeat=3)]
    name = next(n for n in verdicts(SUMS, lines) if "over numpy's in a loop" in n)
    assert verdicts(SUMS, lines)[name] == "yes", "one repeat of three that was disturbed"
    assert verdicts(SUMS, [*lines, made_up("masked", members=3, numpy_sum_cpu=0.001)])[name] == "no"
    wrong = [made_up("masked"), made_up("masked", repeat=2), made_up("masked", repeat=3, relative_error=0.1)]
    assert "no" in {v for n, v in verdicts(SUMS, wrong).items() if "relative error" in n}


def test_claims_leave_out_what_they_are_not_about() -> None:
    beyond = [
        made_up("masked", members=50, relative_error=1.0),
        made_up("masked", parameters=1000, relative_error=1.0),
    ]
    found = verdicts(SUMS, beyond)
    assert next(v for n, v in found.items() if "relative error" in n) == "not measured"
    assert set(verdicts(SUMS, [{"cell": made_up("flower")["cell"], "cannot_run": "why"}]).values()) == {
        "not measured"
    }
    line = {"cell": {"members": 1000, "parameters": 100_000, "vanish": 0}, "peak_bytes": 3e9, "round_wall": 100.0}
    assert list(verdicts(SCALE, [line | {"round_cpu": 90.0}]).values()) == ["yes", "yes", "no"]


# --- figures -------------------------------------------------------------------------------------------------------


def test_tables_and_plots_are_written_and_not_empty(tmp_path: Path) -> None:
    lines = [made_up(way, n, repeat=r) for way in sums_figures.NAMES for n in (3, 10) for r in (1, 2)]
    lines += [made_up("ckks-8192", 10, 5_000_000, extrapolated_from=1_000_000), made_up("masked", 10, 5_000_000)]
    lines += [{**made_up("masked"), "cell": {**made_up("masked")["cell"], "vanish": 1}}]
    lines += [{"cell": made_up("flower", 50)["cell"], "cannot_run": "it lacks a part"}]
    files = sums_figures.write(lines, tmp_path)
    assert {file.suffix for file in files} == {".png", ".svg", ".md", ".csv"}
    assert all(file.stat().st_size > 300 for file in files)
    text = (tmp_path / "sums.md").read_text()
    assert "extrapolated from 1,000,000 parameters" in text
    assert "cannot run: it lacks a part" in text
    svg = (tmp_path / "client-by-size.svg").read_text()
    assert svg.startswith("<?xml")


def test_figures_say_what_was_extrapolated_measured_once_and_in_which_ring(tmp_path: Path) -> None:
    once = [made_up("masked", 3, ring_bits=16), made_up("masked", 50, ring_bits=32)]
    guessed = made_up("ckks-8192", 3, 5_000_000, extrapolated_from=1_000_000)
    sums_figures.write([*once, guessed], tmp_path)
    said = {name: (tmp_path / f"{name}.svg").read_text() for name in ("client-by-size", "error-by-members", "memory")}
    assert "<!-- extrapolated" in said["client-by-size"]
    assert "<!-- extrapolated" not in said["memory"]
    assert all("<!-- measured once" in text and "<!-- median" not in text for text in said.values())
    assert "masked: 16-bit ring" in said["error-by-members"]
    assert "masked: 32-bit ring" in said["error-by-members"]


def test_figures_of_a_size_that_the_most_usual_cohort_lacks_are_drawn(tmp_path: Path) -> None:
    lines = [made_up("masked", 10, 5_000_000), *(made_up("masked", 3, repeat=r) for r in (1, 2))]
    assert tmp_path / "bytes-on-the-wire.png" in sums_figures.write(lines, tmp_path)


def test_scales_figures_are_written(tmp_path: Path) -> None:
    line = scale.measure(scale.Cell(4, SIZE, 0, 1))
    files = scale_figures.write([{"cell": scale.Cell(4, SIZE, 0, 1).key, **line, **_machine()}], tmp_path)
    assert {file.name for file in files} >= {"claims.md", "scale.csv", "round.png", "one-member.svg"}
    assert all(file.stat().st_size > 100 for file in files)


def test_plot_measures_nothing(tmp_path: Path) -> None:
    sums.main(["--plot", "--out", str(tmp_path)])
    assert not (tmp_path / "sums.jsonl").exists()
    assert "not measured" in (tmp_path / "sums" / "claims.md").read_text()


def _machine() -> dict[str, Any]:
    return {"cpu": "a processor", "cores": 2, "load": 1.0, "commit": "abc"}
