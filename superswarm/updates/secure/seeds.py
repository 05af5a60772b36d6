"""What a round's seeds give: keys of masks, commitments, escrows. Used by members, and by whoever recovers a seed.

A member draws two seeds a round: one for its self-mask, and one from which the seeds of its pairwise masks with later
neighbours follow, and the key of an escrow that holds those which earlier neighbours made. So whoever recovers the
second seed has all pairwise masks of a member that vanished, and whoever recovers the first one its self-mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from superswarm.crypto.kdf import KEY_BYTES, derive
from superswarm.errors import Malformed
from superswarm.updates.secure.check import CheckVector
from superswarm.updates.secure.masks import Contribution
from superswarm.updates.secure.ring import Code, Encoded, Ring
from superswarm.updates.secure.roster import Roster
from superswarm.values import Digest, MemberId
from superswarm.wire import pack

LABEL: Final = "superswarm/v1/masked"
SURVIVORS: Final = f"{LABEL}/survivors"  # what witnesses sign


@dataclass(frozen=True, slots=True)
class Context:
    """One round under one roster: what every seed, mask, share and signature of it is bound to.

    `start` names the adapter that the round begins from: masks of members that began from different ones never
    cancel, so that an aggregator cannot single a member out by what it gives the others to train.
    """

    roster: Roster
    round: int
    start: Digest

    def pair_seed(self, seed: bytes, sender: MemberId, receiver: MemberId) -> bytes:
        """The seed of the masks between a member and a later neighbour, from the member's second seed."""
        return derive(seed, f"{LABEL}/pair", self._of(sender, receiver))

    def mask_key(self, seed: bytes, masked: bytes) -> bytes:
        """The key of a mask stream. Masks made for different sets of members never cancel."""
        return derive(seed, f"{LABEL}/mask", self._of(masked))

    def commitment(self, purpose: str, member: MemberId, seed: bytes) -> bytes:
        """What tells a recovered seed from any other; hides it, as seeds are random."""
        return Digest.of(pack(f"{LABEL}/commitment", self._of(purpose, member), seed)).raw

    def seal_escrow(self, seed: bytes, member: MemberId, pair_seeds: Sequence[bytes]) -> bytes:
        """The pairwise seeds that earlier neighbours made, in their order, under the member's second seed."""
        return self._escrow(seed, member).encrypt(bytes(12), b"".join(pair_seeds), None)

    def open_escrow(self, seed: bytes, member: MemberId, sealed: bytes, count: int) -> list[bytes]:
        """Invert `seal_escrow`. Malformed for what the member cannot have meant."""
        try:
            raw = self._escrow(seed, member).decrypt(bytes(12), sealed, None)
        except (InvalidTag, ValueError):
            raise Malformed(f"the escrow of {member} does not open under its own seed") from None
        if len(raw) != count * KEY_BYTES:
            raise Malformed(f"the escrow of {member} does not hold {count} seeds")
        return [raw[i : i + KEY_BYTES] for i in range(0, len(raw), KEY_BYTES)]

    def statement(self, masked: bytes, survivors: bytes) -> bytes:
        """What a witness signs: for whom all masked, and who survived."""
        return self._of(masked, survivors)

    def check(self, group: bytes) -> CheckVector:
        """The round's check vector, from the secret that only trainers have."""
        return CheckVector(group, self.round, pack(self.roster.digest.raw, self.start.raw))

    def rotation(self) -> Digest:
        """Names the round's public signs and dither."""
        return Digest.of(pack(f"{LABEL}/rotation", self._of()))

    def _escrow(self, seed: bytes, member: MemberId) -> AESGCM:
        return AESGCM(derive(seed, f"{LABEL}/escrow", self._of(member)))

    def _of(self, *fields: str | bytes) -> bytes:
        return pack(self.roster.digest.raw, self.round, self.start.raw, *fields)


def contribution(context: Context, group: bytes, member: MemberId, encoded: Encoded, weight: int) -> Contribution:
    """A member's integers with their tag, before any mask."""
    tag = context.check(group).tag(member, encoded.values, weight)
    return Contribution(encoded.values, weight, tag)


def require_weight(weight: int, most: int) -> float:
    """The share of an update of this weight. Malformed where the manifest allows no such weight."""
    if not 0 < weight <= most:
        raise Malformed(f"an update's weight is above 0 and at most {most}, the manifest's max_weight")
    return weight / most


def code_of(context: Context, parameters: int, payload_bits: int, clip_norm: float) -> Code:
    """How the updates of a round are encoded: the same for all its members."""
    ring = Ring.fitting(len(context.roster.entries), payload_bits)
    return Code(ring=ring, parameters=parameters, clip_norm=clip_norm, rotation=context.rotation())
