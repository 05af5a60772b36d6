"""A child process that runs until it is stopped: started, watched, and started again when it ends."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from superswarm.errors import Environment
from superswarm.io.processes import Child

log = logging.getLogger(__name__)
READY_SECONDS: Final = 60.0
WATCH_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 0.05
RESTART_SECONDS: Final = (0.2, 1.0, 2.0, 5.0, 10.0)
STEADY_SECONDS: Final = 60.0  # a process that ran this long starts its next life without delay
LOG_BYTES: Final = 8 * 1024**2


class Supervised(ABC):
    """One process over its lives. Use as a context manager; stopped twice, it comes to no harm."""

    name: ClassVar[str]  # as people know it

    def __init__(self) -> None:
        self.restarts = 0
        self._child: Child | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, name=f"{self.name}-watch", daemon=True)

    @property
    @abstractmethod
    def log_file(self) -> Path:
        """Where the process writes what it says."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make what all its lives need. Raises Misconfigured, PortTaken or Environment."""

    @abstractmethod
    def _spawn(self) -> Child:
        """Start one life."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it is ready for work."""

    @property
    def running(self) -> bool:
        """Whether the process runs now; it may not be ready yet."""
        return self._child is not None and self._child.running

    def start(self, stop: threading.Event | None = None) -> Self:
        """Start it; return once it is ready. Environment where it does not get there; `stop` abandons the wait."""
        try:
            self._prepare()
            self._launch()
            self._await_ready(stop or threading.Event())
        except BaseException:  # Ctrl-C too: `with` has not begun yet
            self.stop()
            raise
        self._watcher.start()
        return self

    def stop(self) -> None:
        """Stop it for good."""
        self._stop.set()
        if self._watcher.is_alive():
            self._watcher.join()
        with self._lock:
            if self._child is not None:
                self._child.stop()

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self._lock:
            if not self._stop.is_set():
                self._child = self._spawn()

    def _await_ready(self, stop: threading.Event) -> None:
        end = time.monotonic() + READY_SECONDS
        while not stop.is_set():
            if not self.running:
                raise Environment(f"the {self.name} ended at once; its log is {self.log_file}")
            if self._answers():
                return
            if time.monotonic() > end:
                raise Environment(f"the {self.name} does not get ready; its log is {self.log_file}")
            stop.wait(LOOK_SECONDS)

    def _watch(self) -> None:
        """Start it again when it ends: after an outage, a refused key, a crash."""
        attempt, began = 0, time.monotonic()
        while not self._stop.wait(WATCH_SECONDS):
            if self.running:
                continue
            if time.monotonic() - began > STEADY_SECONDS:
                attempt = 0
            log.warning("the %s ended; starting it again. Its log is %s", self.name, self.log_file)
            if self._stop.wait(RESTART_SECONDS[min(attempt, len(RESTART_SECONDS) - 1)]):
                return
            attempt, began = attempt + 1, time.monotonic()
            self.restarts += 1
            self._launch()
