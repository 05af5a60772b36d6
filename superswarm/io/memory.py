"""Files that exist only in this process's memory: for plaintext, where a library wants files.

Each file is an anonymous one of the kernel's (memfd_create(2)): it has no name anywhere, is sealed against change
once it is filled, and is gone with the process, however that ends. Libraries that open paths get a private folder of
links to /proc/self/fd/N: another process that follows one reaches a file of its own, or none. A process that is
killed leaves such a folder behind, and with it names, but no content.

Pages are locked before anything is written to them, where RLIMIT_MEMLOCK allows. Where it does not, they could be
swapped out: `locked` says so. Where the kernel offers no such files nothing is written to a disk instead.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

from superswarm.errors import Environment, Malformed, TooLarge
from superswarm.io.capacity import require_memory
from superswarm.io.linux import Pin, pin

FILES: Final = 1024  # each holds a file descriptor
NAME_BYTES: Final = 255
PROC: Final = Path("/proc/self/fd")
MFD_NOEXEC_SEAL: Final = 8  # linux/memfd.h, since Linux 6.3


class MemoryFiles:
    """Named files in memory, each written once. Serves as the sink that an asset is decrypted into.

    What was written is plaintext: `close`, or the end of a `with` block, drops it. A file that is still mapped then
    keeps its pages until it is unmapped.
    """

    def __init__(self) -> None:
        """Raises Environment where this system has no anonymous files."""
        if sys.platform != "linux" or not PROC.is_dir():
            raise Environment("plaintext is only ever held in memory, which takes Linux with /proc mounted")
        self._files: dict[str, _File] = {}
        self._folder: Path | None = None

    @contextmanager
    def create(self, name: str, size: int) -> Iterator[BinaryIO]:
        """Write the file `name` of exactly `size` bytes; it is there once the block has ended without an exception.

        Names may have folders: `a/b.jsonl`. Raises Malformed for a name that is none or is taken, or fewer bytes,
        TooLarge for more of them or too many files, and Environment where memory is too small.
        """
        if not all(map(_is_name, name.split("/"))) or name in self._files:
            raise Malformed("a file's name is empty, too long, taken already, or leads out of its folder")
        if len(self._files) >= FILES:
            raise TooLarge(f"more than {FILES} files")
        require_memory(size, "a file that must be held in it")
        with _explained():
            writable = _anonymous()
        try:
            with _explained():
                os.ftruncate(writable, size)
                file = _File.of(writable, size)
            try:
                writer = _Writer(writable, size)
                yield cast("BinaryIO", writer)
                writer.finish()
            except BaseException:
                file.close()
                raise
        finally:
            os.close(writable)
        self._files[name] = file

    @property
    def names(self) -> list[str]:
        return sorted(self._files)

    @property
    def locked(self) -> bool:
        """Whether no page of these files can be swapped out."""
        return all(file.pin is not None for file in self._files.values() if file.size)

    def size(self, name: str) -> int:
        """Bytes in a file. Raises KeyError."""
        return self._files[name].size

    def open(self, name: str) -> BinaryIO:
        """Read a file from its beginning. Raises KeyError."""
        return self._files[name].path.open("rb")

    def folder(self, names: Iterable[str]) -> Path:
        """Make a folder that only this user can read with a link to each of these files. It lasts until `close`.

        In this process, the links open and map like any file; resolved to the end they name no path.
        """
        if self._folder is not None:
            raise RuntimeError("the files have a folder already")
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="superswarm-memory-"))
            for name in names:
                link = self._folder / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(self._files[name].path)
        except OSError as error:
            raise Environment(f"cannot make a folder for temporary files: {error.strerror}") from None
        return self._folder

    def close(self) -> None:
        """Drop all files. Twice does no harm."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # it holds names only
            self._folder = None
        while self._files:
            self._files.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(slots=True)
class _File:
    """An anonymous file, open for reading, and its locked mapping."""

    handle: int
    size: int
    pin: Pin | None

    @classmethod
    def of(cls, writable: int, size: int) -> Self:
        handle = os.open(PROC / str(writable), os.O_RDONLY | os.O_CLOEXEC)
        return cls(handle, size, pin(handle, size) if size else None)

    @property
    def path(self) -> Path:
        return PROC / str(self.handle)

    def close(self) -> None:
        if self.pin is not None:
            self.pin.release()
        os.close(self.handle)


class _Writer(io.RawIOBase):
    """Fills one file from its beginning, each `write` wholly."""

    def __init__(self, handle: int, size: int) -> None:
        super().__init__()
        self._handle = handle
        self._missing = size  # bytes

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]  # any buffer
        with memoryview(data).cast("B") as view:
            if len(view) > self._missing:
                raise TooLarge("a file has more bytes than its announced size")
            done = 0
            with _explained():
                while done < len(view):
                    done += os.write(self._handle, view[done:])
        self._missing -= done
        return done

    def finish(self) -> None:
        """Seal the file against any change. Raises Malformed where it is not full."""
        if self._missing:
            raise Malformed(f"a file ends {self._missing} bytes before its announced size")
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self._handle, fcntl.F_ADD_SEALS, seals)


def _anonymous() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("superswarm", flags | MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:  # an older kernel
            raise
        return os.memfd_create("superswarm", flags)


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and name.isprintable() and len(name.encode()) <= NAME_BYTES


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what the kernel says of memory and descriptors into the error of ours."""
    try:
        yield
    except OSError as error:
        raise Environment(f"a file cannot be held in memory: {os.strerror(error.errno or 0)}") from None
