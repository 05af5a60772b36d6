"""How much of a single update the aggregator's TEE sees, and what a mode that hides it must be told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from superswarm.consortium.clause import Clause, Count
from superswarm.values import LIMITS

if TYPE_CHECKING:
    from superswarm.consortium.manifest import Manifest

KEY_HOLDERS: Final = 3  # at least: with fewer, one trainer that vanishes or refuses may end a run


class Encoding(Clause):
    """How updates become integers, whose sum is exact (`superswarm.updates.secure.ring`)."""

    payload_bits: Annotated[int, Field(ge=8, le=20)] = 12  # a member's value has at least so many; the rest is room
    clip_norm: Annotated[float, Field(gt=0, le=1e9)]  # an update's largest L2 norm; a longer one is shrunk to it
    max_weight: Annotated[int, Field(ge=1, le=2**40)] = 1  # examples of the largest member; more is refused


class Masking(Clause):
    """Secure aggregation by double masking (Bonawitz et al., CCS 2017; docs/secure-sums.md)."""

    threshold: Count  # t: members that must agree on who is in a sum, and whose shares recover a seed
    colluders: Annotated[
        int, Field(ge=0, le=LIMITS.members)
    ]  # c: members that may pool what they know with the relay
    dropouts: Annotated[int, Field(ge=0, le=LIMITS.members)]  # d: members that may vanish in a round, at any step

    def least(self, minimum_cohort: int) -> int:
        """The fewest members that any sum may be of: two beyond the colluders hide behind each other."""
        return max(self.threshold, self.colluders + 2, minimum_cohort)


class Homomorphic(Masking):
    """Homomorphic encryption, with a survivors' set agreed on as in masked sums (docs/secure-sums-he.md)."""

    scheme: Literal["bfv", "ckks"] = "bfv"
    key_holders: Annotated[int, Field(ge=KEY_HOLDERS, le=LIMITS.members)]  # trainers that can decrypt


class Protection(Clause):
    """`attested`: the aggregator's TEE sees single updates. `masked`: it sees their sum only. `he`: not even that."""

    mode: Literal["attested", "masked", "he"]
    encoding: Encoding | None = None
    masking: Masking | None = None
    homomorphic: Homomorphic | None = None

    @property
    def agreement(self) -> Masking | None:
        """How survivors of a round are agreed on, in the modes that need it."""
        return self.masking or self.homomorphic


def protection_faults(m: Manifest) -> Iterable[str]:
    """What the mode of protection cannot do that the rest of the manifest asks for, and what to choose instead."""
    protection = m.protection
    hides = protection.mode != "attested"
    if hides != (protection.encoding is not None):
        yield f"protection.encoding {'is missing' if hides else 'is only for modes that sum integers: leave it out'}"
    for mode, table in (("masked", "masking"), ("he", "homomorphic")):
        if (protection.mode == mode) != (getattr(protection, table) is not None):
            wanted = protection.mode == mode
            yield f"protection.{table} {'is missing' if wanted else f'is only for the mode {mode}: leave it out'}"
    if hides and len(m.trainers) < 2:
        yield (
            f"protection.mode is {protection.mode}, which hides nothing where one member brings all the data: the "
            "sum is its update; choose attested"
        )
        return
    if hides:
        yield from _hiding_faults(m)
    if protection.masking is not None:
        yield from _agreement_faults(m, "masking", protection.masking)
    if protection.homomorphic is not None:
        yield from _agreement_faults(m, "homomorphic", protection.homomorphic)
        yield from _homomorphic_faults(m, protection.homomorphic)


def _hiding_faults(m: Manifest) -> Iterable[str]:
    mode, encoding = m.protection.mode, m.protection.encoding
    if not m.aggregation.linear:
        yield (
            f"the rule {m.aggregation.rule} needs single updates, which the mode {mode} hides: choose fedavg, or the "
            "mode attested"
        )
    if encoding is not None and m.aggregation.weighting == "equal" and encoding.max_weight != 1:
        yield "protection.encoding.max_weight is for weighting by examples; with equal weights it is 1"
    if encoding is not None and m.aggregation.weighting == "examples" and encoding.max_weight == 1:
        yield (
            "protection.encoding.max_weight is 1, so that members with more examples are refused: set it to the "
            'number of examples of the largest member, or choose weighting = "equal"'
        )
    if m.aggregation.minimum_cohort < 2:
        yield f"aggregation.minimum_cohort is 1, and a sum of one update hides nothing under {mode}: 2 or more"


def _homomorphic_faults(m: Manifest, clause: Homomorphic) -> Iterable[str]:
    n = len(m.trainers)
    if clause.key_holders > n:
        yield (
            f"protection.homomorphic.key_holders is {clause.key_holders}, and only {n} members contribute data: "
            + ("lower it" if n >= KEY_HOLDERS else f"he takes {KEY_HOLDERS} or more; choose masked")
        )
    if clause.dropouts >= clause.key_holders:
        yield (
            f"protection.homomorphic.dropouts is {clause.dropouts}: if all {clause.key_holders} key holders vanish, "
            "nobody can decrypt; lower it, or raise key_holders"
        )


def _agreement_faults(m: Manifest, table: str, masking: Masking) -> Iterable[str]:
    n, t, c, d = len(m.trainers), masking.threshold, masking.colluders, masking.dropouts
    least = m.aggregation.minimum_cohort
    lowest = (n + c) // 2 + 1
    if n < c + 2:
        yield (
            f"protection.{table}.colluders is {c} of {n} members that contribute data: fewer than two others are "
            f"left to hide behind each other; lower it to {n - 2}, or choose attested"
        )
        return  # what follows counts with it
    if t < lowest:
        yield (
            f"protection.{table}.threshold is {t}: with {n} members, of whom {c} may collude, two sets of survivors "
            f"could both be agreed on; raise it to {lowest}"
        )
    if t > n:
        yield (
            f"protection.{table}.threshold is {t}, and only {n} members contribute data: it is from {lowest} to {n}"
        )
    elif d > n - t:
        yield (
            f"protection.{table}.dropouts is {d}: with a threshold of {t} of {n} no more than {n - t} may vanish; "
            "lower it" + (f", or the threshold, to no less than {lowest}" if t > lowest else "")
        )
    elif not t <= least <= n - d:
        yield (
            f"aggregation.minimum_cohort is {least}: with this clause it is from {t}, the threshold, to {n - d}, "
            "what is left when all tolerated dropouts vanish"
        )
