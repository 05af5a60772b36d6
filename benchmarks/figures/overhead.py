"""Tables and plots of `superswarm bench overhead`: superswarm's seconds over plain Flower's, by protection mode."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import paper
from benchmarks.figures.claims import Line

QUANTITIES: Final = {
    "overhead-job": ("job", "job, from start to result"),
    "overhead-transfer": ("later_round", "transfer, a later round"),
}
MODES: Final = ("attested", "masked", "he")


def write(results: Path) -> list[Path]:
    """The table and the plot of what lies in this folder of results; their files."""
    lines = [line for claim in QUANTITIES for line in _read(results / f"{claim}.jsonl")]
    folder = results / "overhead"
    files = paper.write_table(rows(lines), folder / "overhead")
    if lines:
        (folder / "provenance.txt").write_text(paper.provenance(lines) + "\n", encoding="utf-8")
        files += ratios(lines, folder)
    return files


def _read(file: Path) -> list[Line]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def turn_by_turn(line: Line, name: str) -> list[float]:
    """The ratio of each two neighbouring turns."""
    ours, plain = (line[f"{name}_{side}_seconds"] for side in ("superswarm", "plain"))
    return [one / other for one, other in zip(ours, plain, strict=True)]


def mode_of(line: Line) -> str:
    """Lines from before there were other modes do not name theirs."""
    return str(line.get("mode", "attested"))


def rows(lines: Sequence[Line]) -> list[list[str]]:
    head = [
        "what",
        "mode",
        "members",
        "limit",
        "ratio of medians",
        "turn by turn",
        "superswarm s",
        "plain s",
        "commit",
    ]
    table = [head]
    for line in lines:
        name, title = QUANTITIES[line["claim"]]
        turns = ", ".join(paper.short(ratio) for ratio in turn_by_turn(line, name))
        seconds = [paper.short(statistics.median(line[f"{name}_{side}_seconds"])) for side in ("superswarm", "plain")]
        limit = "" if line["limit"] is None else f"{line['limit']:g}"
        start = [title, mode_of(line), str(line["members"]), limit, paper.short(line[f"{name}_ratio"]), turns]
        table.append([*start, *seconds, str(line["commit"])])
    return table


def ratios(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Turn by turn, the ratio of two neighbouring turns; the stroke is the ratio of the medians."""
    chosen = [(claim, mode, found) for claim in QUANTITIES for mode in MODES if (found := _of(lines, claim, mode))]
    drawn, axis = paper.figure(1, 1, (paper.WIDE, 2.8))
    for i, (claim, mode, found) in enumerate(chosen):
        name = QUANTITIES[claim][0]
        look: dict[str, Any] = {"color": paper.COLOURS[MODES.index(mode)], "marker": paper.MARKERS[MODES.index(mode)]}
        for line in found:
            turns = turn_by_turn(line, name)
            axis.plot([i] * len(turns), turns, linestyle="none", alpha=0.8, **look)
            axis.hlines(line[f"{name}_ratio"], i - 0.15, i + 0.15, color=look["color"], linewidth=1.6)
            if line["limit"] is not None:
                axis.hlines(line["limit"], i - 0.35, i + 0.35, color="black", linestyle="--", linewidth=0.8)
                where = (i + 0.35, line["limit"])
                axis.annotate("limit", where, xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)
    axis.set_xticks(range(len(chosen)), [f"{QUANTITIES[c][1]}\n{mode}" for c, mode, _ in chosen])
    axis.set(ylim=(0, None), ylabel="seconds over plain Flower's", xlim=(-0.6, len(chosen) - 0.4))
    axis.grid(visible=False, axis="x")
    return paper.save(drawn, folder / "ratios")


def _of(lines: Sequence[Line], claim: str, mode: str) -> list[Line]:
    return [line for line in lines if line["claim"] == claim and mode_of(line) == mode]
