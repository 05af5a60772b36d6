"""How figures look and tables are written: fit for a paper in one or two columns, and for readers who see no red."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31", "#7F7F7F")
"""Okabe and Ito's palette, which tells apart what readers with any colour vision see, and two darker ones."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
INK: Final = "#404040"
DASHES: Final[dict[str, Any]] = {"color": "black", "linestyle": "--", "linewidth": 0.8}  # of a limit
STYLE: Final[dict[str, Any]] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.which": "major",
    "grid.color": "#D8D8D8",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "superswarm",  # the same figure gives the same file
    "savefig.bbox": "tight",
    "figure.dpi": 200,
}
WIDE: Final = 7.1  # inches: both columns


def figure(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    """A figure without a display, and its axes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    settings: Any = mpl.rcParams
    settings.update(STYLE)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", **options)


def save(drawn: Any, file: Path) -> list[Path]:
    """Write FILE.png and FILE.svg."""
    import matplotlib.pyplot as plt

    file.parent.mkdir(parents=True, exist_ok=True)
    files = [file.with_suffix(".png"), file.with_suffix(".svg")]
    drawn.savefig(files[0])
    drawn.savefig(files[1], metadata={"Date": None})
    plt.close(drawn)
    return files


def write_table(rows: Sequence[Sequence[str]], file: Path) -> list[Path]:
    """Write FILE.md and FILE.csv; the first row is the head."""
    file.parent.mkdir(parents=True, exist_ok=True)
    head, *body = rows
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]
    files = [file.with_suffix(".md"), file.with_suffix(".csv")]
    files[0].write_text("\n".join(lines) + "\n", encoding="utf-8")
    with files[1].open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows(rows)
    return files


def spread(numbers: Iterable[float]) -> tuple[float, float, float]:
    """Median, and how far the least and the most are from it: lengths of error bars."""
    found = list(numbers)
    middle = statistics.median(found)
    return middle, middle - min(found), max(found) - middle


def dot_plots(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    unit: str,
    *,
    shared: bool = True,
    ranked: bool = True,
    looks: Mapping[str, tuple[str, str]] | None = None,
    hollow: Container[tuple[str, str]] = (),
    limits: Mapping[str, float] | None = None,
    limit: str = "limit",
) -> Any:
    """A panel for each title, with the same rows: the median of a row's repeats as a dot, least to most as a line.

    Panels are `shared` if all have one axis; `ranked` rows go by the first panel, least first. `looks` is by row,
    `hollow` of (title, row) that were extrapolated, `limits` by title. Up to three panels write values beside dots.
    """
    looks, limits = looks or {}, limits or {}
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    if ranked:
        names.sort(key=lambda name: next(statistics.median(rows[name]) for rows in panels.values() if name in rows))
    drawn, axes = figure(1, len(panels), (WIDE, 1.1 + 0.2 * len(names)), sharey=True, squeeze=False)
    for axis, (title, rows) in zip(axes[0], panels.items(), strict=True):
        name_rows(axis, names)
        for name, values in rows.items():
            colour, marker = looks.get(name, (COLOURS[0], MARKERS[0]))
            face = "white" if (title, name) in hollow else colour
            middle, below, above = spread(values)
            style = {"color": colour, "marker": marker, "markerfacecolor": face, "elinewidth": 1.0}
            axis.errorbar(middle, names.index(name), xerr=[[below], [above]], **style)
            if len(panels) <= 3:
                write_value(axis, middle, (middle + above, names.index(name)))
        if title in limits:
            axis.axvline(limits[title], **DASHES)
        axis.set(title=title, xscale="log")
        shown = panels if shared else (title,)
        found = [value for one in shown for values in panels[one].values() for value in values]
        found += [limits[one] for one in shown if one in limits]
        axis.set_xlim(_room(found, (WIDE - 1.5) / len(panels)))
        plain_numbers(axis.xaxis, most=300 if len(panels) <= 2 else 30)
    many = any(len(values) > 1 for rows in panels.values() for values in rows.values())
    entries = [mark("median"), whisker()] if many else [mark("measured once")]
    if any((title, name) in hollow for title, rows in panels.items() for name in rows):
        entries.append(mark("extrapolated", markerfacecolor="white"))
    if limits:
        entries.append(mark(limit, marker="", **DASHES))
    foot(drawn, unit, entries)
    return drawn


def name_rows(axis: Any, names: Sequence[str]) -> None:
    """Rows from top to bottom, every other one shaded."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    for i in range(1, len(names), 2):
        axis.axhspan(i - 0.5, i + 0.5, color="#F2F2F2", linewidth=0, zorder=0)


def write_value(axis: Any, value: float, where: tuple[float, float]) -> None:
    """A dot's value, to the right of what is drawn up to `where`."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2, foreground="white")]
    style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 7, "path_effects": halo}
    axis.annotate(short(value), where, xytext=(6, 0), **style)


def foot(drawn: Any, unit: str, entries: Sequence[Any]) -> None:
    """Under all panels: the unit of their axes, and one legend."""
    columns = min(len(entries), 4)
    drawn.legend(handles=entries, title=unit, title_fontsize=9, loc="outside lower center", ncols=columns)


def mark(label: str, **style: Any) -> Any:
    """A legend's entry: a point in no row's colour, or as `style` says."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **{"linestyle": "none", "marker": "o", "color": INK, "label": label, **style})


def whisker() -> Any:
    return mark("least to most of the repeats", linestyle="-", marker="", linewidth=1.0)


def _room(values: Sequence[float], inches: float) -> tuple[float, float]:
    """Ends of a logarithmic axis of that length, with room for a value at the right of the last dot."""
    low, high = min(values), max(values)
    decades = max(math.log10(high / low), 0.5)
    return low / 10 ** (0.1 * decades), high * 10 ** (0.5 * decades / (inches - 0.5))


def plain_numbers(side: Any, *, most: float = 300) -> None:
    """Ticks of a logarithmic axis as 0.1, 1, 10, as powers where it is tiny; 2 and 5 too where its ends are near."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = side.get_view_interval()
    side.set_major_locator(LogLocator(subs=(1.0,) if high > most * low else (1.0, 2.0, 5.0)))
    side.set_minor_locator(NullLocator())
    as_power = low < 1e-5
    side.set_major_formatter(
        FuncFormatter(lambda value, _: f"$10^{{{math.log10(value):.0f}}}$" if as_power else f"{value:g}")
    )


def short(number: float) -> str:
    """Three significant digits, without an exponent where it can be read without."""
    if number == 0:
        return "0"
    if 1000 <= abs(number) < 1e6:
        return f"{number:,.0f}"
    return f"{number:.3g}" if 1e-4 <= abs(number) < 1000 else f"{number:.1e}"


def provenance(lines: Iterable[Any]) -> str:
    """On what, when and from which commits: for the foot of tables and figures."""
    found = list(lines)
    commits = sorted({str(line["commit"]) for line in found})
    loads = [float(line["load"]) for line in found]
    machine = ", ".join(sorted({f"{line['cpu']}, {line['cores']} cores" for line in found}))
    return f"{machine}; load {min(loads):.1f} to {max(loads):.1f}; commit {', '.join(commits)}"
