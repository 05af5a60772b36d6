"""Tables and plots of `superswarm bench sums`."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import paper
from benchmarks.figures.claims import CLIENT, RECOVER, SUMS, Line, cpu, table
from benchmarks.secure.cells import MILLION, WAYS

NAMES: Final = {
    "numpy": "numpy float32",
    "mean": "StreamingMean",
    "attested": "attested",
    "masked": "masked",
    "he-bfv": "BFV, 3 hold the key",
    "he-bfv-all": "BFV, all hold the key",
    "he-ckks": "CKKS, derived",
    "ckks-8192": "CKKS 8192, tutorial",
    "flower": "Flower SecAgg+",
}
LOOK: Final = {way: (paper.COLOURS[i], paper.MARKERS[i]) for i, way in enumerate(NAMES)}
HEAD: Final = (
    *("way", "parameters", "members", "vanish", "client encode s", "client protect s", "sum s", "recover s"),
    *("up B/param", "down B/param", "relative error", "client MB", "aggregator MB", "sum / numpy"),
    *("passes a stream", "client / CKKS 8192", "repeats", "note"),
)
Rows = dict[tuple[Any, ...], list[Line]]


def write(lines: Sequence[Line], folder: Path) -> list[Path]:
    """All tables and plots for these lines, into a folder; their files."""
    measured = [line for line in lines if "cannot_run" not in line]
    files = paper.write_table(table(SUMS, lines), folder / "claims")
    files += paper.write_table([list(HEAD), *rows(lines)], folder / "sums")
    if not measured:
        return files
    (folder / "provenance.txt").write_text(paper.provenance(measured) + "\n", encoding="utf-8")
    for plot in (by_members, by_size, wire, error, memory):
        files += plot(measured, folder)
    return files


# --- tables --------------------------------------------------------------------------------------------------------


def rows(lines: Iterable[Line]) -> list[list[str]]:
    """One row for each cell, medians over its repeats, in the order of the ways."""
    grouped = group(lines)
    order = list(WAYS)
    return [_row(key, grouped[key]) for key in sorted(grouped, key=lambda k: (k[1], k[2], order.index(k[0]), k[3]))]


def group(lines: Iterable[Line]) -> Rows:
    """Lines by (way, parameters, members, vanish)."""
    found: Rows = defaultdict(list)
    for line in lines:
        cell = line["cell"]
        found[cell["way"], cell["parameters"], cell["members"], cell["vanish"]].append(line)
    return found


def _row(key: tuple[Any, ...], lines: list[Line]) -> list[str]:
    way, parameters, members, vanish = key
    start = [NAMES[way], f"{parameters:,}", str(members), str(vanish)]
    if "cannot_run" in lines[0]:
        return [*start, *[""] * 12, str(len(lines)), f"cannot run: {lines[0]['cannot_run']}"]
    numbers: list[Callable[[Line], float | None]] = [
        lambda line: cpu(line, "client", ("encode",)) or None,
        lambda line: cpu(line, "client", set(CLIENT) - {"encode"}) or None,
        lambda line: cpu(line, "aggregator", ("sum",)),
        recovery,
        lambda line: line["up_bytes"] / parameters,
        lambda line: line["down_bytes"] / parameters,
        lambda line: line["relative_error"],
        lambda line: _megabytes(line, "client", "client"),
        lambda line: _megabytes(line, "aggregator", "whole"),
        lambda line: _ratio(cpu(line, "aggregator", ("sum",)), line.get("numpy_sum_cpu")),
        lambda line: _ratio(cpu(line, "client", CLIENT), line.get("aes_pass_cpu", 0) * line.get("streams", 0)),
        lambda line: _ratio(cpu(line, "client", CLIENT), line.get("tutorial_client_cpu")),
    ]
    note = f"extrapolated from {lines[0]['extrapolated_from']:,} parameters" if _guessed(lines[0]) else ""
    return [*start, *(_median(lines, number) for number in numbers), str(len(lines)), note]


def _median(lines: Iterable[Line], number: Callable[[Line], float | None]) -> str:
    found = [value for value in map(number, lines) if value is not None]
    return paper.short(statistics.median(found)) if found else ""


def _ratio(value: float, reference: float | None) -> float | None:
    return value / reference if reference else None


def _megabytes(line: Line, side: str, what: str) -> float | None:
    grown = line[side]["grown_bytes"].get(what)
    return None if grown is None else float(grown / 1e6)


def _guessed(line: Line) -> bool:
    return "extrapolated_from" in line


def recovery(line: Line) -> float:
    """What it takes to read the sum: the aggregator's part, one decryption, and one member's check."""
    return cpu(line, "aggregator", RECOVER) + cpu(line, "client", RECOVER)


def client(line: Line) -> float:
    return cpu(line, "client", CLIENT)


# --- plots ---------------------------------------------------------------------------------------------------------


def by_members(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Seconds of client, sum and recovery against the cohort, for the size that most cells have."""
    size = _usual(lines, "parameters")
    chosen = [line for line in lines if line["cell"]["parameters"] == size]
    panels: list[tuple[str, Callable[[Line], float]]] = [
        ("client: encode, protect", client),
        ("aggregator: add all updates", lambda line: cpu(line, "aggregator", ("sum",))),
        ("recover: unmask or decrypt", recovery),
    ]
    drawn, axes = paper.figure(1, 3, (paper.WIDE, 3.1), sharex=True)
    for axis, (title, number) in zip(axes, panels, strict=True):
        _curves(axis, [line for line in chosen if not line["cell"]["vanish"]], number)
        axis.set(title=title, xlabel="members", xscale="log", yscale="log")
        paper.plain_numbers(axis.yaxis)
        _exact_ticks(axis, sorted({line["cell"]["members"] for line in chosen}))
    _vanishing(axes[2], [line for line in chosen if line["cell"]["vanish"]])
    axes[0].set_ylabel(f"processor seconds\n({size / MILLION:g} M parameters)")
    _legend(drawn, axes[0], axes[2])
    return paper.save(drawn, folder / "seconds-by-members")


def _curves(axis: Any, lines: Sequence[Line], number: Callable[[Line], float], beside: float = 0.0) -> None:
    """A curve for each way; with `beside`, each a little to the right of the last, so that none hides another."""
    for i, (way, (colour, marker)) in enumerate(LOOK.items()):
        points: dict[int, list[float]] = defaultdict(list)
        for line in lines:
            if line["cell"]["way"] == way:
                points[line["cell"]["members"]].append(number(line))
        if not points:
            continue
        members, shift = sorted(points), 1 + beside * (i - len(LOOK) // 2)
        middle = [statistics.median(points[n]) for n in members]
        axis.plot([n * shift for n in members], middle, color=colour, marker=marker, label=NAMES[way])
        every = [(n * shift, value) for n in members for value in points[n]]
        axis.scatter(*zip(*every, strict=True), color=colour, marker=marker, s=7, alpha=0.35, linewidths=0)


def _vanishing(axis: Any, lines: Sequence[Line]) -> None:
    """Recovery where members vanished, as hollow points."""
    for way, (colour, marker) in LOOK.items():
        points = [(line["cell"]["members"], recovery(line)) for line in lines if line["cell"]["way"] == way]
        if points:
            label = f"{NAMES[way]}, a tenth vanish"
            style = {"facecolors": "none", "edgecolors": colour, "marker": marker, "s": 26, "linewidths": 0.9}
            axis.scatter(*zip(*points, strict=True), label=label, zorder=3, **style)


def by_size(lines: Sequence[Line], folder: Path) -> list[Path]:
    """A client's seconds for each size, for the cohort that most sizes have; hatched where extrapolated."""
    members = _usual_cohort(lines)
    chosen = group(line for line in lines if line["cell"]["members"] == members and not line["cell"]["vanish"])
    sizes = sorted({key[1] for key in chosen})
    ways = [way for way in NAMES if any(key[0] == way for key in chosen)]
    drawn, axis = paper.figure(1, 1, (paper.WIDE, 2.9))
    width = 0.84 / len(ways)
    for i, way in enumerate(ways):
        for j, size in enumerate(sizes):
            found = chosen.get((way, size, members, 0))
            if found:
                at = j + (i - (len(ways) - 1) / 2) * width
                first = size == min(key[1] for key in chosen if key[0] == way)
                _bar(axis, at, width, found, way, label=NAMES[way] if first else "")
    axis.set_xticks(range(len(sizes)), [f"{size / MILLION:g} M" for size in sizes])
    axis.set(yscale="log", xlabel="parameters", ylabel=f"client, processor seconds\n({members} members)")
    axis.grid(visible=False, axis="x")
    axis.margins(y=0.12)
    paper.plain_numbers(axis.yaxis)
    _legend(drawn, axis, columns=5)
    return paper.save(drawn, folder / "client-by-size")


def _bar(axis: Any, at: float, width: float, lines: Sequence[Line], way: str, label: str) -> None:
    middle, below, above = paper.spread(client(line) for line in lines)
    style: dict[str, Any] = {"color": LOOK[way][0], "edgecolor": "white", "linewidth": 0.4}
    if _guessed(lines[0]):
        style = {"facecolor": "white", "edgecolor": LOOK[way][0], "hatch": "////", "linewidth": 0.9}
        axis.annotate(
            "extrapolated",
            (at, middle + above),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    axis.bar(at, middle, width, label=label, yerr=[[below], [above]], error_kw={"lw": 0.8, "capsize": 1.5}, **style)


def wire(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Bytes for each parameter, up and down, for one size and cohort."""
    chosen = _of_one_cell(lines)
    drawn, axis = paper.figure(1, 1, (paper.WIDE, 2.9))
    ways = [way for way in NAMES if way in chosen]
    for i, way in enumerate(reversed(ways)):
        line = chosen[way][0]
        for offset, key, solid in ((0.2, "up_bytes", True), (-0.2, "down_bytes", False)):
            value = statistics.median(one[key] for one in chosen[way]) / line["cell"]["parameters"]
            face = LOOK[way][0] if solid else "white"
            axis.barh(i + offset, value, 0.38, facecolor=face, edgecolor=LOOK[way][0], linewidth=0.9)
            _value(axis, value, i + offset)
    axis.set_yticks(range(len(ways)), [NAMES[way] for way in reversed(ways)])
    cell = chosen[ways[0]][0]["cell"]
    about = f"{cell['parameters'] / MILLION:g} M parameters, {cell['members']} members; filled: up, hollow: down"
    axis.set(xscale="log", xlim=(1, None), xlabel=f"bytes a parameter and member ({about})")
    paper.plain_numbers(axis.xaxis)
    axis.grid(visible=False, axis="y")
    return paper.save(drawn, folder / "bytes-on-the-wire")


def _value(axis: Any, value: float, at: float, beside: float | None = None) -> None:
    """Write a bar's value at its end."""
    where = (value if beside is None else beside, at)
    axis.annotate(f"{value:.3g}", where, xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)


def error(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Relative error of the mean against the cohort."""
    size = _usual(lines, "parameters")
    drawn, axis = paper.figure(1, 1, (4.6, 2.9))
    some = [line for line in lines if line["cell"]["parameters"] == size and not line["cell"]["vanish"]]
    _curves(axis, some, lambda line: line["relative_error"], beside=0.035)
    axis.axhline(1e-3, color="black", linestyle="--", linewidth=0.8)
    axis.annotate("limit, up to 16 members", (3, 1e-3), xytext=(0, 3), textcoords="offset points", fontsize=7)
    axis.set(xscale="log", yscale="log", xlabel="members", ylabel="relative error of the mean")
    _exact_ticks(axis, sorted({line["cell"]["members"] for line in some}))
    _legend(drawn, axis, columns=3)
    return paper.save(drawn, folder / "error-by-members")


def memory(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Most memory beyond the update itself, of a client and of the aggregator, for one size and cohort."""
    chosen = _of_one_cell(lines)
    ways = [way for way in NAMES if way in chosen]
    drawn, axes = paper.figure(1, 2, (paper.WIDE, 2.6), sharey=True)
    for axis, side, what in zip(axes, ("client", "aggregator"), ("client", "whole"), strict=True):
        for i, way in enumerate(reversed(ways)):
            values = [v for v in (_megabytes(line, side, what) for line in chosen[way]) if v is not None]
            if not values:
                continue
            size = chosen[way][0]["cell"]["parameters"]
            middle, below, above = (value * 1e6 / size for value in paper.spread(values))
            axis.barh(i, middle, 0.7, color=LOOK[way][0], xerr=[[below], [above]], error_kw={"lw": 0.8})
            _value(axis, middle, i, beside=middle + above)
        axis.set(xscale="log", xlim=(1, None), xlabel="bytes a parameter, at most", title=side)
        paper.plain_numbers(axis.xaxis)
        axis.grid(visible=False, axis="y")
    axes[0].set_yticks(range(len(ways)), [NAMES[way] for way in reversed(ways)])
    return paper.save(drawn, folder / "memory")


def _usual(lines: Sequence[Line], what: str) -> int:
    """The value that most lines have."""
    return int(statistics.mode(line["cell"][what] for line in lines))


def _usual_cohort(lines: Sequence[Line]) -> int:
    """The cohort that was measured for the most sizes."""
    sizes: dict[int, set[int]] = defaultdict(set)
    for line in lines:
        sizes[line["cell"]["members"]].add(line["cell"]["parameters"])
    return max(sorted(sizes), key=lambda members: (len(sizes[members]), members == 10))


def _of_one_cell(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """By way, the lines without dropouts of the usual size and cohort."""
    size, members = _usual(lines, "parameters"), _usual_cohort(lines)
    found: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        cell = line["cell"]
        if (cell["parameters"], cell["members"], cell["vanish"]) == (size, members, 0):
            found[cell["way"]].append(line)
    return found


def _exact_ticks(axis: Any, values: Sequence[int]) -> None:
    axis.set_xticks(values, [str(value) for value in values])
    axis.minorticks_off()


def _legend(drawn: Any, *axes: Any, columns: int = 4) -> None:
    """One legend for all axes, under them."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    drawn.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)
