"""The aggregator's part in masked sums: it carries what members seal to each other, and unmasks their sum.

A round goes on from the answers to its order, in five exchanges (docs/secure-sums.md). Members that fail, refuse or
are late in one are left out by `exchange`, as everywhere; the sum is of those that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from coordinator.admission import Session
from coordinator.mailroom import Outgoing
from superswarm.attestation.handshake import Attempt
from superswarm.attestation.messages import Message
from superswarm.consortium.manifest import Encoding
from superswarm.errors import Malformed
from superswarm.updates.adapter import Adapter, AdapterSpec
from superswarm.updates.secure.combine import SumRound
from superswarm.updates.secure.links import check_introduction, needed, pass_on
from superswarm.updates.secure.messages import (
    Acquainted,
    Introduce,
    Introduction,
    Masked,
    Shared,
    Signed,
    Unmasked,
)
from superswarm.updates.secure.roster import Roster, Terms, accept_roster
from superswarm.updates.secure.seeds import Context, code_of
from superswarm.updates.secure.total import mean_of, require_range
from superswarm.values import Digest, MemberId
from superswarm.wire import Parcel, join

M = TypeVar("M", bound=Message)
Take: TypeAlias = Callable[[int, Parcel], None]


@dataclass(frozen=True, slots=True)
class MadeSum:
    """A round's sum as trainers get it, and the mean that it gives."""

    total: bytes  # Total
    body: bytes = field(repr=False)
    mean: Adapter = field(repr=False)
    takers: frozenset[Digest]  # session keys of the trainers that can check it


@dataclass(slots=True)
class SecureRounds:
    """Masked rounds of one attempt. `cohort` is who is there now; `exchange` leaves out who fails."""

    attempt: Attempt
    cohort: Callable[[], Mapping[MemberId, Session]]
    exchange: Callable[[list[Outgoing], float, Take], None]
    patience: float  # seconds that one step may take
    notify: Callable[..., None]
    _terms: Terms | None = None
    _number: int = 0

    def acquaint(self) -> None:
        """See to it that the whole cohort has links under one roster; a new one where the cohort changed.

        Raises CohortTooSmall where fewer are left than a sum needs.
        """
        while not self._acquainted():
            self._terms, self._number = None, self._number + 1
            sessions = dict(self.cohort())
            roster = Roster.of(self.attempt, self._number, {m: s.keys for m, s in sessions.items()})
            terms = accept_roster(roster, self.attempt)
            said = self._introduce(terms, sessions)
            if said.keys() == sessions.keys() and self._pass_on(terms, sessions, said) == sessions.keys():
                self._terms = terms
                self.notify("acquainted", members=len(sessions), neighbours=terms.graph.plan.degree)

    def begin(self, number: int, start: Digest, spec: AdapterSpec) -> SumRound:
        """A round from the adapter `start`; its first answers come with the answers to the order to train."""
        terms, encoding = self.require_terms(), self._encoding()
        context = Context(terms.roster, number, start)
        code = code_of(context, spec.parameters, encoding.payload_bits, encoding.clip_norm)
        keys = {member: session.keys.signing for member, session in self.cohort().items()}
        return SumRound(terms, context, code, keys)

    def finish(self, sums: SumRound, spec: AdapterSpec) -> MadeSum:
        """Steps (2) to (5), and the sum. Raises CohortTooSmall where too few are left at any of them."""
        self._ask(sums, sums.ask_shares(), Shared, lambda m, said, _: sums.shared(m, said))
        self._ask(sums, sums.ask_masked(), Masked, lambda m, said, body: sums.masked(m, said, body))
        self._ask(sums, sums.ask_signatures(), Signed, lambda m, said, _: sums.signed(m, said))
        self._ask(sums, sums.ask_unmasking(), Unmasked, lambda m, said, _: sums.unmasked(m, said))
        total, found = sums.total()
        count, most = len(sums.survivors), self._encoding().max_weight
        require_range(found, sums.code, count, most)
        mean = spec.views(mean_of(found, sums.code, count, most))
        takers = frozenset(keys for member, keys in sums.terms.roster.entries if member in sums.survivors)
        return MadeSum(total.to_bytes(), found.to_bytes(), mean, takers)

    def _acquainted(self) -> bool:
        """Whether the roster is of exactly this cohort, with the session keys that it has now."""
        entries = {member: session.keys.digest for member, session in self.cohort().items()}
        return self._terms is not None and dict(self._terms.roster.entries) == entries

    def _introduce(self, terms: Terms, sessions: Mapping[MemberId, Session]) -> dict[MemberId, Introduction]:
        """Show each member the others that it deals with, and take the secrets that it seals to them."""
        said: dict[MemberId, Introduction] = {}
        head = Introduce(roster=terms.roster.to_bytes())
        dossiers = {member: session.dossier.to_bytes() for member, session in sessions.items()}

        def take(member: MemberId, message: Introduction, _body: bytes) -> None:
            check_introduction(terms.graph, member, message)
            said[member] = message

        self._tell(
            {
                member: _sealed(session, head, join([dossiers[other] for other in needed(terms.graph, member)]))
                for member, session in sessions.items()
            },
            Introduction,
            take,
        )
        return said

    def _pass_on(
        self, terms: Terms, sessions: Mapping[MemberId, Session], said: Mapping[MemberId, Introduction]
    ) -> set[MemberId]:
        """Give each member what others sealed to it; those that could open all of it."""
        ready: set[MemberId] = set()

        def take(member: MemberId, message: Acquainted, _body: bytes) -> None:
            if message.roster != terms.roster.digest.raw:
                raise Malformed(f"{member} is acquainted under another roster")
            ready.add(member)

        parcels = {m: _sealed(s, pass_on(terms.graph, said, m)) for m, s in sessions.items()}
        self._tell(parcels, Acquainted, take)
        return ready

    def _ask(
        self,
        sums: SumRound,
        asks: Mapping[MemberId, Message],
        kind: type[M],
        take: Callable[[MemberId, M, bytes], None],
    ) -> None:
        """One step: each member of the cohort that is asked gets its message, and its answer is taken."""
        sessions = self.cohort()
        parcels = {m: _sealed(sessions[m], ask) for m, ask in asks.items() if m in sessions}
        self._tell(parcels, kind, take)
        self.notify("sum", round=sums.context.round, step=kind.KIND, members=len(parcels))

    def tell(
        self,
        messages: Mapping[MemberId, tuple[Message, bytes | None]],
        kind: type[M],
        take: Callable[[MemberId, M, bytes], None],
    ) -> None:
        """Give these members their messages with their bodies, as far as they are there, and take the answers."""
        sessions = self.cohort()
        self._tell({m: _sealed(sessions[m], *said) for m, said in messages.items() if m in sessions}, kind, take)

    def _tell(
        self,
        parcels: Mapping[MemberId, tuple[str, Parcel]],
        kind: type[M],
        take: Callable[[MemberId, M, bytes], None],
    ) -> None:
        sessions = {m: s for m, s in self.cohort().items() if m in parcels}
        by_peer = {session.peer: session for session in sessions.values()}

        def each(peer: int, parcel: Parcel) -> None:
            session = by_peer[peer]
            head, body = session.channel.open(parcel, kind.KIND)
            take(session.member, kind.parse(head), body or b"")

        outgoing = [Outgoing(s.peer, parcels[m][0], parcels[m][1]) for m, s in sessions.items()]
        self.exchange(outgoing, self.patience, each)

    def require_terms(self) -> Terms:
        if self._terms is None:
            raise RuntimeError("a masked round before its members are acquainted")
        return self._terms

    def _encoding(self) -> Encoding:
        encoding = self.attempt.manifest.manifest.protection.encoding
        if encoding is None:
            raise RuntimeError("the manifest does not ask for secure sums")
        return encoding


def _sealed(session: Session, message: Message, body: bytes | None = None) -> tuple[str, Parcel]:
    """A message of the current round in the member's channel, and its kind."""
    return message.KIND, session.channel.seal(message.KIND, session.channel.round, message.to_bytes(), body)
