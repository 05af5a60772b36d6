"""A trainer's part in encrypted sums (docs/secure-sums-he.md): the adapter stays with the trainers all along.

The aggregator sees neither updates nor sums nor the adapter. So trainers hand the adapter to those of them that lack
it, and one of them makes the result.
"""

from __future__ import annotations

import io
import secrets
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from participants.secure_round import MEETING, PeerSession
from superswarm.attestation.messages import Message
from superswarm.crypto.kdf import derive
from superswarm.crypto.signing import SigningKey
from superswarm.errors import CannotOpen, Untrusted
from superswarm.updates.secure.he_keys import HePlan
from superswarm.updates.secure.he_member import HeMemberRound
from superswarm.updates.secure.he_messages import (
    Deal,
    Dealing,
    Encrypted,
    Give,
    Given,
    Opened,
    Publish,
    Published,
    Taken,
    ToDecrypt,
)
from superswarm.updates.secure.links import Standing
from superswarm.updates.secure.masks import Contribution
from superswarm.updates.secure.messages import Survivors
from superswarm.updates.secure.seeds import Context, contribution, require_weight
from superswarm.updates.secure.total import CheckedSum
from superswarm.values import Digest
from superswarm.wire import pack

KINDS: Final = MEETING | {
    "he_give",
    "he_given",
    "he_deal",
    "he_dealing",
    "survivors",
    "he_to_decrypt",
    "he_opened",
    "he_publish",
}
"""Messages of encrypted sums that a trainer answers, by kind."""
LABEL: Final = "superswarm/v1/he-adapter"
NONCE_BYTES: Final = 12


class Holding(Protocol):
    """The trainer's own adapter, as far as encrypted sums change or need it."""

    def step(self, checked: CheckedSum) -> Digest:
        """Make the next adapter of a round's sum; its digest."""
        ...

    def give(self) -> tuple[int, bytes]:
        """After how many rounds it is, and its bytes."""
        ...

    def adopt(self, rounds: int, raw: bytes) -> Digest:
        """Take the adapter that another trainer handed over; its digest."""
        ...

    def publish(self, signer: SigningKey) -> bytes:
        """The result container of the final adapter."""
        ...


@dataclass(slots=True)
class _Round:
    """A round under way: its state, and what this trainer brings until it is encrypted."""

    member: HeMemberRound
    brings: Contribution | None = field(repr=False)


class EncryptedMember(PeerSession):
    """One session's part in encrypted sums."""

    def __init__(self, *, holding: Holding, **session: Any) -> None:
        super().__init__(**session)
        self._holding = holding
        self._round: _Round | None = None

    def answer(self, kind: str, head: bytes, body: bytes) -> tuple[Message, bytes | None]:
        """Answer one of `KINDS`: a message, and what goes with it as the body."""
        match kind:
            case "he_give":
                return self._give(Give.parse(head))
            case "he_given":
                return self._adopt(Given.parse(head), body), None
            case "he_deal":
                return self._current(Deal.parse(head).round).deal(), None
            case "he_dealing":
                return self._encrypt(Dealing.parse(head))
            case "survivors":
                return self._current().sign(Survivors.parse(head)), None
            case "he_to_decrypt":
                return self._current().decrypt(ToDecrypt.parse(head), body)
            case "he_opened":
                return self._take(Opened.parse(head), body), None
            case "he_publish":
                Publish.parse(head)
                return Published(), self._holding.publish(self._signing)
            case _:
                return self._meet(kind, head, body), None

    def begin(self, number: int, start: Digest, update: NDArray[np.float32], examples: int) -> None:
        """Begin a round with what was trained (P,) from the adapter `start`; refused here, it never leaves.

        Raises NotFinite, or Malformed for a weight over the manifest's.
        """
        standing, most, weight = self._acquainted(), self._encoding.max_weight, self._weight(examples)
        context = Context(standing.terms.roster, number, start)
        plan = HePlan.of(standing.terms, context, update.size, self._attempt.manifest.manifest)
        encoded = plan.code.encode(update, require_weight(weight, most))
        self._tell(number, encoded)
        brings = contribution(plan.context, standing.group, self._member, encoded, weight)
        self._round = _Round(HeMemberRound(standing, self._kem, plan, most=most), brings)

    def _encrypt(self, message: Dealing) -> tuple[Encrypted, bytes]:
        round_ = self._open_round()
        brings, round_.brings = round_.brings, None
        if brings is None:
            raise Untrusted("this round's update has left already")
        dst = io.BytesIO()
        round_.member.receive(message)
        said = round_.member.encrypt(brings, dst)
        return said, dst.getvalue()

    def _take(self, message: Opened, body: bytes) -> Taken:
        return Taken(digest=self._holding.step(self._current().take(message, body)).raw)

    def _give(self, _message: Give) -> tuple[Given, bytes]:
        """The adapter, for the trainers of the roster only."""
        rounds, raw = self._holding.give()
        nonce = secrets.token_bytes(NONCE_BYTES)
        return Given(rounds=rounds, nonce=nonce), self._cipher().encrypt(nonce, raw, pack(LABEL, rounds))

    def _adopt(self, message: Given, body: bytes) -> Taken:
        """Raises CannotOpen for what no trainer of this roster sealed."""
        try:
            raw = self._cipher().decrypt(message.nonce, body, pack(LABEL, message.rounds))
        except (InvalidTag, ValueError):
            raise CannotOpen("no trainer of this roster sealed what came as the adapter") from None
        return Taken(digest=self._holding.adopt(message.rounds, raw).raw)

    def _cipher(self) -> AESGCM:
        standing = self._acquainted()
        return AESGCM(derive(standing.group, LABEL, standing.terms.roster.digest.raw))

    def _acquainted(self) -> Standing:
        if self._standing is None:
            raise Untrusted("this trainer is not acquainted with its peers yet")
        return self._standing

    def _current(self, number: int | None = None) -> HeMemberRound:
        member = self._open_round().member
        if number not in (None, member.context.round):
            raise Untrusted("a message of a round that this trainer did not begin")
        return member

    def _open_round(self) -> _Round:
        if self._round is None:
            raise Untrusted("no round was begun")
        return self._round
