"""That enough witnesses signed one set of survivors; with 2t > n + c there is no second such set in a round."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import Final

from superswarm.errors import CohortTooSmall, Malformed, Untrusted
from superswarm.updates.secure.links import Standing
from superswarm.updates.secure.messages import Agreed, Total
from superswarm.updates.secure.seeds import SURVIVORS, Context
from superswarm.values import MemberId

_PROOF: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedSurvivors:
    """The survivors of one round, by signatures that one member has checked. Only `check_survivors` makes one.

    It says what was signed, and who checked: it holds for no other statement, and for no other member.
    """

    survivors: frozenset[MemberId]
    statement: bytes = field(repr=False)  # of roster, round, adapter, those masked for and survivors
    checked_by: MemberId
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only check_survivors() says that a set of survivors is signed")


def check_survivors(
    me: Standing, context: Context, said: Agreed | Total, *, known: SignedSurvivors | None = None
) -> SignedSurvivors:
    """The set of survivors that witnesses signed. Raises Untrusted, BadSignature, CohortTooSmall or Malformed.

    `known` is what this member has checked in the round before: the same statement is not checked again.
    """
    # (1) This member has checked this very statement before; or all of what follows holds.
    statement = context.statement(said.masked, said.members)
    if known is not None and (known.checked_by, known.statement) == (me.me, statement):
        return known
    # (2) It is of those that masks were made for, and large enough.
    roster, graph = me.terms.roster, me.terms.graph
    survivors, witnesses = roster.read(said.members), roster.read(said.witnesses)
    if not survivors <= roster.read(said.masked):
        raise Untrusted("somebody is said to have survived for whom no masks were made")
    if len(survivors) < me.terms.least:
        raise CohortTooSmall(f"a sum of {len(survivors)} members; it takes {me.terms.least}")
    # (3) Enough witnesses, all of them survivors, signed it.
    if not witnesses <= survivors.intersection(graph.witnesses):
        raise Untrusted("a set of survivors is signed by somebody who is no witness of it")
    if len(witnesses) < graph.plan.signatures:
        raise CohortTooSmall(f"{len(witnesses)} witnesses signed the survivors; it takes {graph.plan.signatures}")
    signers = [member for member in graph.witnesses if member in witnesses]
    if len(signers) != len(said.signatures):
        raise Malformed("not one signature of each witness")
    for member, signature in zip(signers, said.signatures, strict=True):
        key = me.signing.public if member == me.me else me.peers[member].keys.signing
        key.verify(SURVIVORS, statement, signature)
    return SignedSurvivors(survivors=survivors, statement=statement, checked_by=me.me, proof=_PROOF)
