"""Who masks with whom: everybody with everybody up to 32 members, and with k neighbours in larger cohorts.

The sparse graph is Harary's on a random circle (Bell et al., CCS 2020, eprint 2020/704): neighbours are the k/2 next
on either side. The order comes from a digest of all members' fresh session keys, so that no member chooses its place.
Whoever chooses last may draw again: a broken aggregator tries rosters of other members or numbers, and a colluder
other keys, each at the price of some hashes and without asking anybody. The bound on exposure leaves room for 2**60
draws.

What could go wrong, and how likely it is. Let h = k + 1 be the holders of a member's shares (its neighbours and
itself), t of which recover a seed, and let c of n members collude, chosen before the order is known.

*Exposure*: (1) Both seeds of one member are recovered only if more than 2t - h - 1 colluders are among its holders.
(2) Two sets of survivors are signed only if more than 2s - w - 1 colluders are among the w witnesses, the first of
the circle, of whom s must sign. (3) The survivors fall into parts whose sums show only if a gap of k/2 places without
an honest survivor ends at a member whose self-mask is recovered; its holders that help are k/2 on the other side,
itself and colluders in the gap, of which it then takes t - k/2 - 1. This holds however those that vanish are chosen.
*Failure*: of d members that vanish at random, more than k - t are neighbours of one member, or more than w - s are
witnesses. Colluders and vanished members among given places are hypergeometric in number; the bounds add up the tails
over all members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from superswarm.consortium.protection import Masking
from superswarm.errors import Malformed
from superswarm.values import Digest, MemberId
from superswarm.wire import pack

LABEL: Final = "superswarm/v1/circle"
COMPLETE_UP_TO: Final = 32  # members
EXPOSURE: Final = 2.0**-100  # probability that one draw of the circle exposes anybody, at most
FAILURE: Final = 2.0**-20  # probability that tolerated dropouts end a round all the same, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many neighbours a member has, whose shares recover a seed, who signs, and how surely all that holds."""

    members: int  # n
    degree: int  # k
    threshold: int  # t, of the k + 1 holders
    witnesses: int  # w
    signatures: int  # s, of the witnesses'
    exposure: float  # upper bound of a probability; 0 for a complete graph
    failure: float

    @property
    def complete(self) -> bool:
        return self.degree == self.members - 1


@cache
def plan(members: int, masking: Masking) -> Plan:
    """The sparsest graph for a cohort that meets both bounds; Malformed where the cohort is below the threshold."""
    n, t = members, masking.threshold
    if n < t or n < 2:
        raise Malformed(f"{n} members are fewer than the threshold of {t}")
    if n > COMPLETE_UP_TO:
        gone = min(masking.dropouts, n - t)
        shares = (_shares(n, k, masking.colluders, gone) for k in range(COMPLETE_UP_TO, n - 1, 2))
        panels = (_panel(n, w, masking.colluders, gone) for w in range(COMPLETE_UP_TO, n))
        holding, panel = next(filter(None, shares), None), next(filter(None, panels), None)
        if holding is not None and panel is not None:
            return Plan(
                members=n,
                degree=holding.size,
                threshold=holding.threshold,
                witnesses=panel.size,
                signatures=panel.threshold,
                exposure=holding.exposure + panel.exposure,
                failure=holding.failure + panel.failure,
            )
    return Plan(members=n, degree=n - 1, threshold=t, witnesses=n, signatures=t, exposure=0.0, failure=0.0)


@dataclass(frozen=True, slots=True)
class _Choice:
    size: int
    threshold: int
    exposure: float
    failure: float


def _shares(n: int, k: int, c: int, d: int) -> _Choice | None:
    """The lowest threshold of k neighbours that keeps exposure within half its bound, if failure is within too."""
    for t in range(k // 2 + 1, k + 1):
        both_seeds = n * _tail(n - 1, c, k, 2 * t - k - 2)
        exposure = both_seeds + 2 * n * _tail(n - 1, c, k // 2, t - k // 2 - 2)
        if exposure <= EXPOSURE / 2:
            failure = n * _tail(n - 1, d, k, k - t)
            return _Choice(k, t, exposure, failure) if failure <= FAILURE / 2 else None
    return None


def _panel(n: int, w: int, c: int, d: int) -> _Choice | None:
    """The same for w witnesses."""
    for s in range(w // 2 + 1, w + 1):
        exposure = _tail(n, c, w, 2 * s - w - 1)
        if exposure <= EXPOSURE / 2:
            failure = _tail(n, d, w, w - s)
            return _Choice(w, s, exposure, failure) if failure <= FAILURE / 2 else None
    return None


def _tail(population: int, marked: int, drawn: int, most: int) -> float:
    """P[X > most] where X of `drawn` are marked, drawn without replacement (hypergeometric)."""
    if most < 0:
        return 1.0
    low = max(most + 1, drawn + marked - population)
    total = _log_binomial(population, drawn)
    return math.fsum(
        math.exp(_log_binomial(marked, x) + _log_binomial(population - marked, drawn - x) - total)
        for x in range(low, min(marked, drawn) + 1)
    )


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


class Graph:
    """The circle of one roster. Neighbours, holders and witnesses come in its order, everywhere."""

    def __init__(self, members: Sequence[MemberId], plan: Plan, seed: Digest) -> None:
        self.plan = plan
        self.circle = tuple(members) if plan.complete else tuple(sorted(members, key=lambda m: _place(seed, m)))
        self.place = {member: i for i, member in enumerate(self.circle)}
        self._holders = {member: self._around(i) for i, member in enumerate(self.circle)}
        self._neighbours = {m: tuple(o for o in near if o != m) for m, near in self._holders.items()}

    @property
    def leader(self) -> MemberId:
        """Who makes the secret that all trainers share."""
        return self.circle[0]

    @property
    def witnesses(self) -> tuple[MemberId, ...]:
        """Who signs the set of survivors: everybody, or the first of the circle."""
        return self.circle[: self.plan.witnesses]

    def neighbours(self, member: MemberId) -> tuple[MemberId, ...]:
        return self._neighbours[member]

    def holders(self, member: MemberId) -> tuple[MemberId, ...]:
        """Who holds a share of this member's seeds: its neighbours and itself."""
        return self._holders[member]

    def _around(self, place: int) -> tuple[MemberId, ...]:
        n, reach = len(self.circle), self.plan.degree // 2
        if self.plan.complete:
            return self.circle
        return tuple(self.circle[i] for i in sorted((place + i) % n for i in range(-reach, reach + 1)))

    def first(self, one: MemberId, other: MemberId) -> bool:
        """Whether `one` comes before `other`: it makes their common secrets, and adds what the other takes off."""
        return self.place[one] < self.place[other]


def _place(seed: Digest, member: MemberId) -> bytes:
    return Digest.of(pack(LABEL, seed.raw, member)).raw
