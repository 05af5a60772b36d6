"""Tables and plots of `superswarm bench scale`."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import paper
from benchmarks.figures.claims import SCALE, Line, table

COLUMNS: Final[dict[str, Callable[[Line], float]]] = {
    "round, wall s": lambda line: line["round_wall"],
    "round, processor s": lambda line: line["round_cpu"],
    "memory MB": lambda line: line["peak_bytes"] / 1e6,
    "up KB a member": lambda line: line["up_bytes_most"] / 1e3,
    "down KB a member": lambda line: line["down_bytes_most"] / 1e3,
    "one member, processor ms": lambda line: 1e3 * sum(line["member_cpu"].values()),
    "aggregator, processor s": lambda line: sum(line["aggregator_cpu"].values()),
    "relative error": lambda line: line["relative_error"],
    "first acquaintance, processor s": lambda line: line["acquaintance_cpu"],
    "neighbours": lambda line: line["degree"],
    "load": lambda line: line["load"],
}
PHASES: Final = {
    "protocol": "seeds, shares, signatures",
    "encode": "encode",
    "tag": "tag",
    "mask": "mask",
    "check": "check the sum",
}


def write(lines: Sequence[Line], folder: Path) -> list[Path]:
    """All tables and plots for these lines, into a folder; their files."""
    files = paper.write_table(table(SCALE, lines), folder / "claims")
    files += paper.write_table(rows(lines), folder / "scale")
    if lines:
        (folder / "provenance.txt").write_text(paper.provenance(lines) + "\n", encoding="utf-8")
        files += totals(lines, folder)
        files += one_member(lines, folder)
    return files


def rows(lines: Sequence[Line]) -> list[list[str]]:
    grouped = group(lines)
    head = ["members", "parameters", "vanish", *COLUMNS, "repeats"]
    return [head, *(_row(key, grouped[key]) for key in sorted(grouped))]


def group(lines: Sequence[Line]) -> dict[tuple[int, int, int], list[Line]]:
    """Lines by (members, parameters, vanish)."""
    found: dict[tuple[int, int, int], list[Line]] = defaultdict(list)
    for line in lines:
        cell = line["cell"]
        found[cell["members"], cell["parameters"], cell["vanish"]].append(line)
    return found


def _row(key: tuple[int, int, int], lines: Sequence[Line]) -> list[str]:
    values = [paper.short(statistics.median(map(number, lines))) for number in COLUMNS.values()]
    return [f"{key[0]:,}", f"{key[1]:,}", str(key[2]), *values, str(len(lines))]


def totals(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Seconds and memory of the whole process, against the limits."""
    grouped = group(lines)
    quantities: dict[str, tuple[Callable[[Line], float], float]] = {
        "wall time, s": (lambda line: line["round_wall"], lines[0]["limit_seconds"]),
        "processor time, s": (lambda line: line["round_cpu"], lines[0]["limit_seconds"]),
        "memory of the process, GB": (lambda line: line["peak_bytes"] / 1e9, lines[0]["limit_bytes"] / 1e9),
    }
    panels = {
        title: {_name(key): [number(line) for line in found] for key, found in sorted(grouped.items())}
        for title, (number, _) in quantities.items()
    }
    limits = {title: limit for title, (_, limit) in quantities.items()}
    foot, text = "rows: members × parameters of one round", "limit for 1,000 members"
    drawn = paper.dot_plots(panels, foot, shared=False, ranked=False, limits=limits, limit=text)
    return paper.save(drawn, folder / "round")


def _name(key: tuple[int, int, int]) -> str:
    members, parameters, gone = key
    return f"{members:,} × {parameters:,}" + (f", {gone} vanish" if gone else "")


def one_member(lines: Sequence[Line], folder: Path) -> list[Path]:
    """What one member does in a round, by phase, for each cohort without dropouts."""
    grouped = {key: found for key, found in group(lines).items() if not key[2]} or group(lines)
    drawn, axis = paper.figure(1, 1, (paper.WIDE, 1.2 + 0.45 * len(grouped)))
    for i, key in enumerate(sorted(grouped)):
        start = 0.0
        for j, (phase, name) in enumerate(PHASES.items()):
            value = 1e3 * statistics.median(line["member_cpu"].get(phase, 0.0) for line in grouped[key])
            axis.barh(i, value, 0.6, left=start, label=name if i == 0 else None, **_fill(j))
            start += value
        axis.annotate(f"{start:.3g}", (start, i), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(range(len(grouped)), [f"{n:,} members" for n, *_ in sorted(grouped)])
    axis.set(
        xlabel=f"one member's processor milliseconds in a round of {lines[0]['cell']['parameters']:,} parameters"
    )
    axis.grid(visible=False, axis="y")
    drawn.legend(loc="outside lower center", ncols=len(PHASES))
    return paper.save(drawn, folder / "one-member")


def _fill(number: int) -> dict[str, Any]:
    """A colour, and a hatch that tells it apart in grey."""
    hatch = ("", "////", "....", "\\\\\\\\", "xxxx")[number]
    return {"color": paper.COLOURS[number], "hatch": hatch, "edgecolor": "white", "linewidth": 0.5}
