"""The sum as trainers take it: they hold the global adapter themselves, and believe no sum that is not checked."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from superswarm.errors import Malformed, Replay, Untrusted
from superswarm.updates.secure.links import Standing
from superswarm.updates.secure.masks import Contribution
from superswarm.updates.secure.messages import Total
from superswarm.updates.secure.ring import Code
from superswarm.updates.secure.seeds import Context
from superswarm.updates.secure.witnesses import SignedSurvivors, check_survivors
from superswarm.values import MemberId

_PROOF: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedSum:
    """A sum that is what its survivors sent. Only `check_total` makes one."""

    round: int
    survivors: frozenset[MemberId]
    mean: NDArray[np.float32] = field(repr=False)  # (P,), weighted
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only check_total() makes this sum")


def check_total(
    standing: Standing,
    total: Total,
    body: bytes,
    *,
    context: Context,
    code: Code,
    most: int,
    known: SignedSurvivors | None = None,
) -> CheckedSum:
    """Check the sum of a round. Raises Untrusted, BadSignature, CohortTooSmall, Replay or Malformed.

    `most` is the manifest's largest weight, `known` what this member has checked of the round's survivors before.
    """
    # (1) It is of this round.
    if total.round != context.round:
        raise Replay(f"a sum of round {total.round}, now {context.round}")
    # (2) Witnesses signed whose updates it is of.
    survivors = check_survivors(standing, context, total, known=known).survivors
    # (3) It is what they sent: the tags fit, whose key the aggregator does not have.
    found = Contribution.parse(body, code)
    if not context.check(standing.group).accepts(found.values, found.tag, survivors, found.weight):
        raise Untrusted(f"the sum of round {context.round} is not what its survivors sent")
    # (4) None of them broke the rules so far that it shows in the sum.
    require_range(found, code, len(survivors), most)
    return CheckedSum(
        round=context.round, survivors=survivors, mean=mean_of(found, code, len(survivors), most), proof=_PROOF
    )


def require_range(found: Contribution, code: Code, count: int, most: int) -> None:
    """Malformed for a sum that `count` members cannot have made without one of them breaking the rules."""
    highest: Any = found.values.max(initial=0)
    if int(highest) > 2 * code.ring.half * count or not 0 < found.weight <= most * count:
        raise Malformed("a sum holds values or weights that its members' cannot add up to")


def mean_of(found: Contribution, code: Code, count: int, most: int) -> NDArray[np.float32]:
    """The weighted mean (P,) of `count` members' updates; the same bytes for all who have the sum."""
    return code.decode(found.values, count, found.weight / most)
