"""Long work shows how far it is: a bar with the time left on a terminal, else a log line every few seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from superswarm.io.clocks import Clock, SystemClock
from superswarm.io.console import duration, messages, size
from superswarm.io.logs import logger

EVERY_SECONDS = 10.0
log = logger(__name__)


class Bar(Protocol):
    """Counts work that is done."""

    def advance(self, count: int = 1) -> None: ...


class _LogBar:
    """Says every `EVERY_SECONDS` how far the work is."""

    def __init__(self, what: str, total: int, unit: str, clock: Clock) -> None:
        self._what, self._total, self._unit, self._clock = what, total, unit, clock
        self._done = 0
        self._began = self._said = clock.monotonic()

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = self._clock.monotonic()
        if now - self._said < EVERY_SECONDS or self._done >= self._total:
            return
        self._said = now
        left = (now - self._began) / self._done * (self._total - self._done) if self._done else 0.0
        log.info(self._what, done=self._count(self._done), of=self._count(self._total), left=duration(left))

    def _count(self, count: int) -> str:
        return size(count) if self._unit == "bytes" else f"{count} {self._unit}"


class _RichBar:
    def __init__(self, what: str, total: int, unit: str) -> None:
        import rich.progress as bars

        count = bars.DownloadColumn(binary_units=True) if unit == "bytes" else bars.MofNCompleteColumn()
        columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), count, bars.TimeRemainingColumn())
        self.progress = bars.Progress(*columns, console=messages(), transient=True)
        self._task = self.progress.add_task(what.replace("[", r"\["), total=total)

    def advance(self, count: int = 1) -> None:
        self.progress.advance(self._task, count)


@contextmanager
def progress(what: str, total: int, unit: str = "steps", clock: Clock | None = None) -> Iterator[Bar]:
    """Show `what` while it runs; the body calls `advance` as `total` units get done.

    Counts and times of work inside a TEE are visible to its host in any case; pass nothing else in `what`.
    """
    if messages().is_terminal:
        bar = _RichBar(what, total, unit)
        with bar.progress:
            yield bar
    else:
        yield _LogBar(what, total, unit, clock or SystemClock())
