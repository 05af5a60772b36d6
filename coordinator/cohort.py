"""The cohort of one run attempt: who is there, what each holds, and the exchanges with all of them at once.

A member that fails, refuses or is late is left out, and may be admitted again later with new evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from coordinator.admission import Admission, Session
from coordinator.broadcast import Broadcast, GlobalAdapter
from coordinator.exchange import Timing, accepted, exchange
from coordinator.mailroom import Mailroom, Outgoing
from coordinator.postman import Postman
from coordinator.unlocking import Unlocking
from superswarm.consortium.manifest import Manifest
from superswarm.errors import (
    CohortTooSmall,
    Error,
    NotVouched,
    RefusedByMembers,
    Unavailable,
    WrongShapes,
)
from superswarm.updates.adapter import AdapterSpec
from superswarm.updates.messages import Prepared, Trained, broadcast_context
from superswarm.updates.optimizer import ServerOptimizer
from superswarm.updates.round import MemberMetrics
from superswarm.values import MemberId, Role
from superswarm.wire import Parcel, party

LOOK_SECONDS = 0.2  # between two looks for newcomers


@dataclass(slots=True)
class Joined:
    """A trainer in the cohort: its session, how much it trains with, and which adapter it holds."""

    session: Session
    prepared: Prepared

    @property
    def member(self) -> MemberId:
        return self.session.member

    def hold(self, state: GlobalAdapter) -> None:
        """It holds this adapter from now on."""
        was = self.prepared
        self.prepared = Prepared(spec=was.spec, examples=was.examples, rounds=state.rounds, digest=state.digest.raw)


@dataclass(slots=True)
class Cohort:
    """Trainers that were admitted to this attempt and are ready, and the members' nodes."""

    admission: Admission
    mailroom: Mailroom
    postman: Postman
    timing: Timing
    notify: Callable[..., None]
    members: dict[MemberId, Joined] = field(default_factory=dict)
    nodes: Mapping[MemberId, int] = field(default_factory=dict)
    _spec: AdapterSpec | None = None
    _signed_time: int = 0
    _since: float = 0.0
    _unlocking: Unlocking = field(init=False)

    def __post_init__(self) -> None:
        self._unlocking = Unlocking(self.mailroom, self.postman, self.timing, self.leave_out)

    @property
    def manifest(self) -> Manifest:
        return self.admission.attempt.manifest.manifest

    @property
    def sessions(self) -> dict[MemberId, Session]:
        return {name: joined.session for name, joined in self.members.items()}

    @property
    def time(self) -> int:
        """The members' signed time, carried on by the monotonic clock; unix seconds."""
        return self._signed_time + int(self.timing.monotonic() - self._since)

    @property
    def spec(self) -> AdapterSpec:
        """The shapes that the cohort agreed on."""
        if self._spec is None:
            raise RuntimeError("no adapter was agreed on yet")
        return self._spec

    @property
    def optimizer(self) -> ServerOptimizer:
        return ServerOptimizer(self.manifest.aggregation.optimizer, self.spec)

    # --- who is there --------------------------------------------------------------------------------------------

    def gather(self, join_seconds: float) -> None:
        """Admit members until the whole cohort is there; after `join_seconds`, until it is large enough."""
        wanted, minimum = set(self.manifest.trainers), self.manifest.aggregation.minimum_cohort
        patience = self.timing.monotonic() + join_seconds
        seen: frozenset[int] = frozenset()
        failure: Error | None = None
        while wanted - self.members.keys():
            late = self.timing.monotonic() >= patience
            if late and len(self.members) >= minimum:
                break
            if late:
                reason = f": {failure}" if failure is not None else ""
                raise CohortTooSmall(
                    f"{len(self.members)} members joined in time; the manifest asks for {minimum}{reason}"
                )
            peers = self.mailroom.peers()
            if peers == seen:
                self.timing.sleep(LOOK_SECONDS)
                seen = seen if self.timing.monotonic() < patience - join_seconds / 2 else frozenset()
                continue
            seen = peers
            try:
                self._admit(peers, self.manifest.aggregation.round_seconds)
            except RefusedByMembers:
                raise
            except (NotVouched, Unavailable) as error:
                failure = error
                self.notify("not yet admitted", error=error.code, why=str(error))

    def admit_late(self) -> None:
        """At a round's start: let members in that came late or were restarted; nobody's failure stops the round."""
        missing = set(self.manifest.trainers) - self.members.keys()
        known = {joined.session.peer for joined in self.members.values()}
        newcomers = self.mailroom.peers() - known - set(self.nodes.values())
        if missing and newcomers:
            try:
                self._admit(self.mailroom.peers() - known, self.admission.patience)
            except Error as error:
                self.notify("not admitted", error=error.code, why=str(error))

    def agree_on(self, spec: bytes) -> None:
        """These are the adapter's shapes; whoever trains others is left out, now and later."""
        self._spec = AdapterSpec.parse(spec)
        for member in [name for name, joined in self.members.items() if joined.prepared.spec != spec]:
            self.leave_out(member, WrongShapes("another adapter than the cohort's"))

    def leave_out(self, member: MemberId | None, error: Error) -> None:
        """Take a member out; it may be admitted again at the next round, with new evidence."""
        if member is not None:
            self.members.pop(member, None)
        self.notify("left out", member=member, error=error.code, why=str(error))

    def _admit(self, peers: frozenset[int], patience: float) -> None:
        """Shake hands with these peers; those trainers join that get ready within `patience` seconds."""
        admitted = self.admission.admit(peers)
        self.nodes = {**self.nodes, **admitted.nodes}
        self._signed_time, self._since = admitted.signed_time, self.timing.monotonic()
        self._prepare(self._unlock(admitted.sessions, patience))

    def _unlock(self, sessions: Collection[Session], seconds: float) -> Collection[Session]:
        """Wait for trainers that load something for this run: sealed assets, or one of several jobs' models."""
        job = self.admission.grant.job
        loading = {
            s.member: s for s in sessions if len(self.manifest.jobs) > 1 or self.manifest.sealed_for(s.member, job)
        }
        ready = self._unlocking.unlock(loading, self.nodes, seconds)
        return [s for s in sessions if s.member not in loading or s.member in ready]

    def _prepare(self, sessions: Collection[Session]) -> None:
        """Ask newly admitted trainers what they have; only those whose adapter has the cohort's shapes join."""
        by_peer = {s.peer: s for s in sessions}
        asks = [Outgoing(s.peer, "prepare", s.channel.seal("prepare", s.channel.round, b"")) for s in sessions]

        def take(peer: int, parcel: Parcel) -> None:
            session = by_peer[peer]
            head, _ = session.channel.open(parcel, "prepared")
            prepared = Prepared.parse(head)
            if self._spec is not None and prepared.spec != self._spec.to_bytes():
                raise WrongShapes(f"{session.member}'s adapter has other shapes than the cohort's")
            self.members[session.member] = Joined(session, prepared)
            self.notify("joined", member=session.member, of=len(self.manifest.trainers))

        self.exchange(asks, self.admission.patience, take)

    # --- all at once ---------------------------------------------------------------------------------------------

    def order(
        self, kind: str, number: int, state: GlobalAdapter, take: Callable[[Joined, MemberMetrics, bytes | None], int]
    ) -> None:
        """Order all to train or evaluate from this adapter, encrypted once, and take the answers.

        `take` gets who answers, its metrics and what it sends along, and says how many have answered. Whoever answers
        in time holds the adapter.
        """
        context = broadcast_context(self.admission.attempt.manifest.digest, self.admission.attempt.run, number)
        broadcast, before = Broadcast(state, context), dict(self.members)
        outgoing = []
        for member, joined in before.items():
            letters = self.postman.take_for(party(Role.TRAINER, member))
            order, body = broadcast.order(joined.session, joined.prepared.digest, letters)
            head = joined.session.channel.seal(kind, number, order.to_bytes()).head
            outgoing.append(Outgoing(joined.session.peer, kind, Parcel(head, body)))
        by_peer = {joined.session.peer: joined for joined in before.values()}

        def each(peer: int, parcel: Parcel) -> None:
            joined = by_peer[peer]
            head, body = joined.session.channel.open(parcel, f"{kind}-done", number)
            done = Trained.parse(head)
            answered = take(joined, MemberMetrics.parse(done.metrics), body)
            self.postman.sort(done.letters, party(Role.TRAINER, joined.member))
            self.notify("update", round=number, members=answered, of=len(before))

        self.postman.visit(self.nodes)
        self.exchange(outgoing, self.manifest.aggregation.round_seconds, each, self.postman.return_home)
        for joined in before.values():
            joined.hold(state)

    def exchange(
        self,
        outgoing: list[Outgoing],
        seconds: float,
        take: Callable[[int, Parcel], None],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Exchange with trainers; one that fails, refuses or is late is left out."""
        names = {joined.session.peer: name for name, joined in self.members.items()}

        def each(peer: int, parcel: Parcel | None) -> None:
            try:
                take(peer, accepted(parcel))
            except Error as error:
                self.leave_out(names.get(peer), error)

        silent = exchange(self.mailroom, outgoing, seconds, each, timing=self.timing, meanwhile=meanwhile)
        for peer in silent:
            self.leave_out(names.get(peer), Unavailable("no answer in time"))
