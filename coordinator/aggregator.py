"""The aggregator: in a TEE, it combines the members' updates into the next global adapter.

It asks, trainers and nodes answer, and the relay carries ciphertext. Whatever it says outside (`notify`) goes through
`released`: what the manifest does not release stays here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import rfc8785

from coordinator.admission import Admission, Session
from coordinator.broadcast import Broadcast, GlobalAdapter
from coordinator.encrypted_round import EncryptedRounds
from coordinator.exchange import Timing, accepted, exchange
from coordinator.mailroom import Mailroom, Outgoing
from coordinator.postman import Postman
from coordinator.secure_round import SecureRounds
from coordinator.unlocking import Unlocking
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.grant import ApprovedGrant
from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import (
    CohortTooSmall,
    Error,
    Malformed,
    NoGrant,
    NotVouched,
    RefusedByMembers,
    Unavailable,
    WrongShapes,
)
from superswarm.io.capacity import require_memory
from superswarm.updates.adapter import Adapter, AdapterSpec, decode_adapter, encode_adapter
from superswarm.updates.messages import Prepared, Trained, broadcast_context
from superswarm.updates.optimizer import ServerOptimizer
from superswarm.updates.publish import addressees
from superswarm.updates.round import MemberMetrics, Released, Round, Update, released
from superswarm.updates.rule import kept_bytes
from superswarm.updates.secure.messages import Advertised
from superswarm.values import Digest, MemberId, Role
from superswarm.wire import Parcel, party

FAREWELL_SECONDS = 30.0
DELIVERY_SECONDS = 600.0  # to bring the result to the members' nodes


class Publisher(Protocol):
    """Makes the result container and keeps a copy for the operator to hand over; it is ciphertext."""

    def publish(self, adapter: Adapter, admission: Admission, rounds: int) -> bytes: ...

    def keep(self, container: bytes, run: str, signer: VerifyingKey) -> None:
        """Keep the copy of a result that a trainer made."""


@dataclass(slots=True)
class _Member:
    """A trainer in the cohort: its session and how much it trains with."""

    session: Session
    prepared: Prepared


@dataclass(slots=True)
class Aggregator:
    """One attempt at one granted run. `run` returns when the result is delivered, or raises what stopped it."""

    manifest: ApprovedManifest
    grant: ApprovedGrant
    admission: Admission
    mailroom: Mailroom
    postman: Postman
    publisher: Publisher
    timing: Timing
    notify: Callable[..., None]
    join_seconds: float = 300.0  # how long to wait for the whole cohort before round 1
    _nodes: Mapping[MemberId, int] = field(default_factory=dict)
    _cohort: dict[MemberId, _Member] = field(default_factory=dict)
    _signed_time: int = 0
    _since: float = 0.0
    _spec: AdapterSpec | None = None
    _unlocking: Unlocking = field(init=False)
    _secure: SecureRounds = field(init=False)
    _encrypted: EncryptedRounds = field(init=False)

    def __post_init__(self) -> None:
        self._secure = SecureRounds(
            attempt=self.admission.attempt,
            cohort=lambda: {name: member.session for name, member in self._cohort.items()},
            exchange=self._exchange,
            patience=self.admission.patience,
            notify=self.notify,
        )
        self._encrypted = EncryptedRounds(self._secure, self._leave_out, self.notify)
        self._unlocking = Unlocking(self.mailroom, self.postman, self.timing, self._leave_out)

    def run(self) -> None:
        """Admit, agree on where to begin, train the granted rounds, evaluate, publish."""
        rounds = min(self.grant.job.rounds, self.grant.grant.rounds)
        self._gather()
        state = self._begin()
        first = state.rounds + 1
        for number in range(first, rounds + 1):
            if number > first:
                self._admit_late()
            state = self._round(number, state)
        if self._mode == "he":
            self._level(state)
        self._evaluate(rounds, state)
        self._publish(state)
        self._bye(rounds)

    # --- who is there --------------------------------------------------------------------------------------------

    def _gather(self) -> None:
        """Admit members until the whole cohort is there; after `join_seconds`, until it is large enough."""
        wanted = set(self.manifest.manifest.trainers)
        minimum = self.manifest.manifest.aggregation.minimum_cohort
        patience = self.timing.monotonic() + self.join_seconds
        seen: frozenset[int] = frozenset()
        failure: Error | None = None
        while wanted - self._cohort.keys():
            late = self.timing.monotonic() >= patience
            if late and len(self._cohort) >= minimum:
                break
            if late:
                reason = f": {failure}" if failure is not None else ""
                raise CohortTooSmall(
                    f"{len(self._cohort)} members joined in time; the manifest asks for {minimum}{reason}"
                )
            peers = self.mailroom.peers()
            if peers == seen:
                self.timing.sleep(0.2)
                seen = seen if self.timing.monotonic() < patience - self.join_seconds / 2 else frozenset()
                continue
            seen = peers
            try:
                self._admit(peers, self.manifest.manifest.aggregation.round_seconds)
            except RefusedByMembers:
                raise
            except (NotVouched, Unavailable) as error:
                failure = error
                self.notify("not yet admitted", error=error.code, why=str(error))

    def _admit_late(self) -> None:
        """At a round's start: let members in that came late or were restarted; nobody's failure stops the round."""
        missing = set(self.manifest.manifest.trainers) - self._cohort.keys()
        known = {m.session.peer for m in self._cohort.values()}
        newcomers = self.mailroom.peers() - known - set(self._nodes.values())
        if missing and newcomers:
            try:
                self._admit(self.mailroom.peers() - known, self.admission.patience)
            except Error as error:
                self.notify("not admitted", error=error.code, why=str(error))

    def _admit(self, peers: frozenset[int], patience: float) -> None:
        """Shake hands with these peers; those trainers join that get ready within `patience` seconds."""
        admitted = self.admission.admit(peers)
        self._nodes = {**self._nodes, **admitted.nodes}
        self._signed_time, self._since = admitted.signed_time, self.timing.monotonic()
        self._prepare(self._unlock(admitted.sessions, patience))

    def _unlock(self, sessions: tuple[Session, ...], seconds: float) -> tuple[Session, ...]:
        """Wait for trainers that load something for this run: sealed assets, or one of several jobs' models."""
        agreed = self.manifest.manifest
        loading = {
            s.member: s for s in sessions if len(agreed.jobs) > 1 or agreed.sealed_for(s.member, self.grant.job)
        }
        ready = self._unlocking.unlock(loading, self._nodes, seconds)
        return tuple(s for s in sessions if s.member not in loading or s.member in ready)

    def _prepare(self, sessions: tuple[Session, ...]) -> None:
        """Ask newly admitted trainers what they have; only those whose adapter has the cohort's shapes join."""
        by_peer = {s.peer: s for s in sessions}
        asks = [Outgoing(s.peer, "prepare", s.channel.seal("prepare", s.channel.round, b"")) for s in sessions]

        def take(peer: int, parcel: Parcel) -> None:
            session = by_peer[peer]
            head, _ = session.channel.open(parcel, "prepared")
            prepared = Prepared.parse(head)
            if self._spec is not None and prepared.spec != self._spec.to_bytes():
                raise WrongShapes(f"{session.member}'s adapter has other shapes than the cohort's")
            self._cohort[session.member] = _Member(session, prepared)
            self.notify("joined", member=session.member, of=len(self.manifest.manifest.trainers))

        self._exchange(asks, self.admission.patience, take)

    # --- where to begin ------------------------------------------------------------------------------------------

    def _begin(self) -> GlobalAdapter:
        """Take the adapter that most members hold: the initial one, or the newest after a restart.

        Members derive the initial adapter from the manifest's seed and keep the global one in memory, so an
        aggregator that was restarted continues where they are. Raises CohortTooSmall where they do not agree.
        """
        held = Counter((m.prepared.rounds, m.prepared.digest, m.prepared.spec) for m in self._cohort.values())
        needed = max(self.manifest.manifest.aggregation.minimum_cohort, len(self._cohort) // 2 + 1)
        agreed = [claim for claim, members in held.items() if members >= needed]
        if not agreed:
            raise CohortTooSmall("the members do not hold the same adapter: their base models or seeds differ")
        rounds, digest, spec = agreed[0]
        if rounds > self.grant.grant.rounds:
            raise NoGrant("the members hold an adapter of more rounds than the grant allows")
        self._spec = AdapterSpec.parse(spec)
        for member in [m for m, x in self._cohort.items() if x.prepared.spec != spec]:
            self._leave_out(member, WrongShapes("another adapter than the cohort's"))
        if self._mode == "he":
            state = GlobalAdapter(rounds, {}, b"", known=Digest(digest))
        else:
            state = self._fetch(rounds, digest)
        if rounds:
            self.notify("continued", round=rounds)
        return state

    def _fetch(self, rounds: int, digest: bytes) -> GlobalAdapter:
        """Get the agreed adapter from one of those who hold it."""
        found: list[bytes] = []
        for member in list(self._cohort.values()):
            if member.prepared.digest != digest or found:
                continue
            session = member.session

            def take(_peer: int, parcel: Parcel, session: Session = session) -> None:
                _, raw = session.channel.open(parcel, "fetched")
                if raw is None or Digest.of(raw).raw != digest:
                    raise Malformed(f"{session.member} gave another adapter than it said it holds")
                found.append(raw)

            ask = Outgoing(session.peer, "fetch", session.channel.seal("fetch", session.channel.round, b""))
            self._exchange([ask], self.admission.patience, take)
        if not found:
            raise CohortTooSmall("no member could give the adapter that the cohort holds")
        optimizer = self._optimizer()
        return GlobalAdapter(rounds, optimizer.adapter(decode_adapter(found[0], optimizer.held)), found[0])

    def _require_spec(self) -> AdapterSpec:
        if self._spec is None:
            raise RuntimeError("no adapter was agreed on yet")
        return self._spec

    def _optimizer(self) -> ServerOptimizer:
        return ServerOptimizer(self.manifest.manifest.aggregation.optimizer, self._require_spec())

    # --- rounds --------------------------------------------------------------------------------------------------

    def _round(self, number: int, state: GlobalAdapter) -> GlobalAdapter:
        """One round: broadcast, collect, aggregate. Raises CohortTooSmall when too few answer by the deadline."""
        self.grant.check(self._time(), self.admission.attempt.number)
        self.notify("round begins", round=number, members=len(self._cohort))
        match self._mode:
            case "masked":
                return self._masked_round(number, state)
            case "he":
                return self._encrypted_round(number, state)
        rule = self.manifest.manifest.aggregation
        require_memory(
            kept_bytes(rule, self._require_spec(), len(self._cohort)), f"the updates that {rule.rule} keeps"
        )
        round_ = Round(
            number=number,
            cohort=self._cohort,
            rule=rule,
            spec=self._require_spec(),
            opened=self.timing.monotonic(),
        )

        def take(member: _Member, parcel: Parcel) -> None:
            session = member.session
            head, body = session.channel.open(parcel, "train-done", number)
            trained = Trained.parse(head)
            if body is None:
                raise Malformed(f"{session.member} sent no update")
            update = Update(
                round=number,
                sender=session.member,
                adapter=decode_adapter(body, self._require_spec()),
                metrics=MemberMetrics.parse(trained.metrics),
            )
            round_.accept(update, at=self.timing.monotonic())
            self.postman.sort(trained.letters, party(Role.TRAINER, session.member))
            self.notify("update", round=number, members=len(round_.answered), of=len(round_.cohort))

        self._order("train", number, state, rule.round_seconds, take)
        for member in round_.awaited:
            round_.lose(member)
        result = round_.close(at=self.timing.monotonic())
        optimizer = self._optimizer()
        held = optimizer.step(decode_adapter(state.raw, optimizer.held), result.adapter)
        self._report(number, result.metrics)
        return GlobalAdapter(number, optimizer.adapter(held), encode_adapter(held))

    def _masked_round(self, number: int, state: GlobalAdapter) -> GlobalAdapter:
        """One round whose updates this aggregator does not see: their masked sum makes the next adapter."""
        self._secure.acquaint()
        spec, metrics = self._require_spec(), dict[MemberId, MemberMetrics]()
        sums = self._secure.begin(number, spec)

        def take(member: _Member, parcel: Parcel) -> None:
            session = member.session
            head, body = session.channel.open(parcel, "train-done", number)
            trained = Trained.parse(head)
            measured = MemberMetrics.parse(trained.metrics)
            sums.advertised(session.member, Advertised.parse(body or b""))
            metrics[session.member] = measured
            self.postman.sort(trained.letters, party(Role.TRAINER, session.member))
            self.notify("update", round=number, members=len(metrics), of=len(sums.terms.roster.members))

        self._order("train", number, state, self.manifest.manifest.aggregation.round_seconds, take)
        made = self._secure.finish(sums, spec)
        optimizer = self._optimizer()
        held = optimizer.step(decode_adapter(state.raw, optimizer.held), made.mean)
        self._report(number, {name: found for name, found in metrics.items() if name in sums.survivors})
        return GlobalAdapter(number, optimizer.adapter(held), encode_adapter(held), made)

    def _encrypted_round(self, number: int, state: GlobalAdapter) -> GlobalAdapter:
        """One round whose updates, sum and adapters this aggregator does not see: trainers keep them."""
        self._level(state)
        sums, metrics = self._encrypted.begin(number, self._require_spec()), dict[MemberId, MemberMetrics]()

        def take(member: _Member, parcel: Parcel) -> None:
            head, _ = member.session.channel.open(parcel, "train-done", number)
            trained = Trained.parse(head)
            metrics[member.session.member] = MemberMetrics.parse(trained.metrics)
            self.postman.sort(trained.letters, party(Role.TRAINER, member.session.member))
            self.notify("update", round=number, members=len(metrics), of=len(sums.terms.roster.members))

        self._order("train", number, state, self.manifest.manifest.aggregation.round_seconds, take)
        made = GlobalAdapter(number, {}, b"", known=self._encrypted.finish(sums))
        for name, member in self._cohort.items():
            if name in sums.survivors:
                member.prepared = _holding(member.prepared, made)
        self._report(number, {name: found for name, found in metrics.items() if name in sums.survivors})
        return made

    def _level(self, state: GlobalAdapter) -> None:
        """See to it that all are acquainted, and hold the adapter that the round begins from."""
        self._secure.acquaint()
        lacking = {m for m, one in self._cohort.items() if one.prepared.digest != state.digest.raw}
        if lacking:
            having = [member for member in self._cohort if member not in lacking]
            for member in self._encrypted.hand_over(state.digest, having, lacking) & self._cohort.keys():
                self._cohort[member].prepared = _holding(self._cohort[member].prepared, state)
            self._secure.acquaint()  # without those that were left out

    @property
    def _mode(self) -> str:
        return self.manifest.manifest.protection.mode

    def _evaluate(self, rounds: int, state: GlobalAdapter) -> None:
        """Have every member evaluate the final adapter, which it then also holds."""
        metrics: dict[MemberId, MemberMetrics] = {}

        def take(member: _Member, parcel: Parcel) -> None:
            head, _ = member.session.channel.open(parcel, "evaluate-done", rounds + 1)
            metrics[member.session.member] = MemberMetrics.parse(Trained.parse(head).metrics)

        self._order("evaluate", rounds + 1, state, self.manifest.manifest.aggregation.round_seconds, take)
        self._report(rounds + 1, metrics)

    def _order(
        self, kind: str, number: int, state: GlobalAdapter, seconds: float, take: Callable[[_Member, Parcel], None]
    ) -> None:
        """Send the cohort its order with the global adapter, encrypted once, and take the answers."""
        broadcast = Broadcast(state, broadcast_context(self.manifest.digest, self.admission.attempt.run, number))
        outgoing = []
        for member, one in self._cohort.items():
            letters = self.postman.take_for(party(Role.TRAINER, member))
            order, body = broadcast.order(one.session, one.prepared.digest, letters)
            head = one.session.channel.seal(kind, number, order.to_bytes()).head
            outgoing.append(Outgoing(one.session.peer, kind, Parcel(head, body)))
        by_peer = {m.session.peer: m for m in self._cohort.values()}
        before = dict(self._cohort)
        self.postman.visit(self._nodes)
        self._exchange(outgoing, seconds, lambda peer, parcel: take(by_peer[peer], parcel), self.postman.return_home)
        for one in before.values():
            one.prepared = _holding(one.prepared, state)

    def _exchange(
        self,
        outgoing: list[Outgoing],
        seconds: float,
        take: Callable[[int, Parcel], None],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Exchange with trainers; one that fails, refuses or is late is left out of the cohort."""
        names = {m.session.peer: name for name, m in self._cohort.items()}

        def each(peer: int, parcel: Parcel | None) -> None:
            try:
                take(peer, accepted(parcel))
            except Error as error:
                self._leave_out(names.get(peer), error)

        silent = exchange(self.mailroom, outgoing, seconds, each, timing=self.timing, meanwhile=meanwhile)
        for peer in silent:
            self._leave_out(names.get(peer), Unavailable("no answer in time"))

    def _leave_out(self, member: MemberId | None, error: Error) -> None:
        """Take a member out of the cohort; it may be admitted again at the next round, with new evidence."""
        if member is not None:
            self._cohort.pop(member, None)
        self.notify("left out", member=member, error=error.code, why=str(error))

    def _time(self) -> int:
        """The members' signed time, carried on by the monotonic clock; unix seconds."""
        return self._signed_time + int(self.timing.monotonic() - self._since)

    # --- news and result -----------------------------------------------------------------------------------------

    def _report(self, number: int, metrics: Mapping[MemberId, MemberMetrics]) -> None:
        """Tell operator and members what the manifest releases to each of them, and nothing else."""
        agreed = self.manifest.manifest
        self.notify(
            "round closed", round=number, members=len(metrics), metrics=dict(released(metrics, agreed, to="operator"))
        )
        news = released(metrics, agreed, to="members")
        if news:
            for member in self._nodes:
                self.postman.write(member, "metrics", number, _canonical(news))

    def _publish(self, state: GlobalAdapter) -> None:
        """Seal the result and bring it to the nodes of whoever receives, releases or serves it."""
        head, container = b"result", b""
        if self._mode == "he":
            maker, container = self._encrypted.publish(list(self._cohort))
            self.publisher.keep(container, self.admission.attempt.run, maker.keys.signing)
            head = maker.dossier.to_bytes()
        else:
            container = self.publisher.publish(state.adapter, self.admission, state.rounds)
        wanted = addressees(self.manifest.manifest)
        peers = {self._nodes[member]: member for member in wanted if member in self._nodes}
        delivered: list[str] = []

        def each(peer: int, parcel: Parcel | None) -> None:
            try:
                accepted(parcel)
                delivered.append(peers[peer])
            except Error as error:
                self.notify("result not taken", member=peers[peer], error=error.code, why=str(error))

        parcel = Parcel(head, container)
        outgoing = [Outgoing(peer, "result", parcel) for peer in peers]
        exchange(self.mailroom, outgoing, DELIVERY_SECONDS, each, timing=self.timing)
        missing = sorted(set(wanted) - set(delivered))
        self.notify("result delivered", to=sorted(delivered), missing=missing, bytes=len(container))

    def _bye(self, rounds: int) -> None:
        """Let trainers drop what they hold, and nodes read their last letters."""
        self.postman.finish(self._nodes, FAREWELL_SECONDS)
        number = rounds + 1
        asks = [
            Outgoing(m.session.peer, "bye", m.session.channel.seal("bye", number, b"")) for m in self._cohort.values()
        ]
        self._exchange(asks, FAREWELL_SECONDS, lambda *_: None)


def _holding(prepared: Prepared, state: GlobalAdapter) -> Prepared:
    return Prepared(spec=prepared.spec, examples=prepared.examples, rounds=state.rounds, digest=state.digest.raw)


def _canonical(news: Released) -> bytes:
    """Released metrics as canonical JSON (RFC 8785)."""
    return rfc8785.dumps({name: dict(value) if isinstance(value, Mapping) else value for name, value in news.items()})
