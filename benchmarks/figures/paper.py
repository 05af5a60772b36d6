"""How figures look and tables are written: fit for a paper in one or two columns, and for readers who see no red."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31", "#7F7F7F")
"""Okabe and Ito's palette, which tells apart what readers with any colour vision see, and two darker ones."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
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


def plain_numbers(side: Any) -> None:
    """Ticks of a logarithmic axis as 0.1, 1, 10, and 2 and 5 between them where it is short."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = side.get_view_interval()
    side.set_major_locator(LogLocator(subs=(1.0,) if high > 300 * low else (1.0, 2.0, 5.0)))
    side.set_minor_locator(NullLocator())
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def short(number: float) -> str:
    """Three significant digits, without an exponent where it can be read without."""
    if number == 0:
        return "0"
    return f"{number:.3g}" if 1e-4 <= abs(number) < 1e5 else f"{number:.1e}"


def provenance(lines: Iterable[Any]) -> str:
    """On what, when and from which commits: for the foot of tables and figures."""
    found = list(lines)
    commits = sorted({str(line["commit"]) for line in found})
    loads = [float(line["load"]) for line in found]
    machine = ", ".join(sorted({f"{line['cpu']}, {line['cores']} cores" for line in found}))
    return f"{machine}; load {min(loads):.1f} to {max(loads):.1f}; commit {', '.join(commits)}"
