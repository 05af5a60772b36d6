"""Which files of a folder are sealed: a dataset's, or those of a base model that count and cannot run code."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from participants.models import CONFIGURATION, model_files, refuse_remote_code
from superswarm.assets.container import DEPTH, Kind, check_name
from superswarm.errors import Malformed, Misconfigured, UnusableDataset
from superswarm.io.files import explained
from superswarm.io.sealing import LocalFile

DATASET_KINDS: Final = (".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Selection:
    """What is sealed, sorted by name, and what lies beside it and is not."""

    files: tuple[LocalFile, ...]
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def select(path: Path, kind: Kind) -> Selection:
    """The files of a model or dataset. Raises Environment where they cannot be read, else what makes them unfit."""
    return _model(path) if kind == "model" else _dataset(path)


def _model(path: Path) -> Selection:
    """Exactly what a trainer loads and `superswarm model digest` covers. Raises UnsafeModel or Malformed."""
    files = model_files(path).files
    for name, file in files:
        if name in CONFIGURATION:
            with file.open("rb") as source:
                refuse_remote_code(name, source)
    covered = {name for name, _ in files}
    with explained(path):
        beside = [entry.name for entry in path.iterdir()] if path.is_dir() else []
    return _selection(files, sorted(set(beside) - covered))


def _dataset(path: Path) -> Selection:
    """One file, or all of a folder but what is hidden. Raises UnusableDataset or Misconfigured."""
    with explained(path):
        if stat.S_ISREG(path.stat().st_mode):
            if path.suffix not in DATASET_KINDS:
                raise UnusableDataset(f"{path.name} is not a dataset: give a .jsonl or .parquet file, or a folder")
            return _selection([(path.name, path)], [])
        left_out: list[str] = []
        return _selection(list(_walk(path, "", left_out)), left_out)


def _walk(folder: Path, prefix: str, left_out: list[str]) -> Iterator[tuple[str, Path]]:
    """Names and paths of all files below a folder. Links are refused: what they lead to may not be meant."""
    if prefix.count("/") >= DEPTH:
        raise Misconfigured(f"{folder} lies more than {DEPTH} folders deep")
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith("."):
                left_out.append(name)
            elif entry.is_dir(follow_symlinks=False):
                yield from _walk(folder / entry.name, f"{name}/", left_out)
            elif entry.is_file(follow_symlinks=False):
                yield name, folder / entry.name
            else:
                raise Misconfigured(f"{folder / entry.name} is a link or no file: put the file itself there")


def _selection(files: list[tuple[str, Path]] | tuple[tuple[str, Path], ...], left_out: list[str]) -> Selection:
    if not files:
        raise UnusableDataset("the folder holds no files")
    selected = []
    for name, path in files:
        try:
            check_name(name)
        except Malformed as error:
            raise Misconfigured(f"{path}: {error}. Rename it") from None
        with explained(path):
            selected.append(LocalFile(name, path, path.stat().st_size))
    return Selection(tuple(sorted(selected, key=lambda file: file.name)), tuple(sorted(left_out)))
