"""Secure sums: time, bytes, error and memory of every way to add updates, for members and for the aggregator.

    superswarm bench sums                     a set that takes minutes
    superswarm bench sums --full              1, 5 and 20 million parameters, 3 to 50 members: hours
    superswarm bench sums --plot              tables and plots of what was measured so far; measures nothing

Each cell runs in two fresh processes, the members' and the aggregator's, and is one line of sums.jsonl when it is
done: a run that was stopped goes on where it was. How to read it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.journal import Journal
from benchmarks.progress import measure_all
from benchmarks.record import RESULTS
from benchmarks.secure.cells import HOLDERS, MILLION, VANISHING, WAYS, Cell, measure
from benchmarks.secure.cohort import Tolerance
from superswarm.updates.secure.graph import COMPLETE_UP_TO

DEFAULT_SIZES: tuple[tuple[int, tuple[int, ...]], ...] = ((MILLION, (3, 10, 16, 50)), (5 * MILLION, (10,)))
FULL_SIZES: tuple[tuple[int, tuple[int, ...]], ...] = tuple(
    (millions * MILLION, (3, 10, 16, 50)) for millions in (1, 5, 20)
)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, nargs="+", help="of an update, such as 1e6 5e6")
    parser.add_argument("--members", type=int, nargs="+")
    parser.add_argument(
        "--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY", help=", ".join(WAYS)
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="all sizes and cohorts")
    parser.add_argument("--no-dropouts", action="store_true", help="leave out the cells in which members vanish")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results and plots")
    parser.add_argument("--plot", action="store_true", help="write tables and plots, and measure nothing")
    options = parser.parse_args(arguments)
    if min(options.members or [3]) < 3:
        parser.error("fewer than three members hide nothing from each other")
    return options


def sizes(options: argparse.Namespace) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Parameters, and the cohorts for them."""
    chosen = FULL_SIZES if options.full else DEFAULT_SIZES
    if options.parameters:
        cohorts = tuple(options.members or chosen[0][1])
        return tuple((int(parameters), cohorts) for parameters in options.parameters)
    return tuple((parameters, tuple(options.members or cohorts)) for parameters, cohorts in chosen)


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Repeat by repeat, so that a run that is stopped early has one of each."""
    for repeat in range(1, options.repeats + 1):
        for parameters, cohorts in sizes(options):
            for members in cohorts:
                for way in options.ways:
                    if way == "he-bfv-all" and not HOLDERS < members <= COMPLETE_UP_TO:
                        continue  # the same as he-bfv, or more members than witnesses: only these can hold the key
                    yield Cell(way, parameters, members, 0, repeat)
                    if way in VANISHING and not options.no_dropouts:
                        yield Cell(way, parameters, members, Tolerance.of(members).dropouts, repeat)


def summary(line: Mapping[str, Any]) -> str:
    """One cell in a few words."""
    if "cannot_run" in line:
        return f"cannot run: {line['cannot_run']}"
    client, aggregator = (
        sum(times["cpu"] for times in line[side]["seconds"].values()) for side in ("client", "aggregator")
    )
    bytes_ = line["up_bytes"] / line["cell"]["parameters"]
    return f"client {client:.3f} s, aggregator {aggregator:.3f} s, {bytes_:.2f} bytes a parameter"


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    journal = Journal(options.out / "sums.jsonl", fresh=options.fresh and not options.plot)
    if options.plot:
        from benchmarks.figures import sums

        sums.write(journal.lines, options.out / "sums")
        return
    measure_all(list(cells(options)), journal, measure, summary)


if __name__ == "__main__":
    main()
