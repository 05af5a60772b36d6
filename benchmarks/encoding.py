"""Claim: the mean of up to 16 updates has a relative error of at most 1e-3; and where that ends: tails and cohorts.

    superswarm bench encoding                 error by tail and cohort, a million parameters
    superswarm bench encoding --plot          tables and plots of what was measured so far; measures nothing

No protocol runs here: updates are encoded as in masked rounds, added in the ring, and decoded. What can spoil a mean
is a single value so large that it fills the range of its column: that is cut, which only its member can count.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.journal import Journal
from benchmarks.progress import measure_all
from benchmarks.record import RESULTS
from benchmarks.secure.cohort import ENCODING
from benchmarks.secure.draws import DEGREES, SIGMA, Draws, Truth
from superswarm.updates.secure.ring import Code, Ring
from superswarm.values import Digest

TAILS: Final[
    dict[str, tuple[int, float]]
] = {  # degrees of freedom of Student's t (0: normal), σ of the parts' scales
    "normal": (0, 0.0),
    "t4": (DEGREES, SIGMA),  # those of `superswarm bench sums`
    "t3": (3, 0.5),
    "t3-uneven": (3, 1.0),
    "t2": (2, 0.5),
}


@dataclass(frozen=True, slots=True)
class Cell:
    tail: str
    parameters: int
    members: int
    repeat: int

    @property
    def key(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def seed(self) -> int:
        return 1000 * self.repeat + self.members

    def __str__(self) -> str:
        return f"{self.tail}, {self.parameters / 1e6:g} M × {self.members}"


def measure(cell: Cell) -> dict[str, Any]:
    degrees, sigma = TAILS[cell.tail]
    draws, truth = Draws(cell.parameters, cell.seed, degrees, sigma), Truth(cell.parameters)
    code = Code(
        ring=Ring.fitting(cell.members, int(ENCODING["payload_bits"])),
        parameters=cell.parameters,
        clip_norm=ENCODING["clip_norm"],
        rotation=Digest.of(b"%d" % cell.seed),
    )
    total, clipped, largest = np.zeros(code.length, code.ring.dtype), 0, 0.0
    for member in range(cell.members):
        update = draws.of(member)
        truth.add(update)
        encoded = code.encode(update, 1.0)
        total += encoded.values
        clipped += encoded.clipped
        root_mean_square = float(np.linalg.norm(update)) / cell.parameters**0.5
        largest = max(largest, float(np.abs(update).max()) / root_mean_square)
    return {
        "seed": cell.seed,
        "relative_error": truth.error(code.decode(total, cell.members, cell.members)),
        "clipped": clipped,
        "largest_over_rms": largest,  # of the update with the heaviest tail
        "ring_bits": code.ring.bits,
        "block": code.block,
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, default=1e6)
    parser.add_argument("--members", type=int, nargs="+", default=[3, 10, 16])
    parser.add_argument("--tails", nargs="+", choices=list(TAILS), default=list(TAILS), metavar="TAIL")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results and plots")
    parser.add_argument("--plot", action="store_true", help="write tables and plots, and measure nothing")
    return parser.parse_args(arguments)


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    for repeat in range(1, options.repeats + 1):
        for members in options.members:
            for tail in options.tails:
                yield Cell(tail, int(options.parameters), members, repeat)


def summary(line: Mapping[str, Any]) -> str:
    return f"error {line['relative_error']:.2g}, {line['clipped']} cut"


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    journal = Journal(options.out / "encoding.jsonl", fresh=options.fresh and not options.plot)
    if options.plot:
        from benchmarks.figures import encoding

        encoding.write(journal.lines, options.out / "encoding")
        return
    measure_all(list(cells(options)), journal, measure, summary)


if __name__ == "__main__":
    main()
