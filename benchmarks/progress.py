"""How far a benchmark of many cells is, on the terminal; and the loop that makes it resumable."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from benchmarks.journal import Journal
from benchmarks.secure.link import Failed


class Cell(Protocol):
    @property
    def key(self) -> dict[str, Any]: ...


def measure_all(
    cells: Sequence[Cell],
    journal: Journal,
    measure: Callable[[Any], Mapping[str, Any]],
    summary: Callable[[Mapping[str, Any]], str],
) -> None:
    """Measure each cell that has no line yet. Those that failed are left for the next run, and end this one.

    Raises:
        SystemExit: cells failed; with their names, after all others were measured.
    """
    left = [cell for cell in cells if journal.find(cell.key) is None]
    print(f"{len(cells)} cells, {len(cells) - len(left)} of them measured before: {journal.file}")
    began, failed = time.monotonic(), []
    for number, cell in enumerate(left, 1):
        print(f"[{number}/{len(left)}] {cell}: ", end="", flush=True)
        try:
            line = journal.add(cell.key, measure(cell))
        except Failed as failure:
            failed.append(str(cell))
            print("failed")
            print(str(failure), file=sys.stderr)
            continue
        print(f"{summary(line)}; {_left(began, number, len(left))}", flush=True)
    if failed:
        raise SystemExit(f"{len(failed)} cells failed and are left for the next run: {'; '.join(failed)}")


def _left(began: float, done: int, of: int) -> str:
    seconds = (time.monotonic() - began) / done * (of - done)
    return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"
