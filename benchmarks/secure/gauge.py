"""What parts of a computation take: seconds of wall and processor, and how much memory they add at most."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): sets the peak to what is resident now
Spent = tuple[float, float]  # wall and processor seconds


@dataclass
class Gauge:
    """Seconds by phase and by whose they are; and how far memory grew, within each `growth` and since `start`."""

    spent: dict[str, dict[str, Spent]] = field(default_factory=lambda: defaultdict(dict))
    grown: dict[str, int] = field(default_factory=dict)  # bytes
    _base: int | None = None

    def start(self) -> None:
        """Count this whole process's memory from here on, as what it holds from now until `report`."""
        trim()
        self._base = _status("VmRSS") if _reset_peak() else None

    @contextmanager
    def time(self, phase: str, whose: str = "") -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            before = self.spent[phase].get(whose, (0.0, 0.0))
            self.spent[phase][whose] = (
                before[0] + time.perf_counter() - wall,
                before[1] + time.process_time() - cpu,
            )

    @contextmanager
    def growth(self, what: str) -> Iterator[None]:
        """How far resident memory rises above where it began. Not measured where Linux does not count it."""
        trim()
        began = _status("VmRSS") if _reset_peak() else None
        yield
        peak = _status("VmHWM")
        if began is not None and peak is not None:
            self.grown[what] = max(self.grown.get(what, 0), peak - began)

    def report(self) -> dict[str, Any]:
        """By phase: seconds of processor and wall, over all whose they are."""
        seconds = {
            phase: {
                "cpu": round(statistics.median(cpu for _, cpu in by.values()), 6),
                "cpu_least": round(min(cpu for _, cpu in by.values()), 6),
                "cpu_most": round(max(cpu for _, cpu in by.values()), 6),
                "wall": round(statistics.median(wall for wall, _ in by.values()), 6),
                "count": len(by),
            }
            for phase, by in self.spent.items()
        }
        peak = _status("VmHWM")
        whole = {} if self._base is None or peak is None else {"whole": peak - self._base}
        return {"seconds": seconds, "grown_bytes": {**self.grown, **whole}}


def trim() -> None:
    """Give freed memory back to the system, so that it does not count as there before."""
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def resident_peak() -> int:
    """The most bytes that were ever resident in this process; 0 where Linux does not count them."""
    return _status("VmHWM") or 0


def _reset_peak() -> bool:
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def _status(name: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
