"""A broker's log on disk, and the witness of its newest entry.

The log lies beside the keys: one entry a line, on disk before an answer leaves. The witness lies in another folder
and says how far the log had come: by it a broker that was restored from an old backup is noticed, and refuses until
its owner has said what is to become of the releases that the old log does not know of.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from participants.broker.decisions import ENTRY_BYTES, FIRST, Decisions, Entry, Event, Head
from superswarm.consortium.documents import dump_json, load_json, require_fields
from superswarm.errors import Environment, Malformed, Rollback
from superswarm.io.files import SECRET, explained, read_bytes, sync_folder, write_bytes
from superswarm.values import Digest

LOG: Final = "log.jsonl"
WITNESS: Final = "broker-head.json"
WITNESS_FORMAT: Final = "superswarm-broker-head/1"
RESTORE: Final = "superswarm broker restore"


@dataclass(frozen=True, slots=True)
class Missing:
    """What a restored log lacks: at most so many entries and releases among them; None where nobody knows."""

    entries: int | None
    releases: int | None

    @property
    def nothing(self) -> bool:
        return self.entries == 0


class Witness:
    """The newest entry that a log is known to have had. Kept away from the log, it tells an old one from a new."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / WITNESS

    def read(self) -> Head | None:
        """The head that was noted last, or None where there is none."""
        if not self.file.exists():
            return None
        data = load_json(read_bytes(self.file, limit=ENTRY_BYTES), "witness of the broker's log")
        require_fields(data, "witness of the broker's log", WITNESS_FORMAT, {"count", "digest", "releases"})
        match data:
            case {"count": int(count), "digest": str(digest), "releases": int(releases)} if min(count, releases) >= 0:
                return Head(count, Digest.parse(digest), releases)
            case _:
                raise Malformed(f"{self.file}: not the witness of a broker's log")

    def note(self, head: Head) -> None:
        """Remember a head, durably."""
        data = {"format": WITNESS_FORMAT, "count": head.count, "digest": str(head.digest), "releases": head.releases}
        write_bytes(self.file, dump_json(data), mode=SECRET, replace=True)


class Ledger:
    """The log of one vault. Whoever calls it holds the vault's lock; several processes may take turns."""

    def __init__(self, vault: Path, witness: Witness, now: Callable[[], int] = lambda: int(time.time())) -> None:
        self.file, self.witness = vault / LOG, witness
        self.decisions = Decisions()
        self._now, self._end = now, 0

    def refresh(self) -> None:
        """Read what was appended since. Raises Malformed for a log that is no chain, Rollback for an old one."""
        self.read()
        known = self.witness.read()
        if known is None:
            if self.decisions.head.count:
                raise Rollback(
                    f"{self.witness.file} is gone, which says how far the broker's log had come: "
                    f"see `{RESTORE} --help` for what that means"
                )
            self.witness.note(Head(0, FIRST, 0))
        elif not self.missing(known).nothing:
            raise Rollback(
                f"the broker's log lacks entries that it had, such as releases: an old copy of {self.file} was put "
                f"in its place; `{RESTORE}` says what to do"
            )

    def read(self) -> list[Entry]:
        """Read what was appended since, whatever the witness says. An entry that a crash cut short is cut off."""
        if not self.file.exists():
            if self._end:
                raise Environment(f"{self.file} is gone: put it back, or restore a backup")
            return []
        with explained(self.file), self.file.open("r+b") as file:
            if os.fstat(file.fileno()).st_size < self._end:
                raise Rollback(f"{self.file} is shorter than before: `{RESTORE}` says what to do")
            file.seek(self._end)
            return self._read(file)

    def _read(self, file: BinaryIO) -> list[Entry]:
        entries = []
        while line := file.readline(ENTRY_BYTES):
            if not line.endswith(b"\n"):
                if len(line) == ENTRY_BYTES:
                    raise Malformed(f"{self.file}: entry {self.decisions.head.count + 1} is too long")
                file.truncate(self._end)  # a crash came before it was on disk, and so before anybody was answered
                break
            try:
                entries.append(self.decisions.read(line[:-1]))
            except Malformed as error:
                raise Malformed(f"{self.file}: {error}; restore a backup") from None
            self._end += len(line)
        return entries

    def missing(self, known: Head) -> Missing:
        """What this log lacks, at most, of one that had come to `known`."""
        here = self.decisions.head
        if here.count < known.count:
            return Missing(known.count - here.count, max(0, known.releases - here.releases))
        if known.count == 0 or self.decisions.digests[known.count - 1] == known.digest:
            return Missing(0, 0)
        return Missing(known.count, known.releases)  # as long, but another one: none of its entries may be here

    def append(self, event: Event, **fields: Any) -> Entry:
        """Write one entry, on disk before this returns, then the witness. What cannot be written whole is taken back.

        Raises DiskFull or Environment.
        """
        entry = self.decisions.next(event, self._now(), fields)
        line = entry.to_bytes() + b"\n"
        new = not self.file.exists()
        with explained(self.file):
            with FileIO(os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, SECRET), "r+") as file:
                self._write(file, line)
            if new:
                sync_folder(self.file.parent)
        self._end += len(line)
        self.decisions.take(entry)
        self.witness.note(self.decisions.head)
        return entry

    def _write(self, file: FileIO, line: bytes) -> None:
        try:
            file.seek(self._end)
            written = 0
            while written < len(line):
                written += file.write(line[written:])
            os.fsync(file.fileno())
        except OSError:
            file.truncate(self._end)
            raise
