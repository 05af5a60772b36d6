"""How a benchmark records what it measured: one JSON object a line, with commit, machine and versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
CHANGED = ("status", "--porcelain", "-uno", "--", ":/", ":(exclude,top)benchmarks/results")


def record(claim: str, *, out: Path | None = None, **measured: Any) -> dict[str, Any]:
    """Append one measurement to <claim>.jsonl in `out`, or in benchmarks/results, and print it."""
    line, folder = {"claim": claim, **measured, **machine()}, out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{claim}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps({"claim": claim, **measured}))
    return line


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD") + ("+" if _git(*CHANGED) else ""),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def best_of(runs: int, *functions: Any) -> list[float]:
    """The shortest CPU seconds of each function over interleaved runs: what else runs here slows all alike."""
    best = [float("inf")] * len(functions)
    for _ in range(runs):
        for at, function in enumerate(functions):
            started = time.process_time()
            function()
            best[at] = min(best[at], time.process_time() - started)
    return best


def _git(*arguments: str) -> str:
    try:
        found = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def _cpu() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
