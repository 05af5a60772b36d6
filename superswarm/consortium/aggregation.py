"""How updates become the next global adapter: the rule, and what the server does with its result.

`docs/aggregation.md` says which rule to choose when.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from superswarm.consortium.clause import Clause, Count

Rule: TypeAlias = Literal["fedavg", "norm-bound", "median", "trimmed-mean", "multi-krum"]

SETTINGS: Final[dict[str, tuple[Rule, ...]]] = {
    "max_norm": ("norm-bound",),
    "max_norm_ratio": ("norm-bound",),
    "byzantine": ("trimmed-mean", "multi-krum"),
    "selected": ("multi-krum",),
}
"""Fields of the clause that belong to some rules only."""

Rate = Annotated[float, Field(gt=0, le=1000)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Momentum(Clause):
    """The server steps along a decaying sum of mean updates; its state is one vector.

    "fedavgm" is arXiv:1909.06335; "nesterov" is the outer step of DiLoCo (arXiv:2311.08105), which looks one step
    ahead and is meant for long local training.
    """

    kind: Literal["fedavgm", "nesterov"]
    learning_rate: Rate
    momentum: Decay


class Adaptive(Clause):
    """The server scales each coordinate by its own history (arXiv:2003.00295); its state is two vectors."""

    kind: Literal["fedadam", "fedyogi"]
    learning_rate: Rate
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    tau: Annotated[float, Field(ge=1e-9, le=1)] = 1e-3  # smaller adapts more; the second moment starts at its square


Optimizer: TypeAlias = Momentum | Adaptive


class Aggregation(Clause):
    """How updates become the next global adapter."""

    rule: Rule
    weighting: Literal["examples", "equal"]
    minimum_cohort: Count  # members whose updates a round needs
    round_seconds: Annotated[int, Field(ge=1, le=30 * 86_400)]  # a round closes then with those that answered
    max_norm: Annotated[float, Field(gt=0, le=1e12)] | None = None  # L2 norm to which an update is clipped
    max_norm_ratio: Annotated[float, Field(ge=1, le=1000)] | None = None  # that norm over the round's median norm
    byzantine: Count | None = None  # members of a round that may send anything
    selected: Count | None = None  # updates that Multi-Krum averages
    optimizer: Annotated[Optimizer, Field(discriminator="kind")] | None = None  # without: the mean update is added

    @property
    def linear(self) -> bool:
        """Whether the rule is a weighted sum of the updates, which can be computed without seeing any of them."""
        return self.rule == "fedavg"

    @property
    def stateful(self) -> bool:
        """Whether the server keeps something besides the adapter from one round to the next."""
        return self.optimizer is not None

    @property
    def tolerates(self) -> int:
        """How many members of the smallest round may send anything without deciding its result alone.

        Of the smallest, since whoever runs the relay can leave all others out.
        """
        match self.rule:
            case "median":
                return (self.minimum_cohort - 1) // 2
            case "trimmed-mean" | "multi-krum":
                return self.byzantine or 0
            case _:
                return 0


def aggregation_faults(clause: Aggregation) -> Iterable[str]:
    """What of the clause contradicts itself, why, and what to choose instead."""
    yield from _setting_faults(clause)
    if clause.rule in ("median", "trimmed-mean", "multi-krum") and clause.weighting == "examples":
        yield (
            f'aggregation.weighting is "examples", but {clause.rule} counts each member once: with weights, whoever '
            'claims the most examples would decide alone. Choose weighting = "equal", or rule = "norm-bound"'
        )
    match clause.rule:
        case "norm-bound":
            yield from _norm_faults(clause)
        case "median":
            if clause.minimum_cohort < 3:
                yield _too_few(clause, 3, "the median of two is their mean", "norm-bound with max_norm")
        case "trimmed-mean":
            yield from _trim_faults(clause)
        case "multi-krum":
            yield from _krum_faults(clause)


def _setting_faults(clause: Aggregation) -> Iterable[str]:
    for field, rules in SETTINGS.items():
        if getattr(clause, field) is not None and clause.rule not in rules:
            yield f"aggregation.{field} means nothing to {clause.rule}: leave it out, or choose {' or '.join(rules)}"
    needed = ("byzantine",) if clause.rule == "trimmed-mean" else ("byzantine", "selected")
    if clause.rule in ("trimmed-mean", "multi-krum"):
        for field in needed:
            if getattr(clause, field) is None:
                yield f"{clause.rule} needs aggregation.{field}"


def _norm_faults(clause: Aggregation) -> Iterable[str]:
    if (clause.max_norm is None) == (clause.max_norm_ratio is None):
        yield "norm-bound needs either aggregation.max_norm or aggregation.max_norm_ratio, and not both"
    elif clause.max_norm_ratio is not None and clause.minimum_cohort < 3:
        yield _too_few(clause, 3, "one of two moves the median norm at will", "norm-bound with max_norm")


def _trim_faults(clause: Aggregation) -> Iterable[str]:
    f, n = clause.byzantine or 0, clause.minimum_cohort
    if n <= 2 * f:
        yield _too_few(clause, 2 * f + 1, f"{f} updates are cut at both ends", _lower(clause, (n - 1) // 2))


def _krum_faults(clause: Aggregation) -> Iterable[str]:
    """n ≥ 2f + 3 (arXiv:1703.02757, proposition 4.2); m ≤ n − f − 2 (arXiv:1905.04374, section 4)."""
    f, n = clause.byzantine or 0, clause.minimum_cohort
    if n < 2 * f + 3:
        other = _lower(clause, (n - 3) // 2)
        yield _too_few(clause, 2 * f + 3, "Multi-Krum tolerates f of n only if n is at least 2f + 3", other)
    elif (clause.selected or 0) > n - f - 2:
        yield (
            f"aggregation.selected is {clause.selected}, but of {n} updates with {f} byzantine ones Multi-Krum may "
            f"average at most {n - f - 2} (n - f - 2): lower it, or raise aggregation.minimum_cohort"
        )


def _lower(clause: Aggregation, most: int) -> str:
    median = f"median, which tolerates {(clause.minimum_cohort - 1) // 2}"
    if most >= 1:
        return f"byzantine = {most}, or {median}"
    return median if clause.minimum_cohort >= 3 else "norm-bound with max_norm"


def _too_few(clause: Aggregation, needed: int, why: str, other: str) -> str:
    return (
        f"aggregation.minimum_cohort is {clause.minimum_cohort}, and {clause.rule} needs at least {needed}: {why}. "
        f"Raise it, or choose {other}"
    )
