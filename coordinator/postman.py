"""The postman: carries sealed letters between members, and the aggregator's own, without reading them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from coordinator.admission import AGGREGATOR, Admission
from coordinator.exchange import LONGEST_PAUSE, Timing, accepted
from coordinator.mailroom import Delivery, Mailroom, Outgoing
from superswarm.crypto.letter import Letter, seal_letter
from superswarm.errors import Error, Malformed, Unavailable
from superswarm.values import LIMITS, MemberId, Role
from superswarm.wire import Header, Parcel, join, party, split

VISIT_SECONDS = 600.0  # how long a node has to answer a visit; it holds nobody up


@dataclass(slots=True)
class Postman:
    """Boxes of letters by receiver, and the visits to nodes that are under way."""

    admission: Admission
    mailroom: Mailroom
    timing: Timing
    notify: Callable[..., None]
    _boxes: dict[str, list[bytes]] = field(default_factory=dict)
    _written: Counter[str] = field(default_factory=Counter)  # the aggregator's own letters, by receiver
    _visits: dict[str, MemberId] = field(default_factory=dict)  # ticket → node that is being visited

    def take_for(self, receiver: str) -> tuple[bytes, ...]:
        """The letters that wait for this party; they leave the box."""
        return tuple(self._boxes.pop(receiver, ()))

    def sort(self, raws: tuple[bytes, ...], sender: str) -> None:
        """Put a party's letters where their receivers will find them. Only the header is read."""
        for raw in raws:
            try:
                header = Letter.parse(raw).header
                if header.sender != sender:
                    raise Malformed(f"{sender} sends a letter in another's name")
                self._put(header.receiver, raw)
            except Error as error:
                self.notify("letter refused", error=error.code, why=str(error))

    def write(self, member: MemberId, kind: str, round_: int, text: bytes) -> None:
        """Write a letter of the aggregator's own to a member's node."""
        attempt, receiver = self.admission.attempt, party(Role.NODE, member)
        header = Header(
            manifest=attempt.manifest.digest,
            run=attempt.run,
            round=round_,
            sender=AGGREGATOR,
            receiver=receiver,
            kind=kind,
            sequence=self._written[receiver],
        )
        self._written[receiver] += 1
        key = attempt.manifest.encryption_key(member)
        self._put(receiver, seal_letter(header, text, to=key, sender=self.admission.signing).to_bytes())

    def visit(self, nodes: Mapping[MemberId, int]) -> None:
        """Set out to every node that is not being visited, and take in the letters of those that answered."""
        away = set(self._visits.values())
        idle = [member for member in nodes if member not in away]
        calls = [
            Outgoing(nodes[member], "mail", Parcel(join(self.take_for(party(Role.NODE, member))))) for member in idle
        ]
        if calls:
            tickets = self.mailroom.post_all(calls, ttl=VISIT_SECONDS)
            self._visits.update(zip(tickets, idle, strict=True))
        self.return_home()

    def run_errands(self, nodes: Mapping[MemberId, int], seconds: float) -> bool:
        """Bring the letters that wait for nodes, and wait for the answers, at most `seconds`; whether any moved."""
        addressed = {member: peer for member, peer in nodes.items() if party(Role.NODE, member) in self._boxes}
        deadline = self.timing.monotonic() + seconds
        self.return_home()
        while self._visits and self.timing.monotonic() < deadline:  # a node is visited once at a time
            self.timing.sleep(LONGEST_PAUSE)
            self.return_home()
        self.visit(addressed)
        while self._visits and self.timing.monotonic() < deadline:
            self.timing.sleep(LONGEST_PAUSE)
            self.return_home()
        return bool(addressed)

    def return_home(self) -> None:
        """Take in the letters of the nodes that answered, without waiting."""
        for delivery in self.mailroom.collect(list(self._visits)):
            self._take(self._visits.pop(delivery.ticket), delivery)

    def finish(self, nodes: Mapping[MemberId, int], seconds: float) -> None:
        """Deliver what is left, waiting at most `seconds` for each of the two visits that this may take."""
        for _ in range(2):
            deadline = self.timing.monotonic() + seconds
            self.return_home()
            while self._visits and self.timing.monotonic() < deadline:
                self.timing.sleep(LONGEST_PAUSE)
                self.return_home()
            if any(party(Role.NODE, member) in self._boxes for member in nodes):
                self.visit(nodes)

    def _take(self, member: MemberId, delivery: Delivery) -> None:
        try:
            self.sort(tuple(split(accepted(delivery.parcel).head)), party(Role.NODE, member))
        except Error as error:
            self.notify("no mail", member=member, error=error.code)

    def _put(self, receiver: str, raw: bytes) -> None:
        box = self._boxes.setdefault(receiver, [])
        if len(box) >= LIMITS.mail_count:
            raise Unavailable(f"{LIMITS.mail_count} letters wait for {receiver}")
        box.append(raw)
