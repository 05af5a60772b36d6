"""Searches what a program left on a machine for words that nobody else writes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - searched, not written


def holding(canaries: Iterable[bytes], *folders: Path, since: float) -> list[Path]:
    """Files below `folders` and in /dev/shm, written at `since` (unix seconds) or later, that hold a canary.

    Others use /dev/shm too: what vanishes meanwhile is theirs.
    """
    words = list(canaries)
    found = []
    for folder in (*folders, SHARED_MEMORY):
        for place, _, names in os.walk(folder):  # leaves out folders that vanish
            for path in (Path(place, name) for name in names):
                try:
                    if path.is_file() and path.stat().st_mtime >= since:
                        content = path.read_bytes()
                        found += [path for word in words if word in content][:1]
                except OSError:
                    continue
    return found
