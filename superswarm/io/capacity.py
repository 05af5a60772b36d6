"""How much memory this process can still take, as the kernel and its control groups (cgroups) say.

Asked before something large is put into memory: afterwards there is no error to catch, the kernel ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import psutil

from superswarm.errors import Environment
from superswarm.io.console import size as in_words

UNLIMITED: Final = 1 << 60  # bytes; cgroup v1 writes "no limit" as a number above this


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can be taken without swapping: the machine's, or the least that a control group above leaves."""
    free: int = psutil.virtual_memory().available
    return max(0, min([free, *_left_in_groups(root)]))


def require_memory(needed: int, what: str) -> None:
    """Raise Environment where `needed` bytes do not fit into the memory that is left."""
    free = available_memory()
    if needed > free:
        raise Environment(
            f"memory is too small for {what}: it takes {in_words(needed)}, {in_words(free)} are free. "
            "Free memory, or give this machine or its container more"
        )


def _left_in_groups(root: Path) -> Iterator[int]:
    for folder, limit, usage, cache in _groups(root):
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None and most < UNLIMITED:
            yield most - used + _reclaimable(folder / "memory.stat", cache)


def _groups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """This process's memory groups and those above: folder, its files of limit and use, the row of idle file cache.

    In a container the path may be the host's while the mount begins at the container's group: the mount counts too.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        relative = PurePosixPath(path.lstrip("/"))
        if not controllers:
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        for part in (relative, *relative.parents):
            yield base / part, *names


def _reclaimable(statistics: Path, row: str) -> int:
    try:
        fields = (line.split() for line in statistics.read_text().splitlines())
        return next((int(field[1]) for field in fields if field[0] == row), 0)
    except OSError:
        return 0


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such limit, or "max"
        return None
