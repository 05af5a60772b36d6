"""A faithful fake of configfs-tsm (Linux 6.16, drivers/virt/coco/guest/report.c): its counters, errors and races."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

ROOT = "/sys/kernel/config/tsm/report"


def fail(number: int) -> OSError:
    return OSError(number, "as the kernel says it")


@dataclass
class Entry:
    """One folder: `mkdir` makes its attributes, reads and writes have side effects."""

    inblob: bytes = b""
    outblob: bytes | None = None
    auxblob: bytes = b""
    written: int = 0
    read: int = 0


@dataclass
class FakeKernel:
    """`hook` runs before each call: tests write from there, as another program would."""

    provider: str = "sev_guest"
    quote: Callable[[bytes], bytes] = lambda inblob: b"quote over " + inblob
    table: bytes = b""
    entries: dict[str, Entry] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    hook: Callable[[FakeKernel, str, str], None] | None = None
    most: int = 100  # entries, before mkdir fails

    def _called(self, call: str, path: str) -> None:
        self.calls.append((call, path.removeprefix(ROOT)))
        if self.hook is not None:
            self.hook(self, call, path)

    def mkdir(self, path: str) -> None:
        self._called("mkdir", path)
        folder, _, name = path.rpartition("/")
        if folder != ROOT or not name:
            raise fail(errno.ENOENT)
        if not self.provider:
            raise fail(errno.ENXIO)  # no provider is registered
        if path in self.entries:
            raise fail(errno.EEXIST)
        if len(self.entries) >= self.most:
            raise fail(errno.ENOSPC)
        self.entries[path] = Entry()

    def rmdir(self, path: str) -> None:
        self._called("rmdir", path)
        if self.entries.pop(path, None) is None:
            raise fail(errno.ENOENT)

    def write(self, path: str, data: bytes) -> None:
        self._called("write", path)
        entry, attribute = self._find(path)
        if attribute not in ("inblob", "privlevel"):
            raise fail(errno.EACCES)
        if entry.written - entry.read >= 2**32 - 1:
            raise fail(errno.EBUSY)
        if attribute == "inblob":
            if not 0 < len(data) <= 64:
                raise fail(errno.EINVAL)
            entry.inblob = data
        entry.written += 1

    def read(self, path: str) -> bytes:
        self._called("read", path)
        entry, attribute = self._find(path)
        match attribute:
            case "generation":
                return f"{entry.written}\n".encode()
            case "provider":
                return f"{self.provider}\n".encode()
            case "outblob" | "auxblob":
                if not entry.inblob:
                    raise fail(errno.EINVAL)
                if attribute == "auxblob" and self.provider == "tdx_guest":
                    raise fail(errno.ENOENT)  # the attribute is not visible
                if entry.outblob is None or entry.read != entry.written:  # made when it is read
                    entry.outblob, entry.auxblob = self.quote(entry.inblob), self.table
                    entry.read = entry.written
                return entry.outblob if attribute == "outblob" else entry.auxblob
            case _:
                raise fail(errno.ENOENT)

    def _find(self, path: str) -> tuple[Entry, str]:
        folder, _, attribute = path.rpartition("/")
        if folder not in self.entries:
            raise fail(errno.ENOENT)
        return self.entries[folder], attribute
