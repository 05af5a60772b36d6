"""Tables and plots of `superswarm bench sums`."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import paper
from benchmarks.figures.claims import CLIENT, ERROR, RECOVER, SUMS, UP_TO, Line, cpu, table
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
LOOKS: Final = {NAMES[way]: look for way, look in LOOK.items()}
LINES: Final = dict(zip(NAMES, (":", ":", "-", "-", "--", "--", "--", "--", "-."), strict=True))  # nothing hidden, HE
SMALL: Final = {"markersize": 6, "markeredgewidth": 0.4}
HOLLOW: Final = {"linestyle": "none", "markerfacecolor": "none", "markersize": 8, "markeredgewidth": 0.9}
HEAD: Final = (
    *("way", "parameters", "members", "vanish", "client encode s", "client protect s", "sum s", "recover s"),
    *("up B/param", "down B/param", "relative error", "client MB", "aggregator MB", "sum / numpy"),
    *("passes a stream", "client / CKKS 8192", "repeats", "note"),
)
Rows = dict[tuple[Any, ...], list[Line]]
Panels = dict[str, dict[str, list[float]]]  # title, row, repeats


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
    gone = [line for line in chosen if line["cell"]["vanish"]]
    panels: list[tuple[str, Callable[[Line], float]]] = [
        ("client: encode, protect", client),
        ("aggregator: add all updates", lambda line: cpu(line, "aggregator", ("sum",))),
        ("recover: unmask or decrypt", recovery),
    ]
    members = sorted({line["cell"]["members"] for line in chosen})
    drawn, axes = paper.figure(1, 3, (paper.WIDE, 3.3), sharex=True)
    for axis, (title, number) in zip(axes, panels, strict=True):
        _curves(axis, [line for line in chosen if not line["cell"]["vanish"]], number)
        axis.set(title=title, xlabel="members", xscale="log", yscale="log")
        axis.set_xticks(members, [str(n) for n in members])
        axis.set_xlim(members[0] / 1.3, members[-1] * 1.3)
        axis.minorticks_off()
    _curves(axes[2], gone, recovery, vanished=True)
    for axis in axes:
        paper.plain_numbers(axis.yaxis)
    axes[0].set_ylabel(f"processor seconds\n({size / MILLION:g} M parameters)")
    ways = [way for way in NAMES if any(line["cell"]["way"] == way for line in chosen)]
    entries = [paper.mark(NAMES[way], **_style(way)) for way in ways]
    if any(line["cell"]["repeat"] > 1 for line in chosen):
        entries.append(paper.whisker())
    if gone:
        entries.append(paper.mark("a tenth vanished", **HOLLOW))
    paper.foot(drawn, "", entries)
    return paper.save(drawn, folder / "seconds-by-members")


def _style(way: str) -> dict[str, Any]:
    colour, marker = LOOK[way]
    return {"color": colour, "marker": marker, "linestyle": LINES[way], "markeredgecolor": "white", **SMALL}


def _curves(axis: Any, lines: Sequence[Line], number: Callable[[Line], float], *, vanished: bool = False) -> None:
    """A curve of medians for each way, with the least and the most; hollow points around it where some vanished."""
    for way in NAMES:
        points: dict[int, list[float]] = defaultdict(list)
        for line in lines:
            if line["cell"]["way"] == way:
                points[line["cell"]["members"]].append(number(line))
        if not points:
            continue
        members = sorted(points)
        middle, below, above = zip(*(paper.spread(points[n]) for n in members), strict=True)
        style = _style(way)
        if vanished:
            style |= HOLLOW | {"markeredgecolor": LOOK[way][0]}
        axis.errorbar(members, middle, yerr=(below, above), elinewidth=1.0, **style)


def by_size(lines: Sequence[Line], folder: Path) -> list[Path]:
    """A client's seconds for each size, for the cohort that most sizes have; hollow where extrapolated."""
    members = _usual_cohort(lines)
    panels: Panels = defaultdict(dict)
    hollow = set()
    found = group(line for line in lines if line["cell"]["members"] == members and not line["cell"]["vanish"])
    for (way, size, *_), some in sorted(found.items(), key=lambda item: item[0][1]):
        title = f"{size / MILLION:g} M parameters"
        panels[title][NAMES[way]] = [client(line) for line in some]
        if _guessed(some[0]):
            hollow.add((title, NAMES[way]))
    unit = f"one client's processor seconds ({members} members)"
    drawn = paper.dot_plots(panels, unit, hollow=hollow, looks=LOOKS)
    return paper.save(drawn, folder / "client-by-size")


def wire(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Bytes for each parameter, up and down, for one size and cohort."""
    chosen, about = _of_one_cell(lines)
    panels = {
        title: {NAMES[way]: [line[key] / line["cell"]["parameters"] for line in some] for way, some in chosen.items()}
        for title, key in (("up: member to aggregator", "up_bytes"), ("down: aggregator to member", "down_bytes"))
    }
    drawn = paper.dot_plots(panels, f"bytes a parameter and member ({about})", looks=LOOKS)
    return paper.save(drawn, folder / "bytes-on-the-wire")


def error(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Relative error of the mean, a panel for each cohort; what `masked` counts in decides its error."""
    size = _usual(lines, "parameters")
    some = [line for line in lines if line["cell"]["parameters"] == size and not line["cell"]["vanish"]]
    panels: Panels = {}
    limits: dict[str, float] = {}
    for members in sorted({line["cell"]["members"] for line in some}):
        found = [line for line in some if line["cell"]["members"] == members]
        ways = sorted({line["cell"]["way"] for line in found})
        bits = {line["ring_bits"] for line in found if "ring_bits" in line}
        title = f"{members} members" + "".join(f"\nmasked: {n}-bit ring" for n in bits)
        if members <= UP_TO:
            limits[title] = ERROR
        panels[title] = {
            NAMES[way]: [line["relative_error"] for line in found if line["cell"]["way"] == way] for way in ways
        }
    unit = f"relative error of the mean ({size / MILLION:g} M parameters)"
    drawn = paper.dot_plots(panels, unit, looks=LOOKS, limits=limits, limit=f"limit of masked, to {UP_TO} members")
    return paper.save(drawn, folder / "error-by-members")


def memory(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Most memory beyond the update itself, of a client and of the aggregator, for one size and cohort."""
    chosen, about = _of_one_cell(lines)
    panels: Panels = defaultdict(dict)
    for side, what in (("client", "client"), ("aggregator", "whole")):
        for way, some in chosen.items():
            values = [1e6 * v / line["cell"]["parameters"] for line in some if (v := _megabytes(line, side, what))]
            if values:
                panels[side][NAMES[way]] = values
    if not panels:
        return []
    drawn = paper.dot_plots(panels, f"most memory, bytes a parameter ({about})", looks=LOOKS)
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


def _of_one_cell(lines: Sequence[Line]) -> tuple[dict[str, list[Line]], str]:
    """By way, the lines without dropouts of the usual size, and of a usual cohort with it; and which they are."""
    size = _usual(lines, "parameters")
    some = [line for line in lines if line["cell"]["parameters"] == size and not line["cell"]["vanish"]]
    members = _usual_cohort(some)
    found: dict[str, list[Line]] = defaultdict(list)
    for line in some:
        if line["cell"]["members"] == members:
            found[line["cell"]["way"]].append(line)
    return found, f"{size / MILLION:g} M parameters, {members} members"
