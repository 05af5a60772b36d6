"""Getting trainers ready for a job: carries their requests for keys to the owners of sealed assets, and the answers.

The aggregator reads none of it. A trainer that is ready has loaded model and data. One that is not ready in time is
left out; what it has loaded it keeps for the rest of the run, so it may join at a later round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coordinator.admission import Session
from coordinator.exchange import Timing, accepted, exchange
from coordinator.mailroom import Mailroom, Outgoing
from coordinator.postman import Postman
from superswarm.errors import Error, Unavailable
from superswarm.updates.messages import Unlock, Unlocked
from superswarm.values import MemberId, Role
from superswarm.wire import Parcel, party

PAUSE_SECONDS = 1.0  # before trainers are asked again where no letter moved


@dataclass(slots=True)
class Unlocking:
    """Asks trainers to get ready, and is their courier while they do."""

    mailroom: Mailroom
    postman: Postman
    timing: Timing
    leave_out: Callable[[MemberId, Error], None]

    def unlock(
        self, sessions: Mapping[MemberId, Session], nodes: Mapping[MemberId, int], seconds: float
    ) -> dict[MemberId, Session]:
        """Those of these trainers that are ready within `seconds`; the others are left out."""
        deadline = self.timing.monotonic() + seconds
        waiting = dict(sessions)
        ready: dict[MemberId, Session] = {}
        while waiting and (left := deadline - self.timing.monotonic()) > 0:
            ready |= self._ask(waiting, left)
            if waiting and not self.postman.run_errands(nodes, left):
                self.timing.sleep(min(PAUSE_SECONDS, left))
        for member in list(waiting):
            self._give_up(waiting, member, Unavailable("did not get ready in time"))
        return ready

    def _ask(self, waiting: dict[MemberId, Session], seconds: float) -> dict[MemberId, Session]:
        """Ask all that wait; who is ready, or fails, waits no longer."""
        by_peer = {session.peer: session for session in waiting.values()}
        ready: dict[MemberId, Session] = {}

        def each(peer: int, parcel: Parcel | None) -> None:
            session = by_peer[peer]
            try:
                head, _ = session.channel.open(accepted(parcel), "unlocked")
                answer = Unlocked.parse(head)
                self.postman.sort(answer.letters, party(Role.TRAINER, session.member))
            except Error as error:
                self._give_up(waiting, session.member, error)
                return
            if answer.ready:
                ready[session.member] = waiting.pop(session.member)

        silent = exchange(self.mailroom, self._asks(waiting), seconds, each, timing=self.timing)
        for peer in silent:
            self._give_up(waiting, by_peer[peer].member, Unavailable("did not get ready in time"))
        return ready

    def _asks(self, waiting: Mapping[MemberId, Session]) -> list[Outgoing]:
        asks = []
        for member, session in waiting.items():
            letters = self.postman.take_for(party(Role.TRAINER, member))
            head = Unlock(letters=letters).to_bytes()
            asks.append(Outgoing(session.peer, "unlock", session.channel.seal("unlock", session.channel.round, head)))
        return asks

    def _give_up(self, waiting: dict[MemberId, Session], member: MemberId, error: Error) -> None:
        waiting.pop(member, None)
        self.leave_out(member, error)
