"""A member's examples: prompt and completion, read from JSON lines or Parquet, and parted into training and test.

A file ends in `.parquet`, or holds JSON lines. A dataset of several files is a flat folder, on disk or in memory:

    train.jsonl, or train.parquet, or shards of them: train-0.parquet, train-1.parquet, … (read in the names' order)
    test.jsonl, or test.parquet, or shards

or one file of any name. Where nothing is named test, a tenth of the training examples is held out: those whose
prompt's SHA-256 (after `HELD_OUT` in UTF-8) is, as a number, divisible by ten. So an example stays on its side
whatever is added, and all examples of one prompt are on the same side.

Errors name a file and a row, never what they say.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from superswarm.errors import UnusableDataset

EXAMPLE_BYTES: Final = 16 * 1024**2  # of one example
EXAMPLES: Final = 50_000_000  # in one dataset
BATCH: Final = 256  # rows of Parquet that are decoded together
FIELDS: Final = ("prompt", "completion")
HELD_OUT: Final = b"superswarm/v1/held-out"
KINDS: Final = (".jsonl", ".parquet")
PART: Final = re.compile(r"(?P<split>train|test)(?P<shard>-[\w.-]+)?\.(?:jsonl|parquet)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn: after this prompt, this completion."""

    prompt: str
    completion: str


class Files(Protocol):
    """A dataset's files by name: a folder, or what was decrypted into memory."""

    @property
    def names(self) -> Sequence[str]: ...

    def open(self, name: str) -> BinaryIO: ...


class FolderFiles:
    """The files of a folder on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self.names = sorted(path.name for path in folder.iterdir())
        except OSError as error:
            raise UnusableDataset(f"the dataset {folder.name} cannot be read: {error.strerror}") from None

    def open(self, name: str) -> BinaryIO:
        """Read one of them from its beginning."""
        return (self._folder / name).open("rb")


def read_examples(path: Path, *, most: int = EXAMPLES) -> list[Example]:
    """Read the first `most` examples of one file on disk. Raises UnusableDataset, also where there is none."""
    return _some(_opened(path.name, lambda: path.open("rb")), f"the dataset {path.name}", most)


def splits(files: Files) -> tuple[list[Example], list[Example]]:
    """The training and the test examples of a dataset that is laid out as above. Raises UnusableDataset."""
    parts = _parts([name for name in files.names if name.endswith(KINDS)])
    read = {split: _read(files, names) for split, names in parts.items() if names}
    if "test" in read:
        return _some(read["train"], "the training part of the dataset"), _some(read["test"], "its test part")
    return _held_out(_some(read["train"], "the dataset"))


def unread(names: Iterable[str]) -> list[str]:
    """Which of a dataset's files no trainer reads. Raises UnusableDataset for a layout that trainers refuse."""
    names = list(names)
    read = {name for name in names if name.endswith(KINDS) and "/" not in name}
    _parts(sorted(read))
    return [name for name in names if name not in read]


def parse_examples(file: BinaryIO, name: str) -> Iterator[Example]:
    """Read examples one by one, from Parquet if the name says so, else from JSON lines. Other fields are ignored.

    Raises UnusableDataset, naming the row (from 1) and not its content.
    """
    return _parquet(file, name) if name.endswith(".parquet") else _json_lines(file, name)


def _parts(names: Sequence[str]) -> dict[str, list[str]]:
    """Which files are which split: every data file has one, or is the only one there is."""
    if len(names) == 1 and not names[0].startswith("test"):
        return {"train": list(names), "test": []}
    parts: dict[str, list[str]] = {"train": [], "test": []}
    whole: set[str] = set()
    for name in sorted(names):
        found = PART.fullmatch(name)
        if found is None:
            raise UnusableDataset(f"the dataset's file {name} is named neither train nor test")
        parts[found["split"]].append(name)
        if found["shard"] is None:
            whole.add(found["split"])
    for split in whole:
        if len(parts[split]) > 1:
            raise UnusableDataset(f"the dataset has {split} both whole and in parts, or in two forms")
    if not parts["train"]:
        raise UnusableDataset("the dataset has no train.jsonl, no train.parquet and no parts of one")
    return parts


def _read(files: Files, names: Iterable[str]) -> Iterator[Example]:
    return chain.from_iterable(_opened(name, functools.partial(files.open, name)) for name in names)


def _opened(name: str, open_: Callable[[], BinaryIO]) -> Iterator[Example]:
    try:
        with open_() as file:
            yield from parse_examples(file, name)
    except OSError as error:
        raise UnusableDataset(f"the dataset {name} cannot be read: {error.strerror}") from None


def _held_out(examples: list[Example]) -> tuple[list[Example], list[Example]]:
    train: list[Example] = []
    test: list[Example] = []
    for example in examples:
        number = int.from_bytes(hashlib.sha256(HELD_OUT + example.prompt.encode()).digest(), "big")
        (train if number % 10 else test).append(example)
    if not train or not test:
        raise UnusableDataset("the dataset is too small to hold a tenth out: give it a test part")
    return train, test


def _some(examples: Iterator[Example], what: str, most: int = EXAMPLES) -> list[Example]:
    read = list(islice(examples, min(most, EXAMPLES + 1)))
    if not read:
        raise UnusableDataset(f"{what} holds no examples")
    if len(read) > EXAMPLES:
        raise UnusableDataset(f"{what} holds more than {EXAMPLES} examples")
    return read


def _json_lines(file: BinaryIO, name: str) -> Iterator[Example]:
    """Objects with the texts `prompt` and `completion`, one a line; blank lines are skipped."""
    for number, raw in enumerate(iter(lambda: file.readline(EXAMPLE_BYTES + 1), b""), start=1):
        if raw.strip():
            where = f"{name}, line {number}"
            record = _record(raw, where)
            yield _example([record.get(field) for field in FIELDS], where)


def _record(raw: bytes, where: str) -> dict[str, Any]:
    if len(raw) > EXAMPLE_BYTES:
        raise UnusableDataset(f"{where}: longer than {EXAMPLE_BYTES} bytes")
    try:
        record = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UnusableDataset(f"{where}: not UTF-8") from None
    except (ValueError, RecursionError):
        raise UnusableDataset(f"{where}: not JSON") from None
    if not isinstance(record, dict):
        raise UnusableDataset(f"{where}: not a JSON object")
    return record


def _parquet(file: BinaryIO, name: str) -> Iterator[Example]:
    """Rows with the text columns `prompt` and `completion`, decoded batch after batch."""
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        table = parquet.ParquetFile(file, memory_map=False)
        if absent := [field for field in FIELDS if table.schema_arrow.names.count(field) != 1]:
            raise UnusableDataset(f"{name}: the column {absent[0]} is missing, or there twice")
        for batch in table.iter_batches(BATCH, columns=list(FIELDS), use_threads=False):
            for texts in zip(*(batch.column(field) for field in FIELDS), strict=True):
                number += 1
                yield _example([_text(text, f"{name}, row {number}") for text in texts], f"{name}, row {number}")
    except (pa.ArrowException, OSError, UnicodeDecodeError):  # their text may quote the file
        raise UnusableDataset(f"{name}: not a Parquet file, or broken after row {number}") from None


def _text(scalar: Any, where: str) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise UnusableDataset(f"{where}: not UTF-8") from None


def _example(texts: Sequence[object], where: str) -> Example:
    good: list[str] = []
    for field, text in zip(FIELDS, texts, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise UnusableDataset(f"{where}: the field {field} is missing, empty or not a text")
        if not _is_unicode(text):
            raise UnusableDataset(f"{where}: the field {field} has half a surrogate pair, which is no character")
        good.append(text)
    if sum(map(len, good)) > EXAMPLE_BYTES:
        raise UnusableDataset(f"{where}: longer than {EXAMPLE_BYTES} bytes")
    return Example(*good)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
