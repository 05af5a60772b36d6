"""Time for a simulated consortium: it passes only while nobody works, and then quickly.

A deadline ends what waits for an answer that never comes, and nothing else, however busy the machine is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

QUICKER = 20  # than on the wall, while nobody works


class Clock:
    """Seconds that the aggregator slept through while no peer was at work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0.0
        self._working = 0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        """The aggregator's sleep."""
        time.sleep(seconds / QUICKER)
        with self._lock:
            if not self._working:
                self._now += seconds

    def work(self) -> None:
        """A peer has something to do."""
        self._shift(1)

    def done(self) -> None:
        """What a peer had to do is done."""
        self._shift(-1)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Between work and done: while the peer only waits."""
        self.done()
        try:
            yield
        finally:
            self.work()

    def dawdle(self, seconds: float) -> None:
        """A peer's slowness. Ends on the wall's time too, as nobody may be waiting any more."""
        until, latest = self._now + seconds, time.monotonic() + seconds
        with self.pause():
            while self._now < until and time.monotonic() < latest:
                time.sleep(0.001)

    def _shift(self, by: int) -> None:
        with self._lock:
            self._working += by
