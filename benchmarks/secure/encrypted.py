"""Encrypted sums: the protocol's own state machines on both sides; only bytes pass between them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.secure.cohort import Cohort
from benchmarks.secure.draws import Draws, Truth
from benchmarks.secure.gauge import Gauge
from benchmarks.secure.link import Other, take
from benchmarks.secure.masked import CHECKERS, START, WEIGHT, Traffic
from superswarm.crypto.signing import VerifyingKey
from superswarm.updates.secure.he_combine import HeSumRound
from superswarm.updates.secure.he_keys import HePlan
from superswarm.updates.secure.he_member import HeMemberRound
from superswarm.updates.secure.he_messages import Dealing, Dealt, Encrypted, Opened, ToDecrypt
from superswarm.updates.secure.messages import Signed, Survivors
from superswarm.updates.secure.roster import Terms
from superswarm.updates.secure.seeds import Context, contribution
from superswarm.updates.secure.total import CheckedSum
from superswarm.values import MemberId

ENCRYPTED: Final = "encrypted"


class EncryptedAggregator:
    """The aggregator's process: bytes in, bytes out; no key."""

    def __init__(self) -> None:
        self.gauge = Gauge()
        self.gauge.start()

    def begin(self, terms: Terms, plan: HePlan, keys: Mapping[MemberId, VerifyingKey]) -> MemberId:
        """Whom to ask for the round's keys."""
        self.round = HeSumRound(terms, plan, keys)
        return self.round.next_dealer()

    def dealt(self, dealer: MemberId, raw: bytes) -> dict[MemberId, bytes]:
        with self.gauge.time("protocol"):
            self.round.dealt(dealer, Dealt.parse(raw))
            return {member: message.to_bytes() for member, message in self.round.ask_encrypted().items()}

    def encrypted(self, member: MemberId, raw: bytes, body: Path) -> None:
        received = take(body)
        with self.gauge.time("sum"):
            self.round.encrypted(member, Encrypted.parse(raw), received)

    def ask_signatures(self) -> dict[MemberId, bytes]:
        with self.gauge.time("protocol"):
            return {member: message.to_bytes() for member, message in self.round.ask_signatures().items()}

    def signed(self, member: MemberId, raw: bytes) -> None:
        with self.gauge.time("protocol"):
            self.round.signed(member, Signed.parse(raw))

    def to_decrypt(self, to: Path) -> tuple[MemberId, bytes]:
        """Whom to ask for the sum, which goes to a file."""
        body = io.BytesIO()
        with self.gauge.time("write"):
            holder, message = self.round.next_decryption(body)
        to.write_bytes(body.getbuffer())
        return holder, message.to_bytes()

    def decrypted(self, holder: MemberId, body: Path) -> bytes:
        with self.gauge.time("protocol"):
            self.round.decrypted(holder, take(body))
            message, opened = self.round.opened()
        body.write_bytes(opened)
        return message.to_bytes()

    def report(self) -> dict[str, Any]:
        return self.gauge.report()


class EncryptedMembers:
    """All members of a cohort through one round, one after the other at each step."""

    def __init__(self, cohort: Cohort, draws: Draws, number: int, bodies: Path, truth: Truth) -> None:
        self.cohort, self.draws, self.bodies, self.truth = cohort, draws, bodies, truth
        context = Context(cohort.terms.roster, number, START)
        self.plan = HePlan.of(cohort.terms, context, draws.parameters, cohort.manifest.manifest)
        self.gauge, self.traffic = Gauge(), Traffic()
        self.sides = {
            name: HeMemberRound(cohort.standings[name], cohort.sessions[name].kem, self.plan, most=WEIGHT)
            for name in cohort.names
        }
        self.clipped = 0

    def play(self, aggregator: Other) -> list[CheckedSum]:
        """Play the round; the sums that some members checked."""
        dealer = aggregator.call("begin", self.cohort.terms, self.plan, self.cohort.verifying_keys)
        with self.gauge.time("protocol", dealer):
            dealt = self.sides[dealer].deal().to_bytes()
        self.traffic.up[dealer] += len(dealt)
        for name, raw in aggregator.call("dealt", dealer, dealt).items():
            self.traffic.down[name] += len(raw)
            self._encrypt(aggregator, name, raw)
        for name, raw in aggregator.call("ask_signatures").items():
            with self.gauge.time("protocol", name):
                signed = self.sides[name].sign(Survivors.parse(raw)).to_bytes()
            self.traffic.up[name] += len(signed)
            self.traffic.down[name] += len(raw)
            aggregator.call("signed", name, signed)
        return self._take(aggregator, self._decrypt(aggregator))

    def _encrypt(self, aggregator: Other, name: MemberId, raw: bytes) -> None:
        update, body = self.draws.of(self.cohort.names.index(name)), io.BytesIO()
        self.truth.add(update)
        group, side = self.cohort.standings[name].group, self.sides[name]
        with self.gauge.time("protocol", name):
            side.receive(Dealing.parse(raw))
        with self.gauge.growth("client"):
            with self.gauge.time("encode", name):
                encoded = self.plan.code.encode(update, WEIGHT)
            self.clipped += encoded.clipped
            with self.gauge.time("tag", name):
                mine = contribution(self.plan.context, group, name, encoded, WEIGHT)
            with self.gauge.time("encrypt", name):
                said = side.encrypt(mine, body)
        head, file = said.to_bytes(), self.bodies / name
        file.write_bytes(body.getbuffer())
        self.traffic.up[name] += len(head) + len(body.getbuffer())
        aggregator.call("encrypted", name, head, file)

    def _decrypt(self, aggregator: Other) -> Path:
        file = self.bodies / "sum"
        holder, raw = aggregator.call("to_decrypt", file)
        body = take(file)
        self.traffic.down[holder] += len(raw) + len(body)
        with self.gauge.growth("decrypt"), self.gauge.time("decrypt", holder):
            said, opened = self.sides[holder].decrypt(ToDecrypt.parse(raw), body)
        file.write_bytes(opened)
        self.traffic.up[holder] += len(said.to_bytes()) + len(opened)
        self.opened = aggregator.call("decrypted", holder, file)
        return file

    def _take(self, aggregator: Other, file: Path) -> list[CheckedSum]:
        del aggregator
        body = take(file)
        for name in self.cohort.names:
            self.traffic.down[name] += len(self.opened) + len(body)
        sums = []
        for name in self.cohort.names[:CHECKERS]:
            with self.gauge.growth("check"), self.gauge.time("check", name):
                sums.append(self.sides[name].take(Opened.parse(self.opened), body))
        return sums
