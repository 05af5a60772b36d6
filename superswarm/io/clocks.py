"""Clocks as an argument, so that what judges time can be tested without waiting."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time. Inside a TEE the host sets both readings: judge expiry by vouched time only."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC, as the host says."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment, never going back: for durations and deadlines."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let both readings pass `seconds`."""
        if seconds < 0:
            raise ValueError("time does not go back; use `set_now` for a host that sets its clock")
        self._now += seconds
        self._monotonic += seconds

    def set_now(self, now: float) -> None:
        """Set the wall clock, as a host may; the monotonic reading stays."""
        self._now = now
