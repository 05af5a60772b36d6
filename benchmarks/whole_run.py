"""Whole runs in one process, by protection mode: handshake, rounds, result. What the protocol takes without a relay.

    superswarm bench whole_run [--members 3 30] [--modes attested masked he] [--repeats 3]

The nodes, trainers and aggregator are the deployment's own objects, joined by a mailroom in memory that hands over
each message at once. Trainers learn nothing and send adapters of a given size. All are in one thread, one after the
other, so seconds are those of all members together. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.federation.modes import MODES
from benchmarks.journal import Journal
from benchmarks.progress import measure_all
from benchmarks.record import RESULTS
from benchmarks.secure import link
from benchmarks.secure.gauge import resident_peak
from coordinator.mailroom import Delivery

ROUNDS: Final = 3
TENSORS: Final = 16
CLIP_NORM: Final = 1e6


@dataclass(frozen=True, slots=True)
class Cell:
    """One run."""

    mode: str
    members: int
    mebibytes: int
    repeat: int

    @property
    def key(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.mode}, {self.members} members, adapters of {self.mebibytes} MiB"


@dataclass
class Diary:
    """What the aggregator notes, with processor and wall time."""

    entries: list[tuple[str, float, float]] = field(default_factory=list)

    def __call__(self, event: str, **fields: object) -> None:
        self.entries.append((event, time.process_time(), time.perf_counter()))

    def first(self, event: str) -> tuple[float, float]:
        return next((cpu, wall) for name, cpu, wall in self.entries if name == event)

    def all(self, event: str) -> list[tuple[float, float]]:
        return [(cpu, wall) for name, cpu, wall in self.entries if name == event]


def measure(cell: Cell) -> dict[str, Any]:
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the process inherits it
    with link.process(partial(Simulation, cell)) as simulation:
        return {"rounds": ROUNDS, "tensors": TENSORS, **simulation.call("measure"), "nice": os.nice(0)}


class Simulation:
    """A whole consortium in this process."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def measure(self) -> dict[str, Any]:
        from benchmarks.federation.founding import found
        from benchmarks.federation.modes import protected
        from superswarm.demo.job import demo_tables
        from superswarm.demo.stage import stage
        from superswarm.values import Digest

        cell = self.cell
        names = [f"member-{number:04}" for number in range(cell.members)]
        tables = demo_tables(rounds=ROUNDS, training={}, max_examples=None, made_up=True)
        tables = protected(tables, cell.mode, cell.members, clip_norm=CLIP_NORM, max_weight=100 + cell.members)
        with tempfile.TemporaryDirectory() as folder, stage(Path(folder) / "stage", lambda _: None) as on:
            return self._run(on, found(on, names, Digest.of(b"no model"), tables), Path(folder))

    def _run(self, on: Any, founded: Any, folder: Path) -> dict[str, Any]:
        from benchmarks.federation.handshake import Direct, make_admission, make_node, make_trainer
        from benchmarks.federation.plan import Idle
        from coordinator.aggregator import Aggregator
        from coordinator.exchange import Timing
        from coordinator.postman import Postman
        from coordinator.publisher import SealedPublisher

        handlers = {}
        for number, name in enumerate(founded.members):
            learner = Idle(self.cell.mebibytes, TENSORS, number)
            handlers[2 * number + 1] = make_node(on, founded, name, folder).handle
            handlers[2 * number + 2] = make_trainer(on, founded, name, learner).handle
        diary, mailroom = Diary(), Counted(Direct(handlers))
        admission = make_admission(on, founded, mailroom, 1, diary)
        aggregator = Aggregator(
            manifest=founded.manifest,
            grant=admission.grant,
            admission=admission,
            mailroom=mailroom,
            postman=Postman(admission, mailroom, Timing(), diary),
            publisher=SealedPublisher(folder),
            timing=Timing(),
            notify=diary,
        )
        began = time.process_time(), time.perf_counter()
        aggregator.run()
        return figures(diary, began) | {"letters": mailroom.letters, "bytes": mailroom.bytes}


class Counted:
    """A mailroom that counts what passes."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.letters, self.bytes = inner, 0, 0

    def peers(self) -> frozenset[int]:
        return frozenset(self._inner.peers())

    def post(self, peer: int, kind: str, parcel: Any, *, ttl: float) -> str:
        self._count(parcel)
        return str(self._inner.post(peer, kind, parcel, ttl=ttl))

    def post_all(self, letters: Sequence[Any], *, ttl: float) -> list[str]:
        for letter in letters:
            self._count(letter.parcel)
        return list(self._inner.post_all(letters, ttl=ttl))

    def collect(self, tickets: Any) -> list[Delivery]:
        found: list[Delivery] = self._inner.collect(tickets)
        for delivery in found:
            self._count(delivery.parcel)
        return found

    def _count(self, parcel: Any) -> None:
        self.letters += 1
        self.bytes += len(parcel.head) + len(parcel.body) if parcel is not None else 0


def figures(diary: Diary, began: tuple[float, float]) -> dict[str, Any]:
    """Seconds of the handshake, of each round, and of the whole run."""
    starts, ends = diary.all("round begins"), diary.all("round closed")[:ROUNDS]
    rounds = [(end[0] - start[0], end[1] - start[1]) for start, end in zip(starts, ends, strict=True)]
    done = diary.first("result delivered")
    return {
        "handshake_cpu": round(starts[0][0] - began[0], 3),
        "round_cpu": [round(cpu, 3) for cpu, _ in rounds],
        "round_wall": [round(wall, 3) for _, wall in rounds],
        "run_cpu": round(done[0] - began[0], 3),
        "run_wall": round(done[1] - began[1], 3),
        "peak_bytes": resident_peak(),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[3, 30])
    parser.add_argument("--mebibytes", type=int, default=4, help="of an adapter: a million parameters are 4")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), metavar="MODE")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args(arguments)


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    for repeat in range(1, options.repeats + 1):
        for members in options.members:
            for mode in options.modes:
                yield Cell(mode, members, options.mebibytes, repeat)


def summary(line: Mapping[str, Any]) -> str:
    handshake, whole = line["handshake_cpu"], line["run_cpu"]
    return f"handshake {handshake:.2f} s, rounds {line['round_cpu']}, run {whole:.2f} s of processor"


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    journal = Journal(options.out / "whole-run.jsonl", fresh=options.fresh)
    measure_all(list(cells(options)), journal, measure, summary)


if __name__ == "__main__":
    main()
