"""A handshake of a whole consortium in one process, with no relay in between: its own work and nothing else."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.federation.founding import OPERATOR, Founded
from coordinator.admission import Admission
from coordinator.exchange import Timing
from coordinator.mailroom import Delivery, Mailroom, Outgoing
from participants.flower import Handler
from participants.learners import Learner, LoadedLearner
from participants.node import Node
from participants.trainer import Trainer
from participants.vouch_record import DurableVouchRecord
from superswarm.attestation.handshake import Attempt
from superswarm.consortium.grant import approve_grant
from superswarm.demo.stage import Stage
from superswarm.io.consortium import open_tee
from superswarm.io.keystore import load_keys, load_pairing
from superswarm.io.results import ResultFolder
from superswarm.values import MemberId
from superswarm.wire import Parcel


@dataclass
class Direct:
    """A mailroom whose peers answer at once."""

    handlers: Mapping[int, Handler]
    waiting: dict[str, Delivery] = field(default_factory=dict)
    posted: int = 0

    def peers(self) -> frozenset[int]:
        return frozenset(self.handlers)

    def post_all(self, letters: Sequence[Outgoing], *, ttl: float) -> list[str]:
        tickets = []
        for letter in letters:
            self.posted += 1
            ticket = str(self.posted)
            reply = self.handlers[letter.peer](1, letter.kind, letter.parcel)
            self.waiting[ticket] = Delivery(letter.peer, ticket, reply)
            tickets.append(ticket)
        return tickets

    def post(self, peer: int, kind: str, parcel: Parcel, *, ttl: float) -> str:
        (ticket,) = self.post_all([Outgoing(peer, kind, parcel)], ttl=ttl)
        return ticket

    def collect(self, tickets: Collection[str]) -> list[Delivery]:
        return [self.waiting.pop(ticket) for ticket in list(tickets) if ticket in self.waiting]


def handshakes(stage: Stage, founded: Founded, learners: Mapping[str, Learner], times: int) -> list[float]:
    """CPU seconds of each of so many handshakes: aggregator, nodes and trainers together."""
    with tempfile.TemporaryDirectory() as name:
        handlers: dict[int, Handler] = {}
        for number, member in enumerate(founded.members):
            handlers[2 * number + 1] = make_node(stage, founded, member, Path(name)).handle
            handlers[2 * number + 2] = make_trainer(stage, founded, member, learners[member]).handle
        return [_handshake(stage, founded, Direct(handlers), number) for number in range(1, times + 1)]


def _handshake(stage: Stage, founded: Founded, mailroom: Direct, number: int) -> float:
    began = time.process_time()
    failures: list[object] = []
    admission = make_admission(
        stage, founded, mailroom, number, lambda event, **fields: failures.append((event, fields))
    )
    admitted = admission.admit(mailroom.peers())
    spent = time.process_time() - began
    if len(admitted.sessions) != len(founded.members):
        raise RuntimeError(f"not everybody was admitted: {failures}")
    return spent


def make_admission(
    stage: Stage, founded: Founded, mailroom: Mailroom, number: int, notify: Callable[..., None]
) -> Admission:
    """The aggregator's side of attempt `number`'s handshakes."""
    grant = approve_grant(founded.signed, founded.manifest)
    return Admission(
        attempt=Attempt(manifest=founded.manifest, run=grant.grant.run, number=number),
        grant=grant,
        grant_bytes=founded.signed.to_bytes(),
        attester=open_tee(founded.manifest, stage.home(OPERATOR) / "platform"),
        mailroom=mailroom,
        timing=Timing(),
        notify=notify,
    )


def make_node(stage: Stage, founded: Founded, member: str, folder: Path) -> Node:
    passphrase = stage.environment(member)["SUPERSWARM_PASSPHRASE"]
    return Node(
        manifest=founded.manifest,
        keys=load_keys(stage.home(member) / "keys", passphrase),
        record=DurableVouchRecord(folder / f"{member}.json"),
        results=ResultFolder(folder / member),
    )


def make_trainer(stage: Stage, founded: Founded, member: str, learner: Learner) -> Trainer:
    tee = stage.home(f"{member}-tee")
    return Trainer(
        member=MemberId(member),
        manifest=founded.manifest,
        attester=open_tee(founded.manifest, tee / "platform"),
        pairing_key=load_pairing(tee / "pairing"),
        learners=LoadedLearner(learner),
    )
