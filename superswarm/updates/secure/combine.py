"""One round of masked sums, as the aggregator sees it: it carries what it cannot read, and adds what looks random.

Each step collects answers (`advertised`, `shared`, `masked`, `signed`, `unmasked`) and is closed by asking for the
next one. Members that do not answer are left behind: masks made for them come off again. Holds one running sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from math import comb
from random import SystemRandom
from typing import Final

from superswarm.crypto.kdf import KEY_BYTES
from superswarm.crypto.shamir import Share, combine
from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import CohortTooSmall, Malformed, Mismatch, Replay, Untrusted
from superswarm.updates.secure.masks import Contribution, Sign
from superswarm.updates.secure.messages import (
    Advertised,
    Agreed,
    Deal,
    Keys,
    Masked,
    Shared,
    Signed,
    Survivors,
    Total,
    Unmasked,
)
from superswarm.updates.secure.ring import Code
from superswarm.updates.secure.roster import Terms
from superswarm.updates.secure.seeds import SURVIVORS, Context
from superswarm.values import MemberId

TRIES: Final = 256  # sets of shares that are tried where some do not belong
STEPS: Final = ("advertised", "shared", "masked", "signed", "unmasked")


class SumRound:
    """The aggregator's part in one round."""

    def __init__(self, terms: Terms, context: Context, code: Code, keys: Mapping[MemberId, VerifyingKey]) -> None:
        self.terms, self.context, self.code = terms, context, code
        self._graph, self._roster, self._keys = terms.graph, terms.roster, keys
        self._step = 0
        self._asked = frozenset(terms.roster.members)
        self._advertised: dict[MemberId, Advertised] = {}
        self._shared: dict[MemberId, Shared] = {}
        self._proofs: dict[MemberId, Masked] = {}
        self._signatures: dict[MemberId, bytes] = {}
        self._shares: dict[MemberId, list[Share]] = {}  # by owner
        self._answered: set[MemberId] = set()
        self._masked: frozenset[MemberId] = frozenset()
        self.survivors: frozenset[MemberId] = frozenset()
        self._sum = Contribution.zero(code)

    @property
    def awaited(self) -> frozenset[MemberId]:
        """Members that may still answer the step that is open."""
        return self._asked - self._answered

    # --- answers ---------------------------------------------------------------------------------------------------

    def advertised(self, member: MemberId, message: Advertised) -> None:
        self._enter("advertised", member)
        later = [other for other in self._graph.neighbours(member) if self._graph.first(member, other)]
        _require(member, message.sealed, later)
        self._advertised[member] = message
        self._answered.add(member)

    def shared(self, member: MemberId, message: Shared) -> None:
        self._enter("shared", member)
        _require(member, message.sealed, self._among(member, self._asked))
        self._shared[member] = message
        self._answered.add(member)

    def masked(self, member: MemberId, message: Masked, body: bytes) -> None:
        self._enter("masked", member)
        _require(member, message.proofs, self._among(member, self._asked))
        self._sum.add(Contribution.parse(body, self.code))
        self._proofs[member] = message
        self._answered.add(member)

    def signed(self, member: MemberId, message: Signed) -> None:
        self._enter("signed", member)
        statement = self.context.statement(self._roster.mark(self._masked), self._roster.mark(self.survivors))
        self._keys[member].verify(SURVIVORS, statement, message.signature)
        self._signatures[member] = message.signature
        self._answered.add(member)

    def unmasked(self, member: MemberId, message: Unmasked) -> None:
        self._enter("unmasked", member)
        owners = [owner for owner in self._graph.holders(member) if owner in self._masked]
        _require(member, message.shares, owners)
        shares = [
            Share(1 + self._graph.holders(owner).index(member), value)
            for owner, value in zip(owners, message.shares, strict=True)
        ]
        for owner, share in zip(owners, shares, strict=True):
            self._shares.setdefault(owner, []).append(share)
        self._answered.add(member)

    # --- what is asked next ----------------------------------------------------------------------------------------

    def ask_shares(self) -> dict[MemberId, Keys]:
        """Close (1): to each that advertised, the pairwise seeds that earlier neighbours made for it."""
        here = self._next("shared")
        marks = self._roster.mark(here)
        return {member: Keys(members=marks, sealed=tuple(self._pair_seeds(member, here))) for member in here}

    def ask_masked(self) -> dict[MemberId, Deal]:
        """Close (2): to each that shared, the shares that its neighbours made for it."""
        advertisers = self._asked
        here = self._masked = self._next("masked")
        marks = self._roster.mark(here)
        return {member: Deal(members=marks, sealed=tuple(self._dealt(member, advertisers))) for member in here}

    def ask_signatures(self) -> dict[MemberId, Survivors]:
        """Close (3): to each witness among the survivors, who they are."""
        self.survivors = self._next("signed")
        self._asked = self.survivors.intersection(self._graph.witnesses)
        message = Survivors(members=self._roster.mark(self.survivors))
        return dict.fromkeys(self._asked, message)

    def ask_unmasking(self) -> dict[MemberId, Agreed]:
        """Close (4): to each survivor, what witnesses signed. CohortTooSmall where too few did."""
        if len(self._signatures) < self._graph.plan.signatures:
            raise CohortTooSmall(
                f"{len(self._signatures)} witnesses signed the survivors; it takes {self._graph.plan.signatures}"
            )
        self._step, self._asked, self._answered = STEPS.index("unmasked"), self.survivors, set()
        masked, members, witnesses, signatures = self._agreement()
        return {
            member: Agreed(
                masked=masked,
                members=members,
                witnesses=witnesses,
                signatures=signatures,
                proofs=tuple(self._proofs_for(member)),
            )
            for member in self.survivors
        }

    # --- the sum ---------------------------------------------------------------------------------------------------

    def total(self) -> tuple[Total, Contribution]:
        """Close (5): take all masks off, and say whose sum is left. CohortTooSmall where shares are too few."""
        self._enter_total()
        self._sum.apply(self._left_over())
        masked, members, witnesses, signatures = self._agreement()
        said = Total(
            round=self.context.round, masked=masked, members=members, witnesses=witnesses, signatures=signatures
        )
        return said, self._sum

    def _left_over(self) -> Iterator[tuple[bytes, Sign]]:
        """The masks that are in the sum: survivors' own, and those between survivors and members that vanished."""
        marks = self._roster.mark(self._masked)
        for member in self._roster.members:
            if member in self.survivors:
                yield self.context.mask_key(self._recover(member, "self"), marks), -1
            elif member in self._masked:
                for other, seed in self._pairs(member):
                    sign: Sign = -1 if self._graph.first(other, member) else 1  # what the survivor put on, off again
                    yield self.context.mask_key(seed, marks), sign

    def _pairs(self, gone: MemberId) -> list[tuple[MemberId, bytes]]:
        """The seeds of the masks between one that vanished and its surviving neighbours."""
        seed = self._recover(gone, "pair")
        earlier = [o for o in self._among(gone, frozenset(self._advertised)) if self._graph.first(o, gone)]
        escrow = self.context.open_escrow(seed, gone, self._shared[gone].escrow, len(earlier))
        seeds = dict(zip(earlier, escrow, strict=True))
        return [
            (other, seeds[other] if other in seeds else self.context.pair_seed(seed, gone, other))
            for other in self._among(gone, self.survivors)
        ]

    def _recover(self, member: MemberId, purpose: str) -> bytes:
        """A seed from its holders' shares, compared with its commitment; shares that do not fit are passed over."""
        said, shares, threshold = self._advertised[member], self._shares.get(member, []), self._graph.plan.threshold
        if len(shares) < threshold:
            raise CohortTooSmall(f"{len(shares)} holders gave a share of {member}'s seed; it takes {threshold}")
        wanted = said.self_commitment if purpose == "self" else said.pair_commitment
        for chosen in _choices(shares, threshold):
            try:
                seed = combine(chosen, threshold, KEY_BYTES)
            except Malformed:
                continue
            if self.context.commitment(purpose, member, seed) == wanted:
                return seed
        raise Mismatch(f"the shares of {member}'s seed do not give what it committed to")

    # --- helpers ---------------------------------------------------------------------------------------------------

    def _enter(self, step: str, member: MemberId) -> None:
        """An answer to the open step, from a member that was asked, for the first time."""
        if STEPS[self._step] != step:
            raise Replay(f"{member} answers a step of round {self.context.round} that is not open")
        if member not in self._asked:
            raise Untrusted(f"{member} was not asked in this step of round {self.context.round}")
        if member in self._answered:
            raise Replay(f"{member} has already answered this step of round {self.context.round}")

    def _next(self, step: str) -> frozenset[MemberId]:
        """Open the next step, for those that answered this one. Raises CohortTooSmall."""
        if STEPS.index(step) != self._step + 1:
            raise RuntimeError(f"the step {step} out of order")
        if len(self._answered) < self.terms.least:
            raise CohortTooSmall(
                f"round {self.context.round}: {len(self._answered)} of {len(self._roster.members)} members answered, "
                f"and a sum needs {self.terms.least}"
            )
        self._step, self._asked, self._answered = self._step + 1, frozenset(self._answered), set()
        return self._asked

    def _enter_total(self) -> None:
        if STEPS[self._step] != "unmasked":
            raise RuntimeError("total() before the last step")
        self._step += 1

    def _agreement(self) -> tuple[bytes, bytes, bytes, tuple[bytes, ...]]:
        """Masked for, survivors, witnesses, and as many signatures as it takes."""
        signers = [w for w in self._graph.witnesses if w in self._signatures][: self._graph.plan.signatures]
        mark = self._roster.mark
        return mark(self._masked), mark(self.survivors), mark(signers), tuple(self._signatures[w] for w in signers)

    def _among(self, member: MemberId, members: frozenset[MemberId]) -> list[MemberId]:
        return [other for other in self._graph.neighbours(member) if other in members]

    def _pair_seeds(self, member: MemberId, here: frozenset[MemberId]) -> Iterator[bytes]:
        for other in self._among(member, here):
            if self._graph.first(other, member):
                later = [o for o in self._graph.neighbours(other) if self._graph.first(other, o)]
                yield self._advertised[other].sealed[later.index(member)]

    def _dealt(self, member: MemberId, advertisers: frozenset[MemberId]) -> Iterator[bytes]:
        for other in self._among(member, self._masked):
            yield self._shared[other].sealed[self._among(other, advertisers).index(member)]

    def _proofs_for(self, member: MemberId) -> Iterator[bytes]:
        for other in self._among(member, self.survivors):
            yield self._proofs[other].proofs[self._among(other, self._masked).index(member)]


def _choices(shares: Sequence[Share], threshold: int) -> Iterator[Sequence[Share]]:
    """Sets of shares to try: all where they are few, else the first and random ones, of which some lack a liar's."""
    if comb(len(shares), threshold) <= TRIES:
        yield from combinations(shares, threshold)
        return
    yield shares[:threshold]
    random = SystemRandom()
    for _ in range(TRIES - 1):
        yield random.sample(shares, threshold)


def _require(member: MemberId, blobs: Sequence[bytes], whose: Iterable[MemberId]) -> None:
    if len(blobs) != len(list(whose)):
        raise Malformed(f"{member} did not give one blob for each member that it should")
