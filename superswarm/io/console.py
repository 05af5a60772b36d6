"""What people see on a terminal: results on standard output, everything else on standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Sequence
from functools import cache

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from superswarm.values import SIMULATED_WARNING


@cache
def output() -> Console:
    """Standard output: what a command was asked for, and nothing else."""
    return Console(file=_Late("stdout"), soft_wrap=True, highlight=False)  # type: ignore[arg-type]


@cache
def messages() -> Console:
    """Standard error: progress, logs and remarks. One console, so that logs print above a progress bar."""
    return Console(file=_Late("stderr"), soft_wrap=True, highlight=False)  # type: ignore[arg-type]


class _Late:
    """A stream of `sys`, looked up at each use: tests and shells replace it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        return getattr(getattr(sys, self._name), attribute)


def warn_simulated() -> None:
    """Say loudly, at start, that simulated evidence protects nothing; in the log where nobody watches."""
    if messages().is_terminal and os.environ.get("SUPERSWARM_LOG_FORMAT") != "json":
        panel = Panel(Text(SIMULATED_WARNING, style="bold"), border_style="red", expand=False)
        messages().print(panel, soft_wrap=False)
    else:
        logging.getLogger(__name__).warning(SIMULATED_WARNING)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on standard output; columns after the first are aligned right if they hold numbers."""
    rows = [list(row) for row in rows]
    grid = Table(title=Text(title) if title else None, title_justify="left")
    for at, name in enumerate(columns):
        number = bool(rows) and all(isinstance(row[at], int | float) for row in rows)
        grid.add_column(Text(name), justify="right" if number else "left")
    for row in rows:
        grid.add_row(*(Text(_cell(cell)) for cell in row))
    output().print(grid)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 0.01 else f"{value:.3f}"
    return "" if value is None else str(value)


def size(count: int) -> str:
    """Bytes for people: 1,536 is 1.5 KiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds for people: 75 is 1 min 15 s."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
