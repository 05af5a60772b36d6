"""A trainer's part in masked sums (docs/secure-sums.md): it judges its peers, masks what it made, and checks the sum.

Private keys and secrets live as long as the session; each round's seeds are fresh. The update is held as integers
until it is masked, and nothing of it is kept after.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from superswarm.attestation.appraise import TrainerKey
from superswarm.attestation.evidence import SessionKeys
from superswarm.attestation.handshake import Attempt
from superswarm.attestation.messages import Message
from superswarm.attestation.peers import Dossier, judge_peer
from superswarm.consortium.manifest import Encoding, Metrics
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey
from superswarm.errors import Malformed, Replay, Untrusted
from superswarm.updates.round import MemberMetrics
from superswarm.updates.secure.links import Acquaintance, Standing, needed
from superswarm.updates.secure.masks import Contribution
from superswarm.updates.secure.member import MemberRound, Unmasking
from superswarm.updates.secure.messages import (
    Acquaint,
    Acquainted,
    Advertised,
    Agreed,
    Deal,
    Introduce,
    Introduction,
    Keys,
    Masked,
    Survivors,
    Total,
)
from superswarm.updates.secure.ring import Code, Encoded
from superswarm.updates.secure.roster import Roster, Terms, accept_roster
from superswarm.updates.secure.seeds import Context, code_of, contribution, require_weight
from superswarm.updates.secure.total import CheckedSum, check_total
from superswarm.values import LIMITS, Digest, MemberId
from superswarm.wire import split

MEETING: Final = frozenset({"introduce", "acquaint"})
"""Messages by which trainers get to know each other, in every secure sum."""
KINDS: Final = MEETING | {"keys", "deal", "survivors", "agreed"}
"""Messages of masked sums that a trainer answers, by kind."""


@dataclass(slots=True, kw_only=True)
class Unmaskings:
    """In which rounds of a run this trainer gave shares, and of which sum. Outlives sessions and attempts."""

    rounds: dict[int, Unmasking] = field(default_factory=dict)


@dataclass(slots=True)
class _Round:
    """A round under way or just over: its state, its code, and what this trainer brings until it is masked."""

    standing: Standing
    number: int
    code: Code
    member: MemberRound
    brings: Contribution | None = field(repr=False)


class PeerSession:
    """One session's dealings with the other trainers of a roster: it judges them, and makes links to them."""

    def __init__(
        self,
        *,
        attempt: Attempt,
        member: MemberId,
        keys: SessionKeys,
        kem: KemKey,
        signing: SigningKey,
        now: Callable[[], int],
        notify: Callable[..., None],
    ) -> None:
        encoding = attempt.manifest.manifest.protection.encoding
        if encoding is None:
            raise RuntimeError("the manifest does not ask for secure sums")
        self._encoding: Encoding = encoding
        self._attempt, self._member, self._keys = attempt, member, keys
        self._kem, self._signing = kem, signing
        self._now, self._notify = now, notify
        self._judged: dict[Digest, TrainerKey] = {}  # by session keys: evidence is judged once
        self._roster = 0  # the number of the newest roster that was accepted
        self._meeting: Acquaintance | None = None
        self._standing: Standing | None = None

    def _tell(self, number: int, encoded: Encoded) -> None:
        """Tell the member how much was cut, coarsely: the log of a TEE is read by its host too."""
        shrunk = 10 * math.ceil(10 * (1 - encoded.shrunk))  # percent of the norm
        clipped = math.ceil(1000 * encoded.clipped / encoded.values.size) / 10  # percent of the coordinates
        self._notify("encoded", round=number, shrunk_percent=shrunk, clipped_percent=clipped)

    def _weight(self, examples: int) -> int:
        return 1 if self._attempt.manifest.manifest.aggregation.weighting == "equal" else examples

    def _meet(self, kind: str, head: bytes, body: bytes) -> Message:
        """Answer one of `MEETING`."""
        match kind:
            case "introduce":
                return self._introduce(Introduce.parse(head), body)
            case "acquaint":
                return self._acquaint(Acquaint.parse(head))
            case _:
                raise Malformed("not a message of this kind of secure sum")

    def _introduce(self, message: Introduce, body: bytes) -> Introduction:
        """Judge whom this trainer deals with; only then seal secrets to them."""
        roster = Roster.parse(message.roster)
        terms = accept_roster(roster, self._attempt)
        if dict(roster.entries).get(self._member) != self._keys.digest:
            raise Untrusted("the roster gives this trainer other keys than its own")
        if roster.number <= self._roster:  # links, keys and signatures of a round serve once
            raise Replay("this roster, or a later one, was accepted before in this session")
        self._roster = roster.number
        peers = self._judge(terms, [Dossier.parse(raw) for raw in split(body, limit=LIMITS.body_bytes)])
        self._standing = None
        self._meeting = Acquaintance(terms, self._member, self._kem, self._signing, peers)
        return self._meeting.introduce()

    def _judge(self, terms: Terms, dossiers: list[Dossier]) -> dict[MemberId, TrainerKey]:
        """Those of the roster with whom this trainer deals, judged at the members' signed time."""
        shown = {dossier.member: dossier for dossier in dossiers}
        peers: dict[MemberId, TrainerKey] = {}
        for other in needed(terms.graph, self._member):
            keys = terms.roster.keys_of(other)
            if keys not in self._judged:
                if other not in shown:
                    raise Untrusted(f"nothing shows that {other}'s session keys are its trainer's")
                judged = judge_peer(self._attempt, shown[other], self._now())
                self._judged[judged.keys.digest] = judged
            if keys not in self._judged:
                raise Untrusted(f"the roster gives {other} other keys than those shown")
            peers[other] = self._judged[keys]
        return peers

    def _acquaint(self, message: Acquaint) -> Acquainted:
        if self._meeting is None:
            raise Untrusted("secrets came without a roster")
        meeting, self._meeting = self._meeting, None
        self._standing = meeting.acquaint(message)
        return Acquainted(roster=meeting.terms.roster.digest.raw)


class SecureMember(PeerSession):
    """One session's part in masked sums."""

    def __init__(self, *, unmaskings: Unmaskings, **session: Any) -> None:
        super().__init__(**session)
        self._unmaskings = unmaskings
        self._round: _Round | None = None
        self.brought = False  # whether a masked update left in this session: then it takes checked sums only

    def answer(self, kind: str, head: bytes, body: bytes) -> tuple[Message, bytes | None]:
        """Answer one of `KINDS`: a message, and what goes with it as the body."""
        match kind:
            case "keys":
                return self._open_round().member.share(Keys.parse(head)), None
            case "deal":
                return self._mask(Deal.parse(head))
            case "survivors":
                return self._open_round().member.sign(Survivors.parse(head)), None
            case "agreed":
                return self._unmask(Agreed.parse(head)), None
            case _:
                return self._meet(kind, head, body), None

    def begin(self, number: int, start: Digest, update: NDArray[np.float32], examples: int) -> Advertised:
        """Begin a round with what was trained (P,) from the adapter `start`; refused here, it never leaves.

        Raises NotFinite, or Malformed for a weight over the manifest's.
        """
        standing, encoding = self._standing, self._encoding
        if standing is None:
            raise Untrusted("a round begins before this trainer is acquainted with its peers")
        weight = self._weight(examples)
        context = Context(standing.terms.roster, number, start)
        code = code_of(context, update.size, encoding.payload_bits, encoding.clip_norm)
        encoded = code.encode(update, require_weight(weight, encoding.max_weight))
        self._tell(number, encoded)
        brings = contribution(context, standing.group, self._member, encoded, weight)
        member = MemberRound(standing, context, self._unmaskings.rounds.get(number))
        self._round = _Round(standing, number, code, member, brings)
        return member.advertise()

    def check(self, total: Total, body: bytes, number: int) -> CheckedSum:
        """Check the sum of the round that this trainer took part in. Raises Untrusted or BadSignature."""
        if self._round is None or self._round.number != number:
            raise Untrusted("a sum of a round that this trainer did not begin")
        last, most = self._round, self._encoding.max_weight
        context, known = last.member.context, last.member.unmasked
        return check_total(last.standing, total, body, context=context, code=last.code, most=most, known=known)

    def _open_round(self) -> _Round:
        if self._round is None:
            raise Untrusted("no round was begun")
        return self._round

    def _mask(self, message: Deal) -> tuple[Masked, bytes]:
        round_ = self._open_round()
        brings, round_.brings = round_.brings, None
        if brings is None:
            raise Untrusted("this round's update has left already")
        said = round_.member.mask(message, brings)
        self.brought = True
        return said, brings.to_bytes()

    def _unmask(self, message: Agreed) -> Message:
        round_ = self._open_round()
        answer = round_.member.unmask(message)
        if round_.member.unmasked is not None:
            given = Unmasking(round_.member.unmasked.survivors, round_.member.context.start)
            self._unmaskings.rounds[round_.number] = given
        return answer


def discreet(metrics: MemberMetrics, clause: Metrics) -> MemberMetrics:
    """What goes to an aggregator that is not to know single members: the metrics that the manifest releases."""
    released = set(clause.release) if clause.to else set()
    return replace(
        metrics,
        examples=metrics.examples if "examples" in released else 1,
        seconds=metrics.seconds if "seconds" in released else 0.0,
        train_loss=metrics.train_loss if "train_loss" in released else None,
        eval_loss=metrics.eval_loss if "eval_loss" in released else None,
    )
