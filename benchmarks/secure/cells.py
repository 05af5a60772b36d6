"""One cell of the comparison: a way to add, so many parameters and members, measured once in fresh processes."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.secure import link
from benchmarks.secure.draws import Draws, Truth
from benchmarks.secure.link import There, process

WAYS: Final = {
    "numpy": "float32 by numpy, nothing hidden",
    "mean": "superswarm's StreamingMean, nothing hidden",
    "attested": "the same, sealed to the aggregator's TEE",
    "masked": "secure aggregation by masks",
    "he-bfv": "BFV, three trainers hold the key",
    "he-bfv-all": "BFV, all trainers hold the key",
    "he-ckks": "CKKS, three trainers hold the key",
    "ckks-8192": "CKKS 8192 [60, 40, 40, 60] of TenSEAL's tutorials",
    "flower": "SecAgg+ of Flower",
}
VANISHING: Final = frozenset({"masked", "flower"})  # ways that are also measured with members that vanish
HOLDERS: Final = 3
NUMBER: Final = 1  # of the round
MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Cell:
    """What is measured. Together with the code, this decides every input."""

    way: str
    parameters: int
    members: int
    vanish: int
    repeat: int

    @property
    def key(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def seed(self) -> int:
        """Of the updates: the same for all ways, so that they add the same."""
        text = f"{self.parameters} {self.members} {self.repeat}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")

    @property
    def draws(self) -> Draws:
        return Draws(self.parameters, self.seed)

    def __str__(self) -> str:
        gone = f", {self.vanish} vanish" if self.vanish else ""
        return f"{self.way}, {self.parameters / MILLION:g} M × {self.members}{gone}"


def measure(cell: Cell) -> dict[str, Any]:
    """Measure a cell in processes of its own: one for the members, one for the aggregator."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # both processes inherit it
    with process(partial(Runner, cell)) as runner:
        return {"seed": cell.seed, **runner.call("measure"), "nice": os.nice(0)}


class Runner:
    """The members' process, which starts the aggregator's."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def measure(self) -> dict[str, Any]:
        way = {
            "numpy": self._plain,
            "mean": self._plain,
            "attested": self._plain,
            "masked": self._masked,
            "ckks-8192": self._tutorial,
            "flower": self._flower,
        }.get(self.cell.way, self._encrypted)
        with link.scratch() as bodies:
            return way(bodies)

    def _plain(self, bodies: Path) -> dict[str, Any]:
        from benchmarks.secure import plain

        cell = self.cell
        aggregator = {
            "numpy": plain.PlainAggregator,
            "mean": plain.MeanAggregator,
            "attested": plain.AttestedAggregator,
        }[cell.way]
        kind = plain.AttestedMembers if cell.way == "attested" else plain.PlainMembers
        with process(aggregator) as other:
            members = kind(cell.draws, cell.members, bodies, adapters=cell.way != "numpy")
            error = members.truth.error(members.play(other))
            return _result(members, other, error, ([members.up], [members.down]))

    def _masked(self, bodies: Path) -> dict[str, Any]:
        from benchmarks.secure import references
        from benchmarks.secure.cohort import Cohort, Tolerance, masked_protection
        from benchmarks.secure.masked import MaskedAggregator, MaskedMembers

        cell, truth = self.cell, Truth(self.cell.parameters)
        cohort = Cohort(cell.members, masked_protection(Tolerance.of(cell.members)))
        with process(MaskedAggregator) as other:
            members = MaskedMembers(cohort, cell.draws, NUMBER, bodies, truth)
            gone = cohort.names[cell.members - cell.vanish :]
            sums = members.play(other, gone)
            stayed = [name for name in cohort.names if name not in gone]
            traffic = [[way[name] for name in stayed] for way in (members.traffic.up, members.traffic.down)]
            found = _result(members, other, truth.error(sums[0].mean), (traffic[0], traffic[1]))
        code, plan = members.code, cohort.terms.graph.plan
        size = code.length * code.ring.dtype.itemsize
        return found | {
            "clipped": members.clipped,
            "ring_bits": code.ring.bits,
            "streams": plan.degree + 1,
            "threshold": plan.threshold,
            "aes_pass_cpu": references.aes_ctr_pass(size),
            "numpy_sum_cpu": references.numpy_sum(cell.parameters, cell.members - cell.vanish, bodies),
        }

    def _encrypted(self, bodies: Path) -> dict[str, Any]:
        from benchmarks.secure import references
        from benchmarks.secure.cohort import Cohort, Tolerance, he_protection
        from benchmarks.secure.encrypted import EncryptedAggregator, EncryptedMembers

        cell, truth = self.cell, Truth(self.cell.parameters)
        holders = cell.members if cell.way == "he-bfv-all" else HOLDERS
        scheme = "ckks" if cell.way == "he-ckks" else "bfv"
        cohort = Cohort(cell.members, he_protection(Tolerance.of(cell.members), scheme, holders))
        with process(EncryptedAggregator) as other:
            members = EncryptedMembers(cohort, cell.draws, NUMBER, bodies, truth)
            sums = members.play(other)
            up, down = (list(way.values()) for way in (members.traffic.up, members.traffic.down))
            found = _result(members, other, truth.error(sums[0].mean), (up, down))
        p = members.plan.parameters
        return found | {
            "clipped": members.clipped,
            "degree": p.degree,
            "prime_bits": [prime.bit_length() for prime in p.primes],
            "values_a_slot": p.packed,
            "encryption": p.encryption,
            "tutorial_client_cpu": cell.parameters * references.tutorial_client(cell.parameters, cell.seed),
            "numpy_sum_cpu": references.numpy_sum(cell.parameters, cell.members, bodies),
        }

    def _tutorial(self, bodies: Path) -> dict[str, Any]:
        from benchmarks.secure.tutorial_ckks import LONGEST, CkksAggregator, CkksMembers

        cell = self.cell
        size = min(cell.parameters, LONGEST)
        with process(CkksAggregator) as other:
            members = CkksMembers(Draws(size, cell.seed), cell.members, bodies)
            error = members.truth.error(members.play(other))
            found = _result(members, other, error, ([members.up], [members.down]))
        return found if size == cell.parameters else extrapolated(found, size, cell.parameters)

    def _flower(self, bodies: Path) -> dict[str, Any]:
        from benchmarks.secure.flower_secagg import CannotRun, FlowerMembers, FlowerServer

        cell = self.cell
        server = FlowerServer(cell.draws, cell.members, bodies, cell.vanish)
        with process(FlowerMembers) as clients:
            try:
                error = server.play(clients)
            except CannotRun as reason:
                return {"cannot_run": str(reason)}
            mine, theirs = server.gauge.report(), clients.call("report")
        stayed = cell.members - cell.vanish
        traffic = _traffic(theirs["up"][:stayed], list(server.grid.down.values())[:stayed])
        return {"client": _part(theirs), "aggregator": _part(mine), **traffic, "relative_error": error}


def _result(members: Any, other: There, error: float, traffic: tuple[list[int], list[int]]) -> dict[str, Any]:
    aggregator = other.call("report")
    return {
        "client": _part(members.gauge.report()),
        "aggregator": _part(aggregator),
        **_traffic(*traffic),
        "relative_error": error,
    }


def _part(report: Mapping[str, Any]) -> dict[str, Any]:
    return {"seconds": report["seconds"], "grown_bytes": report["grown_bytes"]}


def _traffic(up: list[int], down: list[int]) -> dict[str, Any]:
    """Of the member in the middle, and of the one with the most."""
    return {
        "up_bytes": int(statistics.median(up)),
        "up_bytes_most": max(up),
        "down_bytes": int(statistics.median(down)),
        "down_bytes_most": max(down),
    }


def extrapolated(found: Mapping[str, Any], size: int, wanted: int) -> dict[str, Any]:
    """A result of `size` parameters as one of `wanted`: seconds and bytes in proportion, no memory; labelled."""
    factor = wanted / size

    def scaled(part: Mapping[str, Any]) -> dict[str, Any]:
        seconds = {
            phase: {key: value if key == "count" else value * factor for key, value in times.items()}
            for phase, times in part["seconds"].items()
        }
        return {"seconds": seconds, "grown_bytes": {}}

    traffic = {key: int(value * factor) for key, value in found.items() if key.startswith(("up_", "down_"))}
    return {
        **found,
        **traffic,
        "client": scaled(found["client"]),
        "aggregator": scaled(found["aggregator"]),
        "extrapolated_from": size,
    }
