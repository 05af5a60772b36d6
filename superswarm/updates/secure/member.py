"""One round of masked sums, as a trainer sees it: five steps, each answered once, in order (docs/secure-sums.md).

Double masking (Bonawitz et al., CCS 2017) on a sparse graph in large cohorts (Bell et al., CCS 2020). Pure state: all
that comes in was carried by the aggregator, which is believed in nothing. A step that fails ends the member's round.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from superswarm.crypto.kdf import KEY_BYTES
from superswarm.crypto.shamir import VALUE_BYTES, split
from superswarm.errors import CohortTooSmall, Malformed, Replay, Untrusted
from superswarm.updates.secure.links import Standing
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
    Unmasked,
)
from superswarm.updates.secure.seeds import SURVIVORS, Context
from superswarm.updates.secure.witnesses import SignedSurvivors, check_survivors
from superswarm.values import Digest, MemberId

STEPS: Final = ("advertise", "share", "mask", "sign", "unmask")


@dataclass(frozen=True, slots=True)
class Unmasking:
    """Of which sum of a round a trainer gave shares: from which adapter, and of whom."""

    survivors: frozenset[MemberId]
    start: Digest


class MemberRound:
    """A trainer's part in one round. Seeds are fresh, and go with this object.

    `before` is what this trainer unmasked in the same round of the run before: it takes part again from the same
    adapter and with the same survivors only. Sums with others would differ by single updates, and sums from adapters
    of the aggregator's choice would be as many as it likes.
    """

    def __init__(self, standing: Standing, context: Context, before: Unmasking | None = None) -> None:
        if context.roster.digest != standing.terms.roster.digest:
            raise Untrusted("a round under another roster than the one this trainer is acquainted under")
        if before is not None and before.start != context.start:
            raise Untrusted("this round was unmasked before, from another adapter")
        standing.begin(context.round)
        self._before, self.context = before, context
        self._standing, self._me = standing, standing.me
        self._graph, self._roster = standing.terms.graph, standing.terms.roster
        self._neighbours = self._graph.neighbours(self._me)
        self._self_seed, self._pair_seed = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(KEY_BYTES)
        self._pairs: dict[MemberId, bytes] = {}  # seeds of pairwise masks, by neighbour that advertised
        self._shares: dict[MemberId, bytes] = {}  # by owner: a share of each of its seeds, one after the other
        self._done = 0  # steps that were begun
        self._advertisers: frozenset[MemberId] = frozenset()
        self._masked: frozenset[MemberId] = frozenset()
        self._signed: frozenset[MemberId] | None = None
        self.unmasked: SignedSurvivors | None = None  # once shares were given: for whom

    def advertise(self) -> Advertised:
        """(1) Make the seeds of pairwise masks with later neighbours, and commit to both own seeds."""
        self._enter("advertise")
        later = [other for other in self._neighbours if self._graph.first(self._me, other)]
        for other in later:
            self._pairs[other] = self.context.pair_seed(self._pair_seed, self._me, other)
        return Advertised(
            sealed=tuple(self._seal("pair", other, self._pairs[other]) for other in later),
            self_commitment=self.context.commitment("self", self._me, self._self_seed),
            pair_commitment=self.context.commitment("pair", self._me, self._pair_seed),
        )

    def share(self, message: Keys) -> Shared:
        """(2) Take earlier neighbours' seeds; share out the own two, and leave the taken ones under the second."""
        self._enter("share")
        self._advertisers = self._set(message.members, within=frozenset(self._roster.members))
        here = self._among(self._advertisers)
        earlier = [other for other in here if self._graph.first(other, self._me)]
        for other, sealed in zip(earlier, _exactly(message.sealed, earlier), strict=True):
            self._pairs[other] = self._open("pair", other, sealed, KEY_BYTES)
        self._pairs = {other: self._pairs[other] for other in here}
        holders, threshold = self._graph.holders(self._me), self._graph.plan.threshold
        both = zip(
            split(self._self_seed, threshold, len(holders)),
            split(self._pair_seed, threshold, len(holders)),
            strict=True,
        )
        shares = {holder: one.value + other.value for holder, (one, other) in zip(holders, both, strict=True)}
        self._shares[self._me] = shares[self._me]
        return Shared(
            sealed=tuple(self._seal("shares", other, shares[other]) for other in here),
            escrow=self.context.seal_escrow(self._pair_seed, self._me, [self._pairs[other] for other in earlier]),
        )

    def mask(self, message: Deal, contribution: Contribution) -> Masked:
        """(3) Take the neighbours' shares, and mask the contribution, in place, for exactly these members."""
        self._enter("mask")
        self._masked = self._set(message.members, within=self._advertisers)
        here = self._among(self._masked)
        for other, sealed in zip(here, _exactly(message.sealed, here), strict=True):
            self._shares[other] = self._open("shares", other, sealed, 2 * VALUE_BYTES)
        marks = self._roster.mark(self._masked)
        masks: list[tuple[bytes, Sign]] = [(self.context.mask_key(self._self_seed, marks), 1)]
        for other in here:
            sign: Sign = 1 if self._graph.first(self._me, other) else -1
            masks.append((self.context.mask_key(self._pairs[other], marks), sign))
        contribution.apply(masks)
        self._pairs.clear()
        return Masked(proofs=tuple(self._prove(self._me, other, marks) for other in here))

    def sign(self, message: Survivors) -> Signed:
        """(4) As a witness, sign the one set of survivors of this round, if it is of those that all masked for."""
        self._enter("sign")
        if self._me not in self._graph.witnesses:
            raise Untrusted("this trainer is no witness under this roster")
        self._signed = self._survivors(message.members)
        statement = self.context.statement(self._roster.mark(self._masked), self._roster.mark(self._signed))
        return Signed(signature=self._standing.signing.sign(SURVIVORS, statement))

    def unmask(self, message: Agreed) -> Unmasked:
        """(5) Give one share of each member that masks were made for: survivors' first seed, the others' second."""
        self._enter("unmask")
        # (1) The survivors are a set that this member may survive with, and no other than it signed.
        survivors = self._survivors(message.members)
        if self._signed not in (None, survivors):
            raise Untrusted("the aggregator names other survivors than those that this trainer signed")
        # (2) Witnesses signed it, with the same set of those masked for that this member has: no other set can be.
        if self._roster.read(message.masked) != self._masked:
            raise Untrusted("others were told to mask for other members than this trainer was")
        signed = check_survivors(self._standing, self.context, message)
        # (3) Each surviving neighbour masked for that set too.
        here = self._among(survivors)
        for other, proof in zip(here, _exactly(message.proofs, here), strict=True):
            if not hmac.compare_digest(proof, self._prove(other, self._me, message.masked)):
                raise Untrusted(f"{other} masked for other members than this trainer did")
        # (4) One share of each: never both, as this step comes once.
        held = [owner for owner in self._graph.holders(self._me) if owner in self._masked]
        chosen = tuple(
            self._shares[owner][:VALUE_BYTES] if owner in survivors else self._shares[owner][VALUE_BYTES:]
            for owner in held
        )
        self._shares.clear()
        self.unmasked = signed
        return Unmasked(shares=chosen)

    def _enter(self, step: str) -> None:
        """Each step once, in order; only signing may be left out."""
        number = STEPS.index(step)
        if number < self._done:
            raise Replay(f"the step {step} of round {self.context.round} was taken before")
        if self._done < number - (step == "unmask"):
            raise Untrusted(f"the step {step} of round {self.context.round} came before those that it rests on")
        self._done = number + 1

    def _set(self, marks: bytes, *, within: frozenset[MemberId]) -> frozenset[MemberId]:
        """A set that the aggregator names: of those before, with this member, and large enough to hide in."""
        members = self._roster.read(marks)
        if self._me not in members or not members <= within:
            raise Untrusted("the aggregator names a set without this trainer, or with members that were not there")
        if len(members) < self._standing.terms.least:
            raise CohortTooSmall(
                f"a sum of {len(members)} members: this trainer asks for {self._standing.terms.least}"
            )
        return members

    def _survivors(self, marks: bytes) -> frozenset[MemberId]:
        members = self._set(marks, within=self._masked)
        if self._before is not None and self._before.survivors != members:
            raise Untrusted("this round was unmasked before, with other survivors: their difference would show")
        return members

    def _among(self, members: frozenset[MemberId]) -> list[MemberId]:
        """This member's neighbours in a set, in the order of the circle."""
        return [other for other in self._neighbours if other in members]

    def _seal(self, purpose: str, other: MemberId, plaintext: bytes) -> bytes:
        return self._standing.links[other].seal(purpose, self._me, other, plaintext)

    def _open(self, purpose: str, other: MemberId, sealed: bytes, size: int) -> bytes:
        plaintext = self._standing.links[other].open(purpose, other, self._me, sealed)
        if len(plaintext) != size:
            raise Malformed(f"{other} sealed something of another length")
        return plaintext

    def _prove(self, sender: MemberId, receiver: MemberId, masked: bytes) -> bytes:
        """A sender's word to a neighbour, under their link, that it masked for this set."""
        neighbour = receiver if sender == self._me else sender
        key = self._standing.links[neighbour].key("masked", sender, receiver)
        return hmac.digest(key, masked, "sha256")


def _exactly(blobs: tuple[bytes, ...], whose: Iterable[MemberId]) -> tuple[bytes, ...]:
    if len(blobs) != len(list(whose)):
        raise Malformed("not one blob of each member that it should be of")
    return blobs
