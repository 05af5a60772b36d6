"""That enough witnesses signed one set of survivors; with 2t > n + c there is no second such set in a round."""

from __future__ import annotations

from collections.abc import Mapping

from superswarm.attestation.appraise import TrainerKey
from superswarm.errors import CohortTooSmall, Malformed, Untrusted
from superswarm.updates.secure.links import Standing
from superswarm.updates.secure.messages import Agreed, Total
from superswarm.updates.secure.roster import Terms
from superswarm.updates.secure.seeds import SURVIVORS, Context
from superswarm.values import MemberId


def check_survivors(
    terms: Terms, context: Context, peers: Mapping[MemberId, TrainerKey], said: Agreed | Total, *, me: Standing
) -> frozenset[MemberId]:
    """The set of survivors that witnesses signed. Raises Untrusted, BadSignature or CohortTooSmall."""
    roster, graph = terms.roster, terms.graph
    survivors, witnesses = roster.read(said.members), roster.read(said.witnesses)
    # (1) It is of those that masks were made for, and large enough.
    if not survivors <= roster.read(said.masked):
        raise Untrusted("somebody is said to have survived for whom no masks were made")
    if len(survivors) < terms.least:
        raise CohortTooSmall(f"a sum of {len(survivors)} members; it takes {terms.least}")
    # (2) Enough witnesses, all of them survivors, signed it.
    if not witnesses <= survivors.intersection(graph.witnesses):
        raise Untrusted("a set of survivors is signed by somebody who is no witness of it")
    if len(witnesses) < graph.plan.signatures:
        raise CohortTooSmall(f"{len(witnesses)} witnesses signed the survivors; it takes {graph.plan.signatures}")
    signers = [member for member in graph.witnesses if member in witnesses]
    if len(signers) != len(said.signatures):
        raise Malformed("not one signature of each witness")
    statement = context.statement(said.masked, said.members)
    for member, signature in zip(signers, said.signatures, strict=True):
        key = me.signing.public if member == me.me else peers[member].keys.signing
        key.verify(SURVIVORS, statement, signature)
    return survivors
