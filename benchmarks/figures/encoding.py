"""Tables and plots of `superswarm bench encoding`."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import paper
from benchmarks.figures.claims import Line

LIMIT: Final = 1e-3
REAL: Final = 2.5  # of SmolLM2-135M's LoRA updates: benchmarks/results/update-tails.jsonl
NAMES: Final = {
    "normal": "normal",
    "t4": "t, 4 degrees",
    "t3": "t, 3 degrees",
    "t3-uneven": "t, 3 degrees, parts of uneven scale",
    "t2": "t, 2 degrees",
}


def write(lines: Sequence[Line], folder: Path) -> list[Path]:
    """The table and the plot for these lines, into a folder; their files."""
    files = paper.write_table(rows(lines), folder / "encoding")
    if lines:
        (folder / "provenance.txt").write_text(paper.provenance(lines) + "\n", encoding="utf-8")
        files += tails(lines, folder)
    return files


def rows(lines: Sequence[Line]) -> list[list[str]]:
    """For each tail and cohort: the errors, how often values were cut, and the largest value."""
    found: dict[tuple[int, str], list[Line]] = defaultdict(list)
    for line in lines:
        found[line["cell"]["members"], line["cell"]["tail"]].append(line)
    head = [
        "members",
        "tail",
        "error, median",
        "error, worst",
        "runs with values cut",
        "largest / rms, median",
        "worst",
    ]
    table = [head]
    for members, tail in sorted(found, key=lambda key: (key[0], list(NAMES).index(key[1]))):
        some = found[members, tail]
        errors, largest = [one["relative_error"] for one in some], [one["largest_over_rms"] for one in some]
        cut = f"{sum(one['clipped'] > 0 for one in some)} of {len(some)}"
        numbers = [statistics.median(errors), max(errors), statistics.median(largest), max(largest)]
        texts = [paper.short(number) for number in numbers]
        table.append([str(members), NAMES[tail], *texts[:2], cut, *texts[2:]])
    return table


def tails(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Error of the mean against how far the largest value stands out: one point a run."""
    drawn, axis = paper.figure(1, 1, (4.6, 3.1))
    for i, (tail, name) in enumerate(NAMES.items()):
        some = [line for line in lines if line["cell"]["tail"] == tail]
        if some:
            points = [(line["largest_over_rms"], line["relative_error"]) for line in some]
            axis.scatter(
                *zip(*points, strict=True), s=18, color=paper.COLOURS[i], marker=paper.MARKERS[i], label=name
            )
    axis.axhline(LIMIT, color="black", linestyle="--", linewidth=0.8)
    axis.axvline(REAL, color="black", linestyle=":", linewidth=0.8)
    axis.annotate(
        "LoRA updates\nas measured",
        (REAL, 0.75),
        xycoords=("data", "axes fraction"),
        xytext=(3, 0),
        textcoords="offset points",
        fontsize=7,
    )
    axis.set(xscale="log", yscale="log", ylabel="relative error of the mean")
    axis.set_xlabel("largest value of any update, over its root mean square")
    where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axis.annotate("limit", (1, LIMIT), xytext=(0, 3), ha="right", fontsize=7, **where)
    paper.plain_numbers(axis.xaxis)
    drawn.legend(loc="outside lower center", ncols=3)
    return paper.save(drawn, folder / "error-by-tail")
