"""What the operator started: the attempts of each run, kept beside the relay's database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from superswarm.consortium.documents import dump_json, load_json, require_fields
from superswarm.errors import Malformed
from superswarm.io.files import locked, read_bytes, write_bytes
from superswarm.values import LIMITS

FORMAT = "superswarm-attempts/1"
WHAT = "record of attempts"


@dataclass(frozen=True, slots=True)
class StartedRun:
    """One attempt that the operator started."""

    run: str
    attempt: int
    flower_run: int  # 64 bits: written as text, since JSON has only 53
    simulated: bool


class Attempts:
    """The file with all attempts, oldest first."""

    def __init__(self, state: Path) -> None:
        self._file = state / "attempts.json"

    def all(self) -> list[StartedRun]:
        if not self._file.exists():
            return []
        data = load_json(read_bytes(self._file, limit=LIMITS.document_bytes), WHAT)
        require_fields(data, WHAT, FORMAT, {"attempts"})
        started = []
        for entry in data["attempts"] if isinstance(data["attempts"], list) else [None]:
            match entry:
                case [str(run), int(attempt), str(flower_run), bool(simulated)] if flower_run.isdecimal():
                    started.append(StartedRun(run, attempt, int(flower_run), simulated))
                case _:
                    raise Malformed(f"{self._file}: an entry of the {WHAT} cannot be read")
        return started

    def next(self, run: str) -> int:
        """The number of this run's next attempt, from 1."""
        return max((entry.attempt for entry in self.all() if entry.run == run), default=0) + 1

    def add(self, started: StartedRun) -> None:
        with locked(self._file):
            entries = [[s.run, s.attempt, str(s.flower_run), s.simulated] for s in [*self.all(), started]]
            write_bytes(self._file, dump_json({"format": FORMAT, "attempts": entries}), replace=True)
