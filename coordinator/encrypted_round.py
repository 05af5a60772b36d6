"""The aggregator's part in encrypted sums: it adds ciphertexts, carries what trainers seal, and learns no adapter.

It knows the adapter by its digest only. Members that fail, refuse or are late are left out by `exchange`, as
everywhere; the sum is of those that are left, and any key holder among them decrypts it for the others.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from coordinator.admission import Session
from coordinator.secure_round import SecureRounds
from superswarm.attestation.messages import Message
from superswarm.errors import CohortTooSmall, Mismatch
from superswarm.updates.adapter import AdapterSpec
from superswarm.updates.secure.he_combine import HeSumRound
from superswarm.updates.secure.he_keys import HePlan
from superswarm.updates.secure.he_messages import (
    Deal,
    Dealt,
    Decrypted,
    Encrypted,
    Give,
    Given,
    Publish,
    Published,
    Taken,
)
from superswarm.updates.secure.messages import Signed
from superswarm.updates.secure.seeds import Context
from superswarm.values import Digest, MemberId

M = TypeVar("M", bound=Message)


@dataclass(slots=True)
class EncryptedRounds:
    """Encrypted rounds of one attempt, over the links that `secure` makes."""

    secure: SecureRounds
    leave_out: Callable[[MemberId, Mismatch], None] = field(repr=False)
    notify: Callable[..., None] = field(repr=False)

    def hand_over(self, digest: Digest, having: Iterable[MemberId], lacking: Iterable[MemberId]) -> set[MemberId]:
        """Have one of those with the agreed adapter seal it to the others; who took it. The rest is left out."""
        wanting, given, taken = set(lacking), list[tuple[Given, bytes]](), set[MemberId]()

        def take(member: MemberId, said: Taken, _body: bytes) -> None:
            if said.digest != digest.raw:
                raise Mismatch(f"{member} was handed another adapter than the cohort holds")
            taken.add(member)

        for giver in having:
            if not given:
                self.secure.tell({giver: (Give(), None)}, Given, lambda _m, said, body: given.append((said, body)))
        for said, body in given:
            self.secure.tell(dict.fromkeys(wanting, (said, body)), Taken, take)
            self.notify("handed over", to=sorted(taken))
        for member in (wanting - taken) & self.secure.cohort().keys():
            self.leave_out(member, Mismatch("no member could give it the adapter that the cohort holds"))
        return taken

    def begin(self, number: int, start: Digest, spec: AdapterSpec) -> HeSumRound:
        """The state of a round from the adapter `start`, once its members are acquainted."""
        terms = self.secure.require_terms()
        context = Context(terms.roster, number, start)
        plan = HePlan.of(terms, context, spec.parameters, self.secure.attempt.manifest.manifest)
        keys = {member: session.keys.signing for member, session in self.secure.cohort().items()}
        return HeSumRound(terms, plan, keys)

    def finish(self, sums: HeSumRound) -> Digest:
        """All steps after training; the digest of the adapter that trainers make of the sum.

        Raises CohortTooSmall where too few are left at any of them, or where trainers make different adapters.
        """
        self._deal(sums)
        self._ask(sums, sums.ask_encrypted(), Encrypted, sums.encrypted)
        self._ask(sums, sums.ask_signatures(), Signed, lambda m, said, _: sums.signed(m, said))
        self._decrypt(sums)
        return self._agree(sums)

    def publish(self, members: Iterable[MemberId]) -> tuple[Session, bytes]:
        """The result container, and the session of the trainer that made it."""
        sessions, made = dict(self.secure.cohort()), dict[MemberId, bytes]()
        for member in members:
            if not made:
                self.secure.tell({member: (Publish(), None)}, Published, lambda m, _s, body: made.update({m: body}))
        for member, container in made.items():
            return sessions[member], container
        raise CohortTooSmall("no member could make the result")

    def _deal(self, sums: HeSumRound) -> None:
        """Ask key holders, one after the other, until one has made the round's keys."""
        dealt: list[MemberId] = []

        def take(member: MemberId, said: Dealt, _body: bytes) -> None:
            sums.dealt(member, said)
            dealt.append(member)

        while not dealt:
            holder = sums.next_dealer()
            self.secure.tell({holder: (Deal(round=sums.plan.context.round), None)}, Dealt, take)

    def _decrypt(self, sums: HeSumRound) -> None:
        """Ask key holders among the survivors, one after the other, until one has decrypted the sum."""
        done: list[MemberId] = []

        def take(member: MemberId, _said: Decrypted, body: bytes) -> None:
            sums.decrypted(member, body)
            done.append(member)

        while not done:
            dst = io.BytesIO()
            holder, message = sums.next_decryption(dst)
            self.secure.tell({holder: (message, dst.getvalue())}, Decrypted, take)

    def _agree(self, sums: HeSumRound) -> Digest:
        """Give the survivors their sum; those whose adapter differs from most others' are left out."""
        message, body = sums.opened()
        taken: dict[MemberId, Digest] = {}
        self.secure.tell(
            dict.fromkeys(sums.survivors, (message, body)),
            Taken,
            lambda member, said, _body: taken.update({member: Digest(said.digest)}),
        )
        ((digest, count),) = Counter(taken.values()).most_common(1) or [(Digest(bytes(32)), 0)]
        if count < sums.terms.least:
            raise CohortTooSmall(f"{count} members took the sum of round {sums.plan.context.round}")
        for member, found in taken.items():
            if found != digest:
                self.leave_out(member, Mismatch(f"{member} made another adapter of the sum than the others"))
        return digest

    def _ask(
        self,
        sums: HeSumRound,
        asks: Mapping[MemberId, Message],
        kind: type[M],
        take: Callable[[MemberId, M, bytes], None],
    ) -> None:
        self.secure.tell({member: (ask, None) for member, ask in asks.items()}, kind, take)
        self.notify("sum", round=sums.plan.context.round, step=kind.KIND, members=len(asks))
