"""The aggregator's side of Flower: a mailroom over a Grid. The coordinator's one module of private Flower calls."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Sequence

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.run import RunNotRunningException

from coordinator.mailroom import Delivery, Outgoing
from superswarm.errors import Error, RunStopped, Unavailable
from superswarm.io.parcels import from_record, sealed_array, to_record
from superswarm.wire import Parcel

KIND = re.compile(r"[a-z][a-z_]{0,31}")


class GridMailroom:
    """A Mailroom over Flower's Grid. Flower's message ids are the tickets.

    What the relay says of a reply (its sender, its type) is not read: a ticket belongs to the peer that was posted
    to, and the parcel either opens under that peer's session key or does not.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._waiting: dict[str, int] = {}  # ticket → peer
        self._failed: set[str] = set()  # tickets that the relay refused to take
        self._unsent = 0

    def peers(self) -> frozenset[int]:
        try:
            return frozenset(int(node) for node in self._grid.get_node_ids())
        except RunNotRunningException:
            raise RunStopped("the operator stopped the run") from None

    def post(self, peer: int, kind: str, parcel: Parcel, *, ttl: float) -> str:
        return self.post_all([Outgoing(peer, kind, parcel)], ttl=ttl)[0]

    def post_all(self, letters: Sequence[Outgoing], *, ttl: float) -> list[str]:
        messages = self._messages(letters, ttl)
        try:
            ids = list(self._grid.push_messages(messages))
        except RunNotRunningException:
            raise RunStopped("the operator stopped the run") from None
        if len(ids) != len(letters):
            raise Unavailable("the relay did not take the messages: they are too large for it")
        return [self._issue(letter.peer, id_) for letter, id_ in zip(letters, ids, strict=True)]

    def collect(self, tickets: Collection[str]) -> list[Delivery]:
        wanted = {ticket for ticket in tickets if ticket in self._waiting}
        deliveries = [self._close(ticket, None) for ticket in sorted(wanted & self._failed)]
        wanted -= self._failed
        if not wanted:
            return deliveries
        try:
            replies = deque(self._grid.pull_messages(sorted(wanted)))
        except RunNotRunningException:
            raise RunStopped("the operator stopped the run") from None
        while replies:  # each reply is let go before the next is read
            reply = replies.popleft()
            ticket = reply.metadata.reply_to_message_id
            if ticket in wanted:
                wanted.discard(ticket)
                deliveries.append(self._close(ticket, _read(reply)))
        return deliveries

    def _messages(self, letters: Sequence[Outgoing], ttl: float) -> list[Message]:
        bodies = {id(letter.parcel.body): sealed_array(letter.parcel.body) for letter in letters}
        messages = []
        for letter in letters:
            if not KIND.fullmatch(letter.kind):
                raise ValueError(f"not a kind of message: {letter.kind!r}")
            record = to_record(letter.parcel, body=bodies[id(letter.parcel.body)])
            messages.append(Message(record, letter.peer, f"query.{letter.kind}", ttl=ttl))
        return messages

    def _issue(self, peer: int, message_id: str | None) -> str:
        if message_id:
            self._waiting[message_id] = peer
            return message_id
        self._unsent += 1
        ticket = f"unsent-{self._unsent}"
        self._waiting[ticket] = peer
        self._failed.add(ticket)
        return ticket

    def _close(self, ticket: str, parcel: Parcel | None) -> Delivery:
        self._failed.discard(ticket)
        return Delivery(self._waiting.pop(ticket), ticket, parcel)


def _read(reply: Message) -> Parcel | None:
    """Read a reply; None where the peer or the relay failed, or where it is not a parcel."""
    if not reply.has_content():
        return None
    try:
        return from_record(reply.content)
    except Error:
        return None
