"""The aggregator: in a TEE, it combines the members' updates into the next global adapter.

It asks, trainers and nodes answer, and the relay carries ciphertext. Whatever it says outside (`notify`) goes through
`released`: what the manifest does not release stays here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import rfc8785

from coordinator.admission import Admission
from coordinator.broadcast import GlobalAdapter
from coordinator.cohort import Cohort, Joined
from coordinator.exchange import Timing, accepted, exchange
from coordinator.mailroom import Mailroom, Outgoing
from coordinator.modes import Mode, Publisher, mode_of
from coordinator.postman import Postman
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.grant import ApprovedGrant
from superswarm.errors import CohortTooSmall, Error, NoGrant
from superswarm.updates.publish import addressees
from superswarm.updates.round import MemberMetrics, Released, released
from superswarm.values import Digest, MemberId
from superswarm.wire import Parcel

FAREWELL_SECONDS = 30.0
DELIVERY_SECONDS = 600.0  # to bring the result to the members' nodes


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
    cohort: Cohort = field(init=False)
    mode: Mode = field(init=False)

    def __post_init__(self) -> None:
        self.cohort = Cohort(self.admission, self.mailroom, self.postman, self.timing, self.notify)
        self.mode = mode_of(self.cohort, self.publisher)

    def run(self) -> None:
        """Admit, agree on where to begin, train the granted rounds, evaluate, publish."""
        rounds = min(self.grant.job.rounds, self.grant.grant.rounds)
        self.cohort.gather(self.join_seconds)
        state = self._begin()
        first = state.rounds + 1
        for number in range(first, rounds + 1):
            if number > first:
                self.cohort.admit_late()
            state = self._round(number, state)
        self._evaluate(rounds, state)
        self._deliver(self.mode.publish(state))
        self._bye(rounds)

    def _begin(self) -> GlobalAdapter:
        """Take the adapter that most members hold: the initial one, or the newest after a restart.

        Members derive the initial adapter from the manifest's seed and keep the global one in memory, so an
        aggregator that was restarted continues where most of them are; the others get it with the next order. Raises
        CohortTooSmall where no adapter is held by more than half.
        """
        members = self.cohort.members.values()
        held = Counter((m.prepared.rounds, m.prepared.digest, m.prepared.spec) for m in members)
        agreed = [claim for claim, holders in held.items() if holders > len(members) // 2]
        if not agreed:
            raise CohortTooSmall("the members do not hold the same adapter: their base models or seeds differ")
        rounds, digest, spec = agreed[0]
        if rounds > self.grant.grant.rounds:
            raise NoGrant("the members hold an adapter of more rounds than the grant allows")
        self.cohort.agree_on(spec)
        state = self.mode.begin(rounds, Digest(digest))
        if rounds:
            self.notify("continued", round=rounds)
        return state

    def _round(self, number: int, state: GlobalAdapter) -> GlobalAdapter:
        """One round, if the grant still holds at the members' signed time."""
        self.grant.check(self.cohort.time, self.admission.attempt.number)
        self.notify("round begins", round=number, members=len(self.cohort.members))
        closed = self.mode.round(number, state)
        self._report(number, closed.metrics)
        return closed.state

    def _evaluate(self, rounds: int, state: GlobalAdapter) -> None:
        """Have every member evaluate the final adapter, which it then also holds."""
        measured: dict[MemberId, MemberMetrics] = {}

        def take(joined: Joined, metrics: MemberMetrics, _body: bytes | None) -> int:
            measured[joined.member] = metrics
            return len(measured)

        self.mode.settle(state)
        self.cohort.order("evaluate", rounds + 1, state, take)
        self._report(rounds + 1, measured)

    def _report(self, number: int, metrics: Mapping[MemberId, MemberMetrics]) -> None:
        """Tell operator and members what the manifest releases to each of them, and nothing else."""
        agreed = self.manifest.manifest
        self.notify(
            "round closed", round=number, members=len(metrics), metrics=dict(released(metrics, agreed, to="operator"))
        )
        news = released(metrics, agreed, to="members")
        if news:
            for member in self.cohort.nodes:
                self.postman.write(member, "metrics", number, _canonical(news))

    def _deliver(self, result: Parcel) -> None:
        """Bring the sealed result to the nodes of whoever receives, releases or serves it."""
        wanted, nodes = addressees(self.manifest.manifest), self.cohort.nodes
        peers = {nodes[member]: member for member in wanted if member in nodes}
        delivered: list[str] = []

        def each(peer: int, parcel: Parcel | None) -> None:
            try:
                accepted(parcel)
                delivered.append(peers[peer])
            except Error as error:
                self.notify("result not taken", member=peers[peer], error=error.code, why=str(error))

        outgoing = [Outgoing(peer, "result", result) for peer in peers]
        exchange(self.mailroom, outgoing, DELIVERY_SECONDS, each, timing=self.timing)
        missing = sorted(set(wanted) - set(delivered))
        self.notify("result delivered", to=sorted(delivered), missing=missing, bytes=len(result.body))

    def _bye(self, rounds: int) -> None:
        """Let trainers drop what they hold, and nodes read their last letters."""
        self.postman.finish(self.cohort.nodes, FAREWELL_SECONDS)
        number = rounds + 1
        asks = [Outgoing(s.peer, "bye", s.channel.seal("bye", number, b"")) for s in self.cohort.sessions.values()]
        self.cohort.exchange(asks, FAREWELL_SECONDS, lambda *_: None)


def _canonical(news: Released) -> bytes:
    """Released metrics as canonical JSON (RFC 8785)."""
    return rfc8785.dumps({name: dict(value) if isinstance(value, Mapping) else value for name, value in news.items()})
