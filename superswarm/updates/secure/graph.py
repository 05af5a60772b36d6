"""Who masks with whom: everybody with everybody up to 32 members, and with k neighbours in larger cohorts.

The sparse graph is Harary's on a random circle (Bell et al., CCS 2020, eprint 2020/704): neighbours are the k/2 next
on either side. The order comes from a digest of all members' fresh session keys, so that no member chooses its place.
A broken aggregator may draw again, at the price of a handshake each time; the bounds below leave room for that.

What could go wrong, and how likely it is. Let h = k + 1 be the holders of a member's shares (its neighbours and
itself), t of which recover a seed, and let c of n members collude, chosen before the order is known.

*Exposure*: (1) Both seeds of one member are recovered, or two sets of survivors are signed, only if more than
2t - h - 1 colluders are among its holders, or among the h witnesses, the first of the circle. (2) The survivors fall
into parts whose sums show only if a gap of k/2 places without an honest survivor ends at a member whose self-mask is
recovered; its holders that help are k/2 on the other side, itself, and colluders in the gap, of which it then takes
t - k/2 - 1. This holds however the members that vanish are chosen. *Failure*: of d members that vanish at random,
more than k - t are neighbours of one member. The numbers of colluders and of vanished members among given places are
hypergeometric; the bounds add up the tails over all members.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from superswarm.consortium.protection import Masking
from superswarm.errors import Malformed
from superswarm.values import Digest, MemberId
from superswarm.wire import pack

LABEL: Final = "superswarm/v1/circle"
COMPLETE_UP_TO: Final = 32  # members
EXPOSURE: Final = 2.0**-40  # probability that the graph exposes anybody, at most
FAILURE: Final = 2.0**-20  # probability that tolerated dropouts end a round all the same, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many neighbours a member has, how many holders' shares recover a seed, and how surely."""

    members: int  # n
    degree: int  # k
    threshold: int  # t, of the k + 1 holders; also of the witnesses
    exposure: float  # upper bound of a probability; 0 for a complete graph
    failure: float

    @property
    def complete(self) -> bool:
        return self.degree == self.members - 1


@cache
def plan(members: int, masking: Masking) -> Plan:
    """The sparsest graph for a cohort that meets both bounds; Malformed where the cohort is below the threshold."""
    if members < masking.threshold or members < 2:
        raise Malformed(f"{members} members are fewer than the threshold of {masking.threshold}")
    if members > COMPLETE_UP_TO:
        gone = min(masking.dropouts, members - masking.threshold)
        for degree in range(COMPLETE_UP_TO, members - 1, 2):
            found = _sparse(members, degree, masking.colluders, gone)
            if found is not None:
                return found
    return Plan(members=members, degree=members - 1, threshold=masking.threshold, exposure=0.0, failure=0.0)


def _sparse(n: int, k: int, c: int, d: int) -> Plan | None:
    """The lowest threshold that keeps exposure in bounds, if it keeps failure in bounds too."""
    for t in range(k // 2 + 1, k + 1):
        exposure = (
            n * _tail(n - 1, c, k, 2 * t - k - 2)
            + _tail(n, c, k + 1, 2 * t - k - 2)
            + 2 * n * _tail(n - 1, c, k // 2, t - k // 2 - 2)
        )
        if exposure <= EXPOSURE:
            failure = n * _tail(n - 1, d, k, k - t) + _tail(n, d, k + 1, k + 1 - t)
            within = failure <= FAILURE
            return Plan(members=n, degree=k, threshold=t, exposure=exposure, failure=failure) if within else None
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

    @property
    def leader(self) -> MemberId:
        """Who makes the secret that all trainers share."""
        return self.circle[0]

    @property
    def witnesses(self) -> tuple[MemberId, ...]:
        """Who signs the set of survivors: everybody, or the first of the circle."""
        return self.circle[: self.plan.degree + 1]

    def neighbours(self, member: MemberId) -> tuple[MemberId, ...]:
        return tuple(other for other in self.holders(member) if other != member)

    def holders(self, member: MemberId) -> tuple[MemberId, ...]:
        """Who holds a share of this member's seeds: its neighbours and itself."""
        return tuple(self.circle[i] for i in sorted(self._around(self.place[member])))

    def _around(self, place: int) -> Iterator[int]:
        n, reach = len(self.circle), self.plan.degree // 2
        return iter(range(n)) if self.plan.complete else ((place + i) % n for i in range(-reach, reach + 1))

    def first(self, one: MemberId, other: MemberId) -> bool:
        """Whether `one` comes before `other`: it makes their common secrets, and adds what the other takes off."""
        return self.place[one] < self.place[other]


def _place(seed: Digest, member: MemberId) -> bytes:
    return Digest.of(pack(LABEL, seed.raw, member)).raw
