"""Claims, held against what was measured: each with its limit, the worst that was found, and whether it holds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Line: TypeAlias = Mapping[str, Any]
LEAST: Final = 1_000_000  # parameters of the updates that claims are about; below it, what a round costs at all shows
UP_TO: Final = 16  # members, for whom the ring of 16 bits is claimed to do
ERROR: Final = 1e-3  # of the mean, relative, up to as many
CLIENT: Final = ("encode", "tag", "mask", "encrypt", "seal")  # what a member does to send an update
KEYS: Final = ("parameters", "members", "repeat")
RECOVER: Final = ("open", "recover", "write", "decrypt", "check")  # what it takes to read the sum


@dataclass(frozen=True, slots=True)
class Claim:
    """A limit on one number of each line that it is about."""

    text: str
    limit: float
    unit: str
    number: Callable[[Line], float | None]  # None where the line is not about it
    aim: bool = False  # something to try for, not to hold
    every: bool = False  # no repeat may exceed it: for what other load cannot change

    def judge(self, lines: Iterable[Line]) -> Verdict:
        """Hold the claim against each cell's median over its repeats, or its worst; the worst cell decides."""
        found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        for line in lines:
            number = self.number(line)
            if number is not None:
                found[_without_repeat(line["cell"])].append(number)
        of_cell = {key: (max if self.every else statistics.median)(numbers) for key, numbers in found.items()}
        if not of_cell:
            return Verdict(self, None, "", 0)
        worst = max(of_cell, key=lambda key: of_cell[key])
        return Verdict(self, of_cell[worst], _name(dict(worst)), len(of_cell))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was measured for a claim, and where the worst was."""

    claim: Claim
    measured: float | None
    where: str
    cells: int

    @property
    def met(self) -> str:
        if self.measured is None:
            return "not measured"
        return "yes" if self.measured <= self.claim.limit else "no"


def table(claims: Sequence[Claim], lines: Sequence[Line]) -> list[list[str]]:
    """Rows of: claim, limit, worst measured, where, cells, whether it holds."""
    rows = [["claim", "limit", "measured (worst cell)", "where", "cells", "met"]]
    measured_lines = beside_numpy(line for line in lines if "cannot_run" not in line)
    for claim in claims:
        verdict = claim.judge(measured_lines)
        measured = "" if verdict.measured is None else f"{verdict.measured:.3g} {claim.unit}".strip()
        limit = f"{claim.limit:g} {claim.unit}".strip() + (" (aim)" if claim.aim else "")
        rows.append([claim.text, limit, measured, verdict.where, str(verdict.cells), verdict.met])
    return rows


def beside_numpy(lines: Iterable[Line]) -> list[Line]:
    """The lines, each with what the way `numpy` took to add as many updates of that size in that repeat."""
    found = list(lines)
    sums = {
        (cell["parameters"], cell["members"], cell["repeat"]): cpu(line, "aggregator", ("sum",))
        for line in found
        if (cell := line["cell"]).get("way") == "numpy"
    }
    return [_beside(line, sums.get(tuple(line["cell"].get(k) for k in KEYS))) for line in found]


def _beside(line: Line, seconds: float | None) -> Line:
    if seconds is None:
        return line
    members = line["cell"]["members"]
    return {**line, "numpy_way_cpu": seconds * (members - line["cell"]["vanish"]) / members}


def cpu(line: Line, side: str, phases: Iterable[str]) -> float:
    """Processor seconds of these phases of one side: of the member in the middle, or of the aggregator."""
    seconds = line[side]["seconds"]
    return float(sum(seconds[phase]["cpu"] for phase in phases if phase in seconds))


def _without_repeat(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(item for item in cell.items() if item[0] != "repeat")


def _name(cell: Mapping[str, Any]) -> str:
    way = f"{cell['way']}, " if "way" in cell else ""
    gone = f", {cell['vanish']} vanish" if cell.get("vanish") else ""
    return f"{way}{cell['parameters'] / 1e6:g} M × {cell['members']}{gone}"


def _masked(line: Line, most: int = 10**9) -> bool:
    cell = line["cell"]
    return bool(cell["way"] == "masked" and cell["members"] <= most and cell["parameters"] >= LEAST)


def _bfv(line: Line) -> bool:
    return str(line["cell"]["way"]).startswith("he-bfv") and line["cell"]["parameters"] >= LEAST


def _passes(line: Line, phases: Sequence[str]) -> float | None:
    """AES-CTR passes of a mask's length that a client's phases take, for each of its streams."""
    if not _masked(line):
        return None
    return float(cpu(line, "client", phases) / (line["aes_pass_cpu"] * line["streams"]))


def _sum_over(line: Line, reference: str) -> float | None:
    return cpu(line, "aggregator", ("sum",)) / line[reference] if reference in line else None


def _bytes(line: Line) -> float:
    return float(line["up_bytes"] / line["cell"]["parameters"])


SUMS: Final = (
    Claim(
        "masked, up to 16 members: bytes a parameter on the wire, up",
        2.1,
        "bytes",
        lambda line: _bytes(line) if _masked(line, UP_TO) else None,
        every=True,
    ),
    Claim(
        "masked, up to 16 members: relative error of the mean",
        ERROR,
        "",
        lambda line: float(line["relative_error"]) if _masked(line, UP_TO) else None,
        every=True,
    ),
    Claim(
        "masked: masking an update, in AES-CTR passes a stream",
        3.0,
        "passes",
        lambda line: _passes(line, ("mask",)),
    ),
    Claim(
        "masked: all of a client's work (encode, tag, mask), in AES-CTR passes a stream",
        3.0,
        "passes",
        lambda line: _passes(line, CLIENT),
    ),
    Claim(
        "masked: the aggregator's sum, over numpy's of float32 updates that arrive likewise",
        2.0,
        "×",
        lambda line: _sum_over(line, "numpy_way_cpu") if _masked(line) else None,
    ),
    Claim(
        "masked: the same, over numpy's in a loop that nothing interrupts",
        2.0,
        "×",
        lambda line: _sum_over(line, "numpy_sum_cpu") if _masked(line) else None,
    ),
    Claim(
        "BFV: bytes a parameter on the wire, up",
        16.0,
        "bytes",
        lambda line: _bytes(line) if _bfv(line) else None,
    ),
    Claim(
        "BFV: bytes a parameter on the wire, up",
        8.0,
        "bytes",
        lambda line: _bytes(line) if _bfv(line) else None,
        aim=True,
    ),
    Claim(
        "BFV: client's time over that of CKKS 8192 [60, 40, 40, 60]",
        0.25,
        "×",
        lambda line: cpu(line, "client", CLIENT) / line["tutorial_client_cpu"] if _bfv(line) else None,
    ),
)


def _thousand(line: Line) -> bool:
    return bool(line["cell"]["members"] == 1000 and line["cell"]["parameters"] == 100_000)


SCALE: Final = (
    Claim(
        "1,000 members × 100,000 parameters, one masked round in one process: wall time",
        120.0,
        "s",
        lambda line: line["round_wall"] if _thousand(line) else None,
    ),
    Claim(
        "the same: processor time",
        120.0,
        "s",
        lambda line: line["round_cpu"] if _thousand(line) else None,
    ),
    Claim(
        "the same: most memory of the process",
        2.0,
        "GB",
        lambda line: line["peak_bytes"] / 1e9 if _thousand(line) else None,
    ),
)
