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
    "overhead-job": {"job": "job, from start to result", "total": "job, with the programs' start"},
    "overhead-transfer": {"first_round": "transfer, first round", "later_round": "transfer, a later round"},
}
LIMITED: Final = ("job", "later_round")
MODES: Final = ("attested", "masked", "he")
TURN: Final = {"linestyle": "none", "marker": "o", "color": paper.COLOURS[0], "markerfacecolor": "none"}
MEDIANS: Final = {"linestyle": "none", "marker": "D", "color": "black", "markerfacecolor": "white"}
LIMIT: Final = {"linestyle": "none", "marker": "|", "color": paper.COLOURS[1], "markersize": 13, "markeredgewidth": 2}


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
    return [head, *(_row(line, name) for line in lines for name in QUANTITIES[line["claim"]])]


def _row(line: Line, name: str) -> list[str]:
    turns = ", ".join(paper.short(ratio) for ratio in turn_by_turn(line, name))
    seconds = [paper.short(statistics.median(line[f"{name}_{side}_seconds"])) for side in ("superswarm", "plain")]
    limit = limit_of(line, name)
    start = [QUANTITIES[line["claim"]][name], mode_of(line), str(line["members"])]
    ratio = paper.short(line[f"{name}_ratio"])
    return [*start, "" if limit is None else f"{limit:g}", ratio, turns, *seconds, str(line["commit"])]


def limit_of(line: Line, name: str) -> float | None:
    return line["limit"] if name in LIMITED else None


def ratios(lines: Sequence[Line], folder: Path) -> list[Path]:
    """A panel for each quantity: the ratio of each two neighbouring turns, and under it that of the medians."""
    chosen = [found for claim in QUANTITIES if (found := _last(lines, claim))]
    heights = [len(found) for found in chosen]
    drawn, axes = paper.figure(
        len(chosen),
        2,
        (paper.WIDE, 0.9 + 0.55 * len(chosen) + 0.36 * sum(heights)),
        sharex=True,
        sharey="row",
        squeeze=False,
        height_ratios=heights,
    )
    for pair, found in zip(axes, chosen, strict=True):
        for axis, (name, title) in zip(pair, QUANTITIES[found[0]["claim"]].items(), strict=True):
            paper.name_rows(axis, [_label(line) for line in found])
            axis.axvline(1, color=paper.INK, linewidth=0.8)
            axis.set(title=title, xscale="log")
            for i, line in enumerate(found):
                _ratio(axis, i, line, name)
    low, high = axes[0, 0].get_xlim()
    axes[0, 0].set_xlim(min(low / 1.1, 0.18), max(high * 1.5, 2.2))
    for axis in axes.flat:
        paper.plain_numbers(axis.xaxis)
    entries = [
        paper.mark("two neighbouring turns", **TURN),
        paper.mark("ratio of the medians of each side", **MEDIANS),
    ]
    if any(line["limit"] is not None for found in chosen for line in found):
        entries.append(paper.mark("limit, of attested only", **LIMIT | {"markersize": 9}))
    paper.foot(drawn, "superswarm's seconds over plain Flower's (1: as long)", entries)
    return paper.save(drawn, folder / "ratios")


def _ratio(axis: Any, row: int, line: Line, name: str) -> None:
    turns, middle, limit = turn_by_turn(line, name), line[f"{name}_ratio"], limit_of(line, name)
    axis.plot(turns, [row - 0.2] * len(turns), **TURN)
    axis.plot(middle, row + 0.2, **MEDIANS)
    paper.write_value(axis, middle, (middle, row + 0.2))
    if limit is not None:
        axis.plot(limit, row - 0.2, **LIMIT)


def _last(lines: Sequence[Line], claim: str) -> list[Line]:
    """The last line of each mode, cohort and size."""
    found = {_label(line): line for line in lines if line["claim"] == claim}
    return sorted(found.values(), key=lambda line: (MODES.index(mode_of(line)), line["members"]))


def _label(line: Line) -> str:
    size = f" × {line['mebibytes']} MiB" if "mebibytes" in line else ""
    return f"{mode_of(line)}, {line['members']} members{size}"
