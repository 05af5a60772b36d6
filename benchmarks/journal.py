"""Results of a benchmark that may be stopped at any time: one JSON line for each cell that is done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.record import machine


class Journal:
    """The lines of one file. A cell that has a line is done; one that was stopped in the middle has none."""

    def __init__(self, file: Path, *, fresh: bool = False) -> None:
        """Read what is there, or with `fresh` begin anew. A last line that was cut is taken off."""
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            file.unlink(missing_ok=True)
        self.lines: list[dict[str, Any]] = list(_whole_lines(file)) if file.exists() else []

    def find(self, cell: Mapping[str, Any]) -> dict[str, Any] | None:
        """The line of this cell. A line of another commit counts: it says which."""
        return next((line for line in self.lines if line["cell"] == dict(cell)), None)

    def add(self, cell: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
        """Append a finished cell with commit and machine; on disk before this returns."""
        line = {"claim": self.file.stem, "cell": dict(cell), **measured, **machine()}
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.lines.append(line)
        return line


def _whole_lines(file: Path) -> Iterator[dict[str, Any]]:
    raw = file.read_bytes()
    whole = raw.rfind(b"\n") + 1
    if whole != len(raw):
        with file.open("r+b") as cut:
            cut.truncate(whole)
    for text in raw[:whole].splitlines():
        yield json.loads(text)
