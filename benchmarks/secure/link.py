"""Two processes that call each other: the members in one, the aggregator in the other, so that each has its memory.

Messages go through a pipe, the large bodies as files in memory (/dev/shm, where there is one): neither is timed.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from superswarm.io.tether import PR_SET_PDEATHSIG

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there
STOP = ""


class Other(Protocol):
    """The other side: calls one of its methods."""

    def call(self, method: str, *arguments: Any) -> Any: ...


class Failed(RuntimeError):
    """A process that was started to measure something ended otherwise; the message is its own."""


class Here:
    """The other side in this process."""

    def __init__(self, target: object) -> None:
        self.target = target

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self.target, method)(*arguments)


class There:
    """The other side in another process."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection

    def call(self, method: str, *arguments: Any) -> Any:
        self._connection.send((method, arguments))
        return receive(self._connection)


def receive(connection: Connection[Any, Any]) -> Any:
    """What the other process answers; Failed with its traceback where it raised, or if it is gone."""
    try:
        found, failure = connection.recv()
    except EOFError:
        raise Failed("a process that was measured ended without a word: killed, or out of memory") from None
    if failure:
        raise Failed(failure)
    return found


@contextmanager
def process(make: Callable[[], object]) -> Iterator[There]:
    """Start a process that makes an object and serves calls of its methods until this context ends."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    child = context.Process(target=_serve, args=(theirs, make, os.getpid()), daemon=False)
    child.start()
    theirs.close()
    try:
        yield There(mine)
        mine.send((STOP, ()))
    finally:
        mine.close()
        child.join(timeout=10)
        if child.is_alive():
            child.terminate()
            child.join()


def _serve(connection: Connection[Any, Any], make: Callable[[], object], parent: int) -> None:
    target: object = None
    _tie(parent)
    _silence()
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        if method == STOP:
            return
        try:
            target = target or make()
            connection.send((getattr(target, method)(*arguments), ""))
        except Exception:  # goes to the other process, which raises it
            connection.send((None, traceback.format_exc()))


def _tie(parent: int) -> None:
    """End with the process that started this one, however it ends. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            raise SystemExit(1)


def _silence() -> None:
    """Libraries that greet on standard output, from C++ too, are not heard; errors are."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for bodies on their way."""
    where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="superswarm-bench-", dir=where) as name:
        yield Path(name)


def take(file: Path) -> bytes:
    """Receive a body: read it and remove its file."""
    raw = file.read_bytes()
    file.unlink()
    return raw
