"""Masked sums in memory: every member and the aggregator, with nothing between them but a function that may cheat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from superswarm.attestation import appraise
from superswarm.attestation.appraise import TrainerKey
from superswarm.attestation.evidence import SessionKeys
from superswarm.attestation.handshake import Attempt
from superswarm.consortium.approval import ApprovedManifest
from superswarm.errors import Error
from superswarm.updates.secure.combine import SumRound
from superswarm.updates.secure.links import Acquaintance, Standing, needed, pass_on
from superswarm.updates.secure.masks import Contribution
from superswarm.updates.secure.member import MemberRound
from superswarm.updates.secure.messages import Total
from superswarm.updates.secure.ring import Code
from superswarm.updates.secure.roster import Roster, Terms, accept_roster
from superswarm.updates.secure.seeds import Context, code_of, contribution
from superswarm.values import Digest, MemberId
from tests import consortia

MOST = 100  # the manifest's max_weight
SIZE = 300  # parameters
START: Final = Digest.of(b"the adapter that rounds begin from")
Vector = np.ndarray[Any, np.dtype[np.float32]]


@cache
def manifest(n: int, threshold: int, colluders: int, dropouts: int, least: int = 0) -> ApprovedManifest:
    """A masked consortium of n members m000, m001, …"""
    members = [consortia.member(f"m{i:03}", consortia.DATA) for i in range(n)]
    return consortia.approved(
        *members,
        protection={
            "mode": "masked",
            "encoding": {"clip_norm": 50.0, "max_weight": MOST},
            "masking": {"threshold": threshold, "colluders": colluders, "dropouts": dropouts},
        },
        aggregation={
            "rule": "fedavg",
            "weighting": "examples",
            "minimum_cohort": least or threshold,
            "round_seconds": 60,
        },
    )


def session_keys(name: str, attempt: int = 1) -> SessionKeys:
    name = f"{name}/session/{attempt}"
    return SessionKeys(kem=consortia.kem_key(name).public, signing=consortia.public_key(name))


@cache
def judged(manifest: ApprovedManifest, member: MemberId) -> TrainerKey:
    """What appraisal would give; evidence and vouches of peers are judged in tests of their own."""
    return TrainerKey(keys=session_keys(member), member=member, manifest=manifest.digest, proof=appraise._PROOF)


class Members:
    """The members of one roster, acquainted with each other, and what they bring to each round."""

    def __init__(self, approved: ApprovedManifest, *, size: int = SIZE, number: int = 1) -> None:
        self.manifest = approved
        self.attempt = Attempt(manifest=approved, run="run-1", number=1)
        names = approved.manifest.trainers
        self.roster = Roster.of(self.attempt, number, {name: session_keys(name) for name in names})
        self.terms: Terms = accept_roster(self.roster, self.attempt)
        self.names = self.roster.members
        self.size = size
        sides = {name: self.acquaintance(name) for name in self.names}
        said = {name: side.introduce() for name, side in sides.items()}
        self.standings: dict[MemberId, Standing] = {
            name: side.acquaint(pass_on(self.terms.graph, said, name)) for name, side in sides.items()
        }

    def acquaintance(self, name: MemberId) -> Acquaintance:
        peers = {other: judged(self.manifest, other) for other in needed(self.terms.graph, name)}
        session = f"{name}/session/1"
        return Acquaintance(self.terms, name, consortia.kem_key(session), consortia.signing_key(session), peers)

    def update(self, name: MemberId, round_: int = 1) -> Vector:
        rng = np.random.default_rng([self.names.index(name), round_])
        return rng.standard_normal(self.size).astype(np.float32)

    def weight(self, name: MemberId) -> int:
        return 1 + self.names.index(name) % MOST

    def context(self, round_: int = 1) -> Context:
        return Context(self.roster, round_, START)

    def code(self, round_: int = 1) -> Code:
        return code_of(self.context(round_), self.size, 12, 50.0)

    def contribution(self, name: MemberId, round_: int = 1) -> Contribution:
        standing, code = self.standings[name], self.code(round_)
        encoded = code.encode(self.update(name, round_), self.weight(name) / MOST)
        return contribution(self.context(round_), standing.group, name, encoded, self.weight(name))

    def aggregator(self, round_: int = 1) -> SumRound:
        keys = {name: session_keys(name).signing for name in self.names}
        return SumRound(self.terms, self.context(round_), self.code(round_), keys)

    def expected(self, survivors: Iterable[MemberId], round_: int = 1) -> Contribution:
        """The sum of exactly these members' integers, weights and tags."""
        total = Contribution.zero(self.code(round_))
        for name in survivors:
            total.add(self.contribution(name, round_))
        return total

    def mean(self, survivors: Iterable[MemberId], round_: int = 1) -> Vector:
        names = list(survivors)
        weights = [self.weight(name) for name in names]
        updates = [self.update(name, round_) for name in names]
        return np.average(updates, axis=0, weights=weights).astype(np.float32)


Hook = Callable[[str, MemberId, Any], Any]
"""(step, member, message to it) → the message as it arrives; None: it never does."""


def honest(_step: str, _member: MemberId, message: Any) -> Any:
    return message


class Play:
    """One round, step by step. `gone` says at which step a member vanishes: it gets that step's message no more."""

    def __init__(
        self,
        members: Members,
        *,
        gone: Mapping[MemberId, str] | None = None,
        hook: Hook = honest,
        answers: Hook = honest,
        round_: int = 1,
    ) -> None:
        self.members, self.gone, self.hook, self.answers, self.number = (
            members,
            dict(gone or {}),
            hook,
            answers,
            round_,
        )
        self.sides = {name: MemberRound(members.standings[name], members.context(round_)) for name in members.names}
        self.aggregator = members.aggregator(round_)
        self.left: set[MemberId] = set()
        self.refusals: dict[MemberId, Error] = {}

    def run(self) -> tuple[Total, Contribution]:
        self.run_until("total")
        return self.aggregator.total()

    def run_until(self, step: str) -> None:
        """Play the round up to and without this step."""
        asks: dict[str, Callable[[], Mapping[MemberId, Any]]] = {
            "advertise": lambda: dict.fromkeys(self.members.names),
            "share": self.aggregator.ask_shares,
            "mask": self.aggregator.ask_masked,
            "sign": self.aggregator.ask_signatures,
            "unmask": self.aggregator.ask_unmasking,
        }
        for name, ask in asks.items():
            if name == step:
                return
            self.step(name, ask())

    def step(self, step: str, asked: Mapping[MemberId, Any]) -> None:
        for name in sorted(asked):
            message = self.hook(step, name, asked[name])
            if self.gone.get(name) == step or (message is None and step != "advertise"):
                self.left.add(name)
            if name in self.left or name in self.refusals:
                continue
            try:
                self.answer(step, name, message)
            except Error as error:
                self.refusals[name] = error

    def answer(self, step: str, name: MemberId, message: Any) -> None:
        side, aggregator = self.sides[name], self.aggregator
        parse = type(message).parse if message is not None else None
        arrived = parse(message.to_bytes()) if parse is not None else None
        match step:
            case "advertise":
                aggregator.advertised(name, self.answers(step, name, side.advertise()))
            case "share":
                aggregator.shared(name, self.answers(step, name, side.share(arrived)))
            case "mask":
                mine = self.members.contribution(name, self.number)
                said = side.mask(arrived, mine)
                said, body = self.answers(step, name, (said, mine.to_bytes()))
                aggregator.masked(name, said, body)
            case "sign":
                aggregator.signed(name, self.answers(step, name, side.sign(arrived)))
            case "unmask":
                aggregator.unmasked(name, self.answers(step, name, side.unmask(arrived)))
