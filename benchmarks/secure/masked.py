"""Masked sums: the protocol's own state machines on both sides; only bytes pass between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.secure.cohort import ENCODING, Cohort
from benchmarks.secure.draws import Draws, Truth
from benchmarks.secure.gauge import Gauge
from benchmarks.secure.link import Other, take
from superswarm.crypto.signing import VerifyingKey
from superswarm.updates.secure.combine import SumRound
from superswarm.updates.secure.links import Standing
from superswarm.updates.secure.member import MemberRound
from superswarm.updates.secure.messages import (
    Advertised,
    Agreed,
    Deal,
    Keys,
    Masked,
    Shared,
    Signed,
    Survivors,
    Total,
    Unmasked,
)
from superswarm.updates.secure.ring import Code
from superswarm.updates.secure.roster import Terms
from superswarm.updates.secure.seeds import Context, code_of, contribution
from superswarm.updates.secure.total import CheckedSum, check_total
from superswarm.values import Digest, MemberId

CHECKERS: Final = 3  # survivors that check the sum, unless said otherwise; the rest would do the same
WEIGHT: Final = 1  # of each member, and the manifest's largest
START: Final = Digest.of(b"the adapter that rounds begin from")
ANSWERS: Final[dict[str, Any]] = {
    "advertised": Advertised,
    "shared": Shared,
    "masked": Masked,
    "signed": Signed,
    "unmasked": Unmasked,
}


@dataclass
class Traffic:
    """Bytes that each member sent and received, inside its channel."""

    up: dict[MemberId, int] = field(default_factory=lambda: defaultdict(int))
    down: dict[MemberId, int] = field(default_factory=lambda: defaultdict(int))


class MaskedAggregator:
    """The aggregator's process: bytes in, bytes out."""

    def __init__(self) -> None:
        self.gauge = Gauge()
        self.gauge.start()

    def begin(self, terms: Terms, context: Context, code: Code, keys: Mapping[MemberId, VerifyingKey]) -> None:
        self.round = SumRound(terms, context, code, keys)

    def answer(self, step: str, member: MemberId, raw: bytes, body: Path | None = None) -> None:
        message = ANSWERS[step].parse(raw)
        if body is None:
            with self.gauge.time("protocol"):
                getattr(self.round, step)(member, message)
            return
        received = take(body)
        with self.gauge.time("sum"):
            self.round.masked(member, message, received)

    def ask(self, step: str) -> dict[MemberId, bytes]:
        with self.gauge.time("protocol"):
            return {member: message.to_bytes() for member, message in getattr(self.round, f"ask_{step}")().items()}

    def total(self, to: Path) -> bytes:
        """Take the masks off; the sum goes to a file."""
        with self.gauge.time("recover"):
            said, found = self.round.total()
        to.write_bytes(found.to_bytes())
        return said.to_bytes()

    def report(self) -> dict[str, Any]:
        return self.gauge.report()


class MaskedMembers:
    """All members of a cohort through one round, one after the other at each step."""

    def __init__(
        self, cohort: Cohort, draws: Draws, number: int, bodies: Path, truth: Truth, *, checkers: int = CHECKERS
    ) -> None:
        self.cohort, self.draws, self.bodies, self.truth, self.checkers = cohort, draws, bodies, truth, checkers
        self.context = Context(cohort.terms.roster, number, START)
        self.code = code_of(self.context, draws.parameters, int(ENCODING["payload_bits"]), ENCODING["clip_norm"])
        self.gauge, self.traffic = Gauge(), Traffic()
        self.sides = {name: MemberRound(cohort.standings[name], self.context) for name in cohort.names}
        self.clipped = 0

    def play(self, aggregator: Other, gone: Iterable[MemberId] = ()) -> list[CheckedSum]:
        """Play the round. Those in `gone` vanish before they send their masked update, which costs the most to mend.

        Returns the sums that some survivors checked.
        """
        vanished = set(gone)
        aggregator.call("begin", self.cohort.terms, self.context, self.code, self.cohort.verifying_keys)
        for name in self.cohort.names:
            with self.gauge.time("protocol", name):
                message = self.sides[name].advertise()
            self._send(aggregator, "advertised", name, message.to_bytes())
        for name, raw in self._asked(aggregator, "shares"):
            with self.gauge.time("protocol", name):
                shared = self.sides[name].share(Keys.parse(raw))
            self._send(aggregator, "shared", name, shared.to_bytes())
        for name, raw in self._asked(aggregator, "masked", without=vanished):
            self._mask(aggregator, name, raw)
        for name, raw in self._asked(aggregator, "signatures"):
            with self.gauge.time("protocol", name):
                signed = self.sides[name].sign(Survivors.parse(raw))
            self._send(aggregator, "signed", name, signed.to_bytes())
        for name, raw in self._asked(aggregator, "unmasking"):
            with self.gauge.time("protocol", name):
                unmasked = self.sides[name].unmask(Agreed.parse(raw))
            self._send(aggregator, "unmasked", name, unmasked.to_bytes())
        return self._take(aggregator, [name for name in self.cohort.names if name not in vanished])

    def _asked(
        self, aggregator: Other, step: str, without: Iterable[MemberId] = ()
    ) -> Iterable[tuple[MemberId, bytes]]:
        for name, raw in aggregator.call("ask", step).items():
            if name not in without:
                self.traffic.down[name] += len(raw)
                yield name, raw

    def _send(self, aggregator: Other, step: str, name: MemberId, raw: bytes) -> None:
        self.traffic.up[name] += len(raw)
        aggregator.call("answer", step, name, raw)

    def _mask(self, aggregator: Other, name: MemberId, raw: bytes) -> None:
        update = self.draws.of(self.cohort.names.index(name))
        self.truth.add(update)
        standing: Standing = self.cohort.standings[name]
        with self.gauge.growth("client"):
            with self.gauge.time("encode", name):
                encoded = self.code.encode(update, WEIGHT)
            self.clipped += encoded.clipped
            with self.gauge.time("tag", name):
                mine = contribution(self.context, standing.group, name, encoded, WEIGHT)
            del encoded
            with self.gauge.time("mask", name):
                said = self.sides[name].mask(Deal.parse(raw), mine)
                body = mine.to_bytes()
        head, file = said.to_bytes(), self.bodies / name
        file.write_bytes(body)
        self.traffic.up[name] += len(head) + len(body)
        aggregator.call("answer", "masked", name, head, file)

    def _take(self, aggregator: Other, survivors: Sequence[MemberId]) -> list[CheckedSum]:
        file = self.bodies / "total"
        said = aggregator.call("total", file)
        body = take(file)
        for name in survivors:
            self.traffic.down[name] += len(said) + len(body)
        return [self._check(name, said, body) for name in survivors[: self.checkers]]

    def _check(self, name: MemberId, said: bytes, body: bytes) -> CheckedSum:
        standing, known = self.cohort.standings[name], self.sides[name].unmasked
        with self.gauge.time("check", name):
            total = Total.parse(said)
            return check_total(standing, total, body, context=self.context, code=self.code, most=WEIGHT, known=known)
