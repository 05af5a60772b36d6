"""Child processes that end with their parent, whichever way it ends.

A child runs in a process group of its own, so that Ctrl-C in a terminal reaches only the program, which then stops
its children in order: SIGTERM, and SIGKILL to the group after a grace period. If the program is killed outright, the
kernel kills the child (see `tether`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

from superswarm.errors import Environment
from superswarm.io import tether

GRACE_SECONDS: Final = 10.0
PRIVATE: Final = 0o600

# The kernel watches the thread that started the child, not the process: this one lives as long as the program.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class Child:
    """A running child process. `spawn` makes one."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        return self.exit_code is None

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for its end; None if it still runs after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """End it and whatever it started: ask, wait, then kill. Twice does no harm."""
        self._signal(signal.SIGTERM)
        if self.wait(grace) is None:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._signal_group(signal.SIGKILL)  # what it left behind in its group

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def spawn(
    command: Sequence[str],
    *,
    name: str,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Child:
    """Start a command that ends with this program. Its output goes to the end of `log`, or where ours goes.

    `environment` is the child's whole environment; None passes on ours.
    """
    tethered = [sys.executable, "-S", "-E", tether.__file__, str(os.getpid()), *command]
    output = _open_log(log) if log is not None else None
    try:
        process = _SPAWNER.submit(
            subprocess.Popen,
            tethered,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            env=environment,
            cwd=folder,
            process_group=0,
        ).result()
    except OSError as error:
        raise Environment(f"cannot start {name}: {error.strerror}") from None
    finally:
        if output is not None:
            os.close(output)
    return Child(name, process)


def _open_log(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise Environment(f"cannot write {path}: {error.strerror}") from None


class Children:
    """Child processes that stop together, the youngest first."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def add(self, child: Child) -> Child:
        self._children.append(child)
        return child

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children)

    def ended(self) -> list[Child]:
        """Those that no longer run."""
        return [child for child in self._children if not child.running]

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Ask all, youngest first, and share one grace period."""
        end = time.monotonic() + grace
        for child in reversed(self._children):
            child._signal(signal.SIGTERM)
        for child in reversed(self._children):
            child.stop(max(0.0, end - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT or SIGTERM sets. A second signal raises KeyboardInterrupt. Main thread only."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
