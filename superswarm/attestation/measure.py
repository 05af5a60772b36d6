"""The simulated measurement: a digest of the installed packages' files. It stands for the code, and proves nothing.

Real platforms measure the whole machine's start; here the program says of itself what it runs. Dependencies, the
interpreter and the operating system are not covered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from superswarm.errors import Environment
from superswarm.values import Measurement
from superswarm.wire import pack

PACKAGES = ("superswarm", "participants", "coordinator")
TAG = "superswarm/v1/simulated-measurement"


@cache
def measure_packages() -> Measurement:
    """Measure the installed packages, once: a later call in this process returns what the first one saw."""
    return measure_folders(_folder(name) for name in PACKAGES)


def measure_folders(folders: Iterable[Path]) -> Measurement:
    """SHA-384 over the sorted (path, SHA-256) of all files in these packages, packed.

    Paths are relative to the package's parent and use `/`, so that two machines agree. Compiled caches
    (`__pycache__`) are left out; everything else counts, package data included.
    """
    entries = sorted(entry for folder in folders for entry in _entries(folder))
    flat = [part for entry in entries for part in entry]
    return Measurement(hashlib.sha384(pack(TAG, *flat)).digest())


def _entries(folder: Path) -> Iterator[tuple[str, bytes]]:
    try:
        for path in folder.rglob("*"):
            name = path.relative_to(folder.parent)
            if "__pycache__" in name.parts:
                continue
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise Environment(f"{name} is a link or a special file: the package cannot be measured")
            if path.is_file():
                yield name.as_posix(), hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise Environment(f"the package {folder.name} cannot be measured: {error.strerror}") from None


def _folder(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise Environment(f"the package {name} is not installed: the measurement covers {', '.join(PACKAGES)}")
    return Path(spec.origin).parent
