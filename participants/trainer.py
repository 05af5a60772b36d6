"""The trainer: a member's program inside a TEE. It trains on the member's data for an aggregator that it has judged.

It only answers, trusts nothing that the relay says, and holds session keys, model, data and updates in memory only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from participants import encrypted_round, secure_round
from participants.encrypted_round import EncryptedMember
from participants.holding import Held
from participants.keeper import Keeper
from participants.keyring import Asker, KeyRing
from participants.learners import Learner, Learners
from participants.mailbox import Mailbox
from participants.secure_round import SecureMember, Unmaskings, discreet
from participants.trainer_handshake import Admitted, Handshake
from superswarm.attestation.evidence import Attester
from superswarm.attestation.handshake import Attempt
from superswarm.attestation.messages import Attest, Confirm, Confirmed, Hello, Refused
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.grant import ApprovedGrant
from superswarm.crypto.channel import Channel, open_broadcast
from superswarm.errors import Error, Malformed, Mismatch, NoGrant, NotVouched, OtherManifest, Untrusted
from superswarm.updates.adapter import encode_adapter, flat_vector
from superswarm.updates.messages import Order, Prepared, Trained, Unlock, Unlocked, broadcast_context
from superswarm.updates.optimizer import ServerOptimizer
from superswarm.updates.round import MemberMetrics
from superswarm.updates.secure.messages import Total
from superswarm.values import MemberId, Role
from superswarm.wire import Parcel, party

SECURE_KINDS = secure_round.KINDS | encrypted_round.KINDS


@dataclass(slots=True)
class _Session:
    """A channel to a judged aggregator, and the time the members signed, with the monotonic clock then."""

    attempt: Attempt
    grant: ApprovedGrant
    channel: Channel
    signed_time: int
    since: float
    keyring: KeyRing
    secure: SecureMember | EncryptedMember | None = None  # where the aggregator sees sums only, or not even those


@dataclass(slots=True)
class _Loaded:
    """What trains a job. With sealed assets it serves one run only: the next asks their owners again."""

    job: str
    run: str | None  # None: nothing of it is sealed
    learner: Learner


class Trainer:
    """One member's trainer. `handle` answers one message at a time; refusals leave as fixed words."""

    def __init__(
        self,
        *,
        member: MemberId,
        manifest: ApprovedManifest,
        attester: Attester,
        pairing_key: bytes,
        learners: Learners,
        monotonic: Callable[[], float] = time.monotonic,
        notify: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        if member not in manifest.manifest.trainers:
            raise OtherManifest(f"the manifest names no member {member} that contributes data")
        self.member, self.manifest = member, manifest
        self.me = party(Role.TRAINER, member)
        self.mailbox = Mailbox(self.me)
        self._handshake = Handshake(member, manifest, attester, pairing_key)
        self._attester, self._learners = attester, learners
        self._monotonic, self._notify = monotonic, notify
        self._session: _Session | None = None
        self._loaded: _Loaded | None = None
        self._held: Held | None = None
        self._unmaskings: dict[str, Unmaskings] = {}  # by run: nothing that the aggregator says makes them forgotten

    def preload(self) -> None:
        """Load the job before any run asks for it, where there is but one and nothing of it is sealed."""
        jobs = self.manifest.manifest.jobs
        if len(jobs) == 1 and not self.manifest.manifest.sealed_for(self.member, jobs[0]):
            self._loaded = _Loaded(jobs[0].name, None, self._learners.load(jobs[0], {}))

    def handle(self, _relay_run: int, kind: str, parcel: Parcel) -> Parcel:
        """Answer one message; a refusal leaves as a fixed word, and is told to the member in full."""
        try:
            return self._answer(kind, parcel)
        except Error as error:
            self._notify("refused", kind=kind, error=error.code, why=str(error))
            return Parcel(Refused(code=error.code).to_bytes())

    def _answer(self, kind: str, parcel: Parcel) -> Parcel:
        match kind:
            case "hello":
                return Parcel(self._handshake.hello(Hello.parse(parcel.head)).to_bytes())
            case "attest":
                return Parcel(self._handshake.attest(Attest.parse(parcel.head)).to_bytes())
            case "confirm":
                return Parcel(self._confirm(Confirm.parse(parcel.head)).to_bytes())
            case "unlock":
                return self._unlock(parcel)
            case "prepare":
                return self._prepare(parcel)
            case "fetch":
                return self._fetch(parcel)
            case "train" | "evaluate":
                return self._work(kind, parcel)
            case "bye":
                return self._bye(parcel)
            case _ if kind in SECURE_KINDS:
                return self._secure(kind, parcel)
            case _:
                raise Malformed("a message of a kind that a trainer does not take")

    def _confirm(self, message: Confirm) -> Confirmed:
        """Admit the aggregator that was judged: from now on, this session counts."""
        admitted, answer = self._handshake.confirm(message)
        session = _Session(
            attempt=admitted.attempt,
            grant=admitted.grant,
            channel=admitted.channel,
            signed_time=admitted.time,
            since=self._monotonic(),
            keyring=self._keyring(admitted),
        )
        session.secure = self._secure_member(admitted, session)
        self._session = session
        self._notify("admitted", run=admitted.attempt.run, attempt=admitted.attempt.number)
        return answer

    # --- rounds --------------------------------------------------------------------------------------------------

    def _live(self) -> _Session:
        """The session, if the run's grant still holds at the members' signed time."""
        session = self._session
        if session is None:
            raise NotVouched("no aggregator has been admitted")
        session.grant.check(self._time(session), session.attempt.number)
        return session

    def _time(self, session: _Session) -> int:
        """The members' signed time, carried on by the monotonic clock; unix seconds."""
        return session.signed_time + int(self._monotonic() - session.since)

    def _secure_member(self, admitted: Admitted, session: _Session) -> SecureMember | EncryptedMember | None:
        """This session's part in secure sums. What was unmasked before in this run, in whichever attempt, counts."""
        dealings = {
            "attempt": admitted.attempt,
            "member": self.member,
            "keys": admitted.keys,
            "kem": admitted.kem,
            "signing": admitted.signing,
            "now": lambda: self._time(self._live()),
            "notify": self._notify,
        }
        run = admitted.attempt.run
        match self.manifest.manifest.protection.mode:
            case "masked":
                unmaskings = self._unmaskings.setdefault(run, Unmaskings())
                return SecureMember(unmaskings=unmaskings, **dealings)
            case "he":
                return EncryptedMember(holding=self._keeper(session), **dealings)
            case _:
                return None

    def _keeper(self, session: _Session) -> Keeper:
        def keep(held: Held) -> None:
            self._held = held

        return Keeper(
            manifest=self.manifest,
            grant=session.grant,
            optimizer=lambda: self._optimizer(session),
            held=lambda: self._hold(session),
            keep=keep,
        )

    def _secure(self, kind: str, parcel: Parcel) -> Parcel:
        """One message of a secure sum, from within the channel."""
        session = self._live()
        if session.secure is None:
            raise Malformed("the manifest does not ask for secure sums")
        head, body = session.channel.open(parcel, kind)
        answer, update = session.secure.answer(kind, head, body or b"")
        return session.channel.seal(answer.KIND, session.channel.round, answer.to_bytes(), update)

    def _keyring(self, admitted: Admitted) -> KeyRing:
        """What asks for the keys of the job's sealed assets, with this session's keys and their member's vouch."""
        return KeyRing(
            Asker(
                attempt=admitted.attempt,
                member=self.member,
                keys=admitted.keys,
                kem=admitted.kem,
                signing=admitted.signing,
                vouch=admitted.vouch,
                grant=admitted.signed_grant,
                attester=self._attester,
            ),
            self.manifest.manifest.sealed_for(self.member, admitted.grant.job),
            self._monotonic,
        )

    def _unlock(self, parcel: Parcel) -> Parcel:
        """Get on with loading the run's job: ask for keys, take those that came, load once all are there."""
        session = self._live()
        head, _ = session.channel.open(parcel, "unlock")
        for error in self.mailbox.deliver(Unlock.parse(head).letters):
            self._notify("letter refused", error=error.code, why=str(error))
        if not self._is_loaded(session):
            for error in session.keyring.advance(self.mailbox):
                self._notify("letter refused", error=error.code, why=str(error))
            if session.keyring.complete:
                self._learner_for(session)
        answer = Unlocked(ready=int(self._is_loaded(session)), letters=self.mailbox.collect())
        return session.channel.seal("unlocked", session.channel.round, answer.to_bytes())

    def _is_loaded(self, session: _Session) -> bool:
        loaded = self._loaded
        return (
            loaded is not None and loaded.job == session.grant.job.name and loaded.run in (None, session.attempt.run)
        )

    def _learner_for(self, session: _Session) -> Learner:
        """What trains this run's job; loaded now if it was not before. Unavailable while keys are missing."""
        if self._loaded is None or not self._is_loaded(session):
            self._loaded = None  # one model at a time: the one of an earlier run is not needed any more
            job, keys = session.grant.job, session.keyring.take()
            learner = self._learners.load(job, keys)
            self._loaded = _Loaded(job.name, session.attempt.run if keys else None, learner)
            self._notify("loaded", job=job.name, sealed=len(keys))
        return self._loaded.learner

    def _prepare(self, parcel: Parcel) -> Parcel:
        session = self._live()
        session.channel.open(parcel, "prepare")
        learner = self._learner_for(session)
        held = self._hold(session)
        prepared = Prepared(
            spec=learner.spec.to_bytes(),
            examples=learner.examples if session.secure is None else 0,  # a weight is summed in secret
            rounds=held.rounds,
            digest=held.digest.raw,
        )
        return session.channel.seal("prepared", session.channel.round, prepared.to_bytes())

    def _hold(self, session: _Session) -> Held:
        """The newest global adapter of this run; the initial one where the run is new."""
        run = session.attempt.run
        if self._held is None or self._held.run != run:
            adapter = self._learner_for(session).initial()
            self._held = Held.initial(run, adapter, self._optimizer(session))
        return self._held

    def _optimizer(self, session: _Session) -> ServerOptimizer:
        return ServerOptimizer(self.manifest.manifest.aggregation.optimizer, self._learner_for(session).spec)

    def _fetch(self, parcel: Parcel) -> Parcel:
        """Give the aggregator the adapter that its members hold: at the start, and after it was restarted."""
        session = self._live()
        session.channel.open(parcel, "fetch")
        if isinstance(session.secure, EncryptedMember):
            raise Untrusted("the aggregator asks for an adapter that is kept from it")
        held = self._hold(session)
        return session.channel.seal("fetched", session.channel.round, b"", encode_adapter(held.whole))

    def _work(self, kind: str, parcel: Parcel) -> Parcel:
        session = self._live()
        head, _ = session.channel.open(parcel, kind)
        order, round_ = Order.parse(head), session.channel.round
        if kind == "train" and not 1 <= round_ <= session.grant.grant.rounds:
            raise NoGrant(f"the grant allows {session.grant.grant.rounds} rounds, not round {round_}")
        for error in self.mailbox.deliver(order.letters):
            self._notify("letter refused", error=error.code, why=str(error))
        learner = self._learner_for(session)
        held = self._take(session, order, parcel.body, round_)
        began = self._monotonic()
        eval_loss = learner.evaluate(held.adapter)
        train_loss, update = None, None
        if kind == "train":
            trained, train_loss = learner.train(held.adapter, round_)
            delta = {name: trained[name] - held.adapter[name] for name in trained}
            if session.secure is None:
                update = encode_adapter(delta)
            else:
                learner.spec.check(delta)
                said = session.secure.begin(round_, held.digest, flat_vector(delta, learner.spec), learner.examples)
                update = said.to_bytes() if said is not None else None
        metrics = MemberMetrics(
            train_loss=train_loss,
            eval_loss=eval_loss,
            examples=learner.examples,
            seconds=self._monotonic() - began,
        )
        if session.secure is not None:
            metrics = discreet(metrics, self.manifest.manifest.metrics)
        reply = Trained(metrics=metrics.to_bytes(), letters=self.mailbox.collect())
        return session.channel.seal(f"{kind}-done", round_, reply.to_bytes(), update)

    def _take(self, session: _Session, order: Order, body: bytes, round_: int) -> Held:
        """The global adapter that this round begins from: broadcast, or the one already held."""
        if not order.content_key:
            held = self._hold(session)
        else:
            context = broadcast_context(self.manifest.digest, session.attempt.run, round_)
            raw = open_broadcast(body, order.content_key, context)
            held = self._step(session, order, raw, round_) if order.total else self._adopt(session, raw, round_)
        if held.digest.raw != order.digest:
            raise Mismatch("the adapter held is not the one that this round begins from")
        self._held = held
        return held

    def _adopt(self, session: _Session, raw: bytes, round_: int) -> Held:
        """The adapter as the aggregator gives it; not to a trainer that is part of sums and can check them."""
        if isinstance(session.secure, EncryptedMember):
            raise Untrusted("the aggregator gives an adapter, of which it can know none")
        if session.secure is not None and session.secure.brought:
            raise Untrusted("the aggregator gives an adapter instead of the sum that this trainer is part of")
        return Held.given(session.attempt.run, round_ - 1, raw, self._optimizer(session))

    def _step(self, session: _Session, order: Order, raw: bytes, round_: int) -> Held:
        """The next adapter from the one held and the last round's sum, once that is checked."""
        held = self._hold(session)
        if not isinstance(session.secure, SecureMember) or held.rounds != round_ - 2:
            raise Untrusted("a sum for an adapter that this trainer does not hold")
        checked = session.secure.check(Total.parse(order.total), raw, round_ - 1)
        return held.after(checked, self._optimizer(session))

    def _bye(self, parcel: Parcel) -> Parcel:
        session = self._live()
        session.channel.open(parcel, "bye")
        reply = session.channel.seal("bye-done", session.channel.round, b"")
        self._session, self._held = None, None
        if self._loaded is not None and self._loaded.run is not None:
            self._loaded = None  # its keys were released for this run
        self._notify("run finished", run=session.attempt.run)
        return reply
