"""Claim: a masked round of 1,000 members and 100,000 parameters takes under 120 s and 2 GB in one process.

    superswarm bench scale                    100 and 1,000 members, without and with members that vanish
    superswarm bench scale --plot             tables and plots of what was measured so far; measures nothing

All members and the aggregator are in one process and one thread, by the protocol code of the deployment: each member
has a state of its own, and nothing passes between them but bytes. What comes before a first round (keys, evidence,
vouches, links between neighbours) is measured apart, as it happens once in a run. A run that was stopped goes on
where it was.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.journal import Journal
from benchmarks.progress import measure_all
from benchmarks.record import RESULTS
from benchmarks.secure import link
from benchmarks.secure.cohort import Cohort, Tolerance, masked_protection
from benchmarks.secure.draws import Draws, Truth
from benchmarks.secure.gauge import resident_peak
from benchmarks.secure.masked import MaskedAggregator, MaskedMembers

COLLUDING, VANISHING = 0.05, 0.05  # shares of the cohort that the manifest tolerates
SECONDS: Final = 120.0
BYTES: Final = 2 * 10**9
NUMBER: Final = 1  # of the round


@dataclass(frozen=True, slots=True)
class Cell:
    """One round."""

    members: int
    parameters: int
    vanish: int
    repeat: int

    @property
    def key(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def seed(self) -> int:
        return 1000 * self.repeat + self.members

    def __str__(self) -> str:
        return f"{self.members} members × {self.parameters}, {self.vanish} vanish"


def measure(cell: Cell) -> dict[str, Any]:
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the process inherits it
    with link.process(partial(Simulation, cell)) as simulation:
        return {"seed": cell.seed, **simulation.call("measure"), "nice": os.nice(0)}


class Simulation:
    """A whole consortium in this process."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def measure(self) -> dict[str, Any]:
        cell, truth = self.cell, Truth(self.cell.parameters)
        began = time.perf_counter(), time.process_time()
        allowed = Tolerance.of(cell.members, COLLUDING, VANISHING)
        cohort = Cohort(cell.members, masked_protection(allowed))
        met = time.perf_counter(), time.process_time()
        with link.scratch() as bodies:
            draws = Draws(cell.parameters, cell.seed)
            members = MaskedMembers(cohort, draws, NUMBER, bodies, truth, checkers=cell.members)
            aggregator = MaskedAggregator()
            sums = members.play(link.Here(aggregator), cohort.names[cell.members - cell.vanish :])
        done = time.perf_counter(), time.process_time()
        plan, stayed = cohort.terms.graph.plan, cohort.names[: cell.members - cell.vanish]
        return {
            "round_wall": round(done[0] - met[0], 3),
            "round_cpu": round(done[1] - met[1], 3),
            "acquaintance_wall": round(met[0] - began[0], 3),
            "acquaintance_cpu": round(met[1] - began[1], 3),
            "peak_bytes": resident_peak(),
            "member_cpu": {phase: round(t["cpu"], 6) for phase, t in members.gauge.report()["seconds"].items()},
            "aggregator_cpu": {phase: round(t["cpu"], 6) for phase, t in aggregator.report()["seconds"].items()},
            "up_bytes_most": max(members.traffic.up[name] for name in stayed),
            "down_bytes_most": max(members.traffic.down[name] for name in stayed),
            "relative_error": max(truth.error(one.mean) for one in (sums[0], sums[-1])),
            "checked": len(sums),
            "clipped": members.clipped,
            "degree": plan.degree,
            "threshold": plan.threshold,
            "colluders": allowed.colluders,
            "dropouts": allowed.dropouts,
            "ring_bits": members.code.ring.bits,
            "limit_seconds": SECONDS,
            "limit_bytes": BYTES,
        }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--parameters", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results and plots")
    parser.add_argument("--plot", action="store_true", help="write tables and plots, and measure nothing")
    return parser.parse_args(arguments)


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    for repeat in range(1, options.repeats + 1):
        for members in options.members:
            yield Cell(members, options.parameters, 0, repeat)
            yield Cell(members, options.parameters, Tolerance.of(members, COLLUDING, VANISHING).dropouts, repeat)


def summary(line: Mapping[str, Any]) -> str:
    return (
        f"{line['round_wall']:.1f} s ({line['round_cpu']:.1f} s of processor), {line['peak_bytes'] / 1e6:.0f} MB, "
        f"acquainted in {line['acquaintance_cpu']:.1f} s of processor"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    journal = Journal(options.out / "scale.jsonl", fresh=options.fresh and not options.plot)
    if options.plot:
        from benchmarks.figures import scale

        scale.write(journal.lines, options.out / "scale")
        return
    measure_all(list(cells(options)), journal, measure, summary)


if __name__ == "__main__":
    main()
