"""Files, read with a cap and written whole or not at all; what the machine lacks is said in our errors."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from superswarm.errors import DiskFull, Environment, Misconfigured, TooLarge

SECRET = 0o600
PUBLIC = 0o644


def read_bytes(path: Path, *, limit: int) -> bytes:
    """The whole file. Environment where it cannot be read, TooLarge over `limit` bytes."""
    with explained(path), path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(f"{path} has more than {limit} bytes")
    return data


def write_bytes(path: Path, data: bytes, *, mode: int = PUBLIC, replace: bool = False) -> None:
    """Write durably: a crash at any moment leaves the old file, or none, or the whole new one.

    With `mode` SECRET nobody but the owner can ever read it. Without `replace`, an existing file is left alone and
    Misconfigured raised.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.draft")
    with explained(path):
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                draft.replace(path)
            else:
                _link(draft, path)
            sync_folder(path.parent)
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()


def make_folder(path: Path) -> None:
    """Make a folder for its owner only, with its parents; one that is there is left as it is."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)


@contextmanager
def new_folder(dst: Path) -> Iterator[Path]:
    """A temporary folder beside `dst` that becomes `dst` if the block ends well, and vanishes otherwise."""
    dst.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{dst.name}.", dir=dst.parent))
    try:
        yield folder
        folder.rename(dst)
        sync_folder(dst.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # after a rename there is nothing


def _link(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)  # fails where `path` exists, unlike a rename
    except FileExistsError:
        raise Misconfigured(f"{path} exists already: move it away, or write to another file") from None


def sync_folder(folder: Path) -> None:
    """Make the new name itself durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time do what follows to `path`; others wait. The lock is a file beside it."""
    lock = path.with_name(f".{path.name}.lock")
    with explained(lock):
        file = os.open(lock, os.O_RDWR | os.O_CREAT, SECRET)
    try:
        with explained(lock):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)  # and with it the lock


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError into the error of ours that says who must act."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(f"no space is left to write {path}") from None
        raise Environment(f"{path}: {os.strerror(error.errno or 0)}") from None
