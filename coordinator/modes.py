"""What the manifest's mode of protection makes of a run: where it begins, its rounds, and who makes the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from coordinator.admission import Admission
from coordinator.broadcast import GlobalAdapter
from coordinator.cohort import Cohort, Joined
from coordinator.encrypted_round import EncryptedRounds
from coordinator.mailroom import Outgoing
from coordinator.secure_round import SecureRounds
from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import CohortTooSmall, Malformed
from superswarm.io.capacity import require_memory
from superswarm.updates.adapter import Adapter, decode_adapter, encode_adapter
from superswarm.updates.round import MemberMetrics, Round, Update
from superswarm.updates.rule import kept_bytes
from superswarm.updates.secure.messages import Advertised
from superswarm.values import Digest, MemberId
from superswarm.wire import Parcel


class Publisher(Protocol):
    """Makes the result container and keeps a copy for the operator to hand over; it is ciphertext."""

    def publish(self, adapter: Adapter, admission: Admission, rounds: int) -> bytes: ...

    def keep(self, container: bytes, run: str, signer: VerifyingKey) -> None:
        """Keep the copy of a result that a trainer made."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A round that is over: the next adapter, and the metrics of those whose updates are in it."""

    state: GlobalAdapter
    metrics: Mapping[MemberId, MemberMetrics]


class Mode(Protocol):
    """How rounds are made under one mode of protection."""

    def begin(self, rounds: int, digest: Digest) -> GlobalAdapter:
        """The adapter of this digest, which most members hold."""
        ...

    def round(self, number: int, state: GlobalAdapter) -> Closed:
        """One round from this adapter. Raises CohortTooSmall when too few are left at any step."""
        ...

    def settle(self, state: GlobalAdapter) -> None:
        """After the last round: see to it that trainers can evaluate this adapter."""
        ...

    def publish(self, state: GlobalAdapter) -> Parcel:
        """The sealed result, as it goes to members' nodes; the publisher has a copy."""
        ...


def mode_of(cohort: Cohort, publisher: Publisher) -> Mode:
    """The mode that the manifest asks for."""
    match cohort.manifest.protection.mode:
        case "attested":
            return Attested(cohort, publisher)
        case "masked":
            return Masked(cohort, publisher)
        case "he":
            return Encrypted(cohort, publisher)


class Attested:
    """Single updates lie open in this TEE, and are aggregated by the manifest's rule."""

    def __init__(self, cohort: Cohort, publisher: Publisher) -> None:
        self._cohort, self._publisher = cohort, publisher

    def begin(self, rounds: int, digest: Digest) -> GlobalAdapter:
        raw = fetch(self._cohort, digest)
        optimizer = self._cohort.optimizer
        return GlobalAdapter(rounds, optimizer.adapter(decode_adapter(raw, optimizer.held)), raw)

    def round(self, number: int, state: GlobalAdapter) -> Closed:
        cohort, rule, spec = self._cohort, self._cohort.manifest.aggregation, self._cohort.spec
        require_memory(kept_bytes(rule, spec, len(cohort.members)), f"the updates that {rule.rule} keeps")
        clock = cohort.timing.monotonic
        round_ = Round(number=number, cohort=cohort.members, rule=rule, spec=spec, opened=clock())

        def take(joined: Joined, metrics: MemberMetrics, body: bytes | None) -> int:
            if body is None:
                raise Malformed(f"{joined.member} sent no update")
            adapter = decode_adapter(body, spec)
            update = Update(round=number, sender=joined.member, adapter=adapter, metrics=metrics)
            round_.accept(update, at=clock())
            return len(round_.answered)

        cohort.order("train", number, state, take)
        for member in round_.awaited:
            round_.lose(member)
        result = round_.close(at=clock())
        return Closed(stepped(cohort, state, number, result.adapter), result.metrics)

    def settle(self, state: GlobalAdapter) -> None:
        """The order to evaluate brings what is lacking."""

    def publish(self, state: GlobalAdapter) -> Parcel:
        container = self._publisher.publish(state.adapter, self._cohort.admission, state.rounds)
        return Parcel(b"result", container)


class Masked(Attested):
    """This TEE sees the sum of updates only, and each adapter that it makes."""

    def __init__(self, cohort: Cohort, publisher: Publisher) -> None:
        super().__init__(cohort, publisher)
        self._secure = secure_rounds(cohort)

    def round(self, number: int, state: GlobalAdapter) -> Closed:
        self._secure.acquaint()
        sums = self._secure.begin(number, state.digest, self._cohort.spec)
        measured: dict[MemberId, MemberMetrics] = {}

        def take(joined: Joined, metrics: MemberMetrics, body: bytes | None) -> int:
            sums.advertised(joined.member, Advertised.parse(body or b""))
            measured[joined.member] = metrics
            return len(measured)

        self._cohort.order("train", number, state, take)
        made = self._secure.finish(sums, self._cohort.spec)
        after = stepped(self._cohort, state, number, made.mean)
        after.made = made
        return Closed(after, {name: found for name, found in measured.items() if name in sums.survivors})


class Encrypted:
    """This TEE sees no update, no sum and no adapter: trainers keep the adapter, and make the result."""

    def __init__(self, cohort: Cohort, publisher: Publisher) -> None:
        self._cohort, self._publisher = cohort, publisher
        self._secure = secure_rounds(cohort)
        self._rounds = EncryptedRounds(self._secure, cohort.leave_out, cohort.notify)

    def begin(self, rounds: int, digest: Digest) -> GlobalAdapter:
        return GlobalAdapter(rounds, {}, b"", known=digest)

    def round(self, number: int, state: GlobalAdapter) -> Closed:
        self.settle(state)
        sums = self._rounds.begin(number, state.digest, self._cohort.spec)
        measured: dict[MemberId, MemberMetrics] = {}

        def take(joined: Joined, metrics: MemberMetrics, _body: bytes | None) -> int:
            measured[joined.member] = metrics
            return len(measured)

        self._cohort.order("train", number, state, take)
        after = GlobalAdapter(number, {}, b"", known=self._rounds.finish(sums))
        for name, joined in self._cohort.members.items():
            if name in sums.survivors:
                joined.hold(after)
        return Closed(after, {name: found for name, found in measured.items() if name in sums.survivors})

    def settle(self, state: GlobalAdapter) -> None:
        """See to it that all are acquainted, and that all hold this adapter."""
        self._secure.acquaint()
        members = self._cohort.members
        lacking = {name for name, joined in members.items() if joined.prepared.digest != state.digest.raw}
        if lacking:
            having = [name for name in members if name not in lacking]
            for name in self._rounds.hand_over(state.digest, having, lacking) & members.keys():
                members[name].hold(state)
            self._secure.acquaint()  # without those that were left out

    def publish(self, state: GlobalAdapter) -> Parcel:
        maker, container = self._rounds.publish(list(self._cohort.members))
        self._publisher.keep(container, self._cohort.admission.attempt.run, maker.keys.signing)
        return Parcel(maker.dossier.to_bytes(), container)


def secure_rounds(cohort: Cohort) -> SecureRounds:
    """What masked and encrypted rounds share: members that are acquainted with each other."""
    return SecureRounds(
        attempt=cohort.admission.attempt,
        cohort=lambda: cohort.sessions,
        exchange=cohort.exchange,
        patience=cohort.admission.patience,
        notify=cohort.notify,
    )


def stepped(cohort: Cohort, state: GlobalAdapter, number: int, mean: Adapter) -> GlobalAdapter:
    """The next adapter: the server's step along the mean update."""
    optimizer = cohort.optimizer
    held = optimizer.step(decode_adapter(state.raw, optimizer.held), mean)
    return GlobalAdapter(number, optimizer.adapter(held), encode_adapter(held))


def fetch(cohort: Cohort, digest: Digest) -> bytes:
    """Get the agreed adapter from one of those who hold it. Raises CohortTooSmall where none can give it."""
    found: list[bytes] = []
    for joined in list(cohort.members.values()):
        if joined.prepared.digest == digest.raw and not found:
            session = joined.session
            ask = Outgoing(session.peer, "fetch", session.channel.seal("fetch", session.channel.round, b""))
            cohort.exchange([ask], cohort.admission.patience, _taker(joined, digest, found.append))
    if not found:
        raise CohortTooSmall("no member could give the adapter that the cohort holds")
    return found[0]


def _taker(joined: Joined, digest: Digest, keep: Callable[[bytes], None]) -> Callable[[int, Parcel], None]:
    def take(_peer: int, parcel: Parcel) -> None:
        _, raw = joined.session.channel.open(parcel, "fetched")
        if raw is None or Digest.of(raw) != digest:
            raise Malformed(f"{joined.member} gave another adapter than it said it holds")
        keep(raw)

    return take
