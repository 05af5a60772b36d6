"""Where sealed assets lie: a local file, an http(s) address, or another that fsspec knows (s3://, gs://, …).

A source has a size and can be read from any offset. What it gives is ciphertext that anybody may have changed:
whoever reads it compares digests. A source only has to say what went wrong, and holds no more than a buffer.
"""

from __future__ import annotations

import io
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, cast
from urllib.parse import urlsplit

from superswarm.assets.container import MAX_SEALED_BYTES
from superswarm.errors import Environment, Error, Malformed, Misconfigured, TooLarge, Unavailable
from superswarm.io.config import SCHEME
from superswarm.io.files import explained

BUFFER: Final = 1 << 20  # bytes


class Source(Protocol):
    """Something that can be read from any offset, more than once."""

    @property
    def name(self) -> str:
        """Where it lies, for people: without passwords and signatures that its address may hold."""
        ...

    @property
    def size(self) -> int:
        """Its bytes."""
        ...

    def open(self, offset: int = 0) -> BinaryIO:
        """Read from `offset` to the end; close it when done. Reading raises our errors, like opening.

        One `read` may give less than was asked for before the end: see `read_up_to` of superswarm.crypto.stream.
        """
        ...


def open_source(location: str) -> Source:
    """Find what lies at a path or address. Misconfigured, Environment, Unavailable or TooLarge where that fails."""
    scheme = SCHEME.match(location)
    match scheme["scheme"].lower() if scheme else "file":
        case "file":
            source: Source = LocalSource(Path(location.removeprefix("file://")).expanduser())
        case "http" | "https":
            from superswarm.io.ranges import HttpSource

            source = HttpSource(location)
        case _:
            source = FsspecSource(location)
    if source.size > MAX_SEALED_BYTES:
        raise TooLarge(f"{source.name} has {source.size} bytes; a sealed asset has at most {MAX_SEALED_BYTES}")
    return source


def printable(location: str) -> str:
    """An address without what may be secret in it: user, password, query and fragment."""
    try:
        parts = urlsplit(location.rpartition("::")[2])
        host = f"{parts.hostname or ''}:{parts.port}" if parts.port else parts.hostname or ""
    except ValueError:
        return "an address"
    return f"{parts.scheme}://{host}{parts.path}"


class Reader(io.RawIOBase, ABC):
    """What `Source.open` gives: as a file is unbuffered, one `read` may give less than was asked for."""

    @abstractmethod
    def fetch(self, size: int) -> bytes:
        """The next 1 to `size` bytes, or none at the end."""

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        return self.readall() if size is None or size < 0 else self.fetch(size)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.fetch(BUFFER), b""))

    def readinto(self, buffer: Any, /) -> int:
        data = self.fetch(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class LocalSource:
    """A regular file."""

    def __init__(self, path: Path) -> None:
        """Raises Environment where there is none."""
        with explained(path):
            found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Misconfigured(f"{path} is not a file")
        self.name = str(path)
        self.size = found.st_size
        self._path = path

    def open(self, offset: int = 0) -> BinaryIO:
        with explained(self._path):
            file = self._path.open("rb", buffering=0)
            file.seek(offset)
        return cast("BinaryIO", _LocalReader(file, self._path))


class _LocalReader(Reader):
    def __init__(self, file: io.FileIO, path: Path) -> None:
        self._file, self._path = file, path

    def fetch(self, size: int) -> bytes:
        with explained(self._path):
            return self._file.read(size)

    def readinto(self, buffer: Any, /) -> int:
        with explained(self._path):
            return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class FsspecSource:
    """Whatever fsspec reads, with the credentials that its own configuration and environment give it."""

    def __init__(self, location: str) -> None:
        """Raises Misconfigured for an address of no known kind, Environment where the kind's package is missing."""
        import fsspec

        self.name = printable(location)
        with _foreign(self.name):
            try:
                self._system, self._path = fsspec.core.url_to_fs(location)
            except ImportError as error:
                raise Environment(f"{self.name} needs a package that is not installed: {error}") from None
            except ValueError:
                raise Misconfigured(f"{self.name} is neither a file nor an address of a kind that is known") from None
            found = self._system.info(self._path)
        size = found.get("size")
        if found.get("type") == "directory" or not isinstance(size, int) or size < 0:
            raise Malformed(f"{self.name} is not a file, or does not say how large it is")
        self.size = size

    def open(self, offset: int = 0) -> BinaryIO:
        with _foreign(self.name):
            file = self._system.open(self._path, "rb", block_size=4 * BUFFER, cache_type="readahead")
            file.seek(offset)
        return cast("BinaryIO", _FsspecReader(file, self.name))


class _FsspecReader(Reader):
    def __init__(self, file: Any, name: str) -> None:
        self._file, self._name = file, name

    def fetch(self, size: int) -> bytes:
        with _foreign(self._name):
            return bytes(self._file.read(size))

    def close(self) -> None:
        with _foreign(self._name):
            self._file.close()
        super().close()


@contextmanager
def _foreign(name: str) -> Iterator[None]:
    """Whatever a file system's plugin raises: its classes are not known here, and its texts may hold credentials."""
    try:
        yield
    except Error:
        raise
    except FileNotFoundError:
        raise Unavailable(f"{name} is not there") from None
    except PermissionError:
        raise Unavailable(f"{name} may not be read with the credentials at hand") from None
    except Exception as error:
        raise Unavailable(f"{name} cannot be read: {type(error).__name__}") from None
