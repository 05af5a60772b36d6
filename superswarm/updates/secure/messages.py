"""What trainers and aggregator say in a masked round, inside their channels (docs/secure-sums.md).

Sets of members are a bit each in the roster's order. Lists of blobs are in the order of the circle, of exactly those
members that the comment names, so that no names travel with them. Parsing proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from superswarm.attestation.messages import Blobs, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduce(Message):
    """Aggregator → trainer: who is in the sums. The body is a list of Dossier: of all that `needed` names."""

    KIND: ClassVar[str] = "introduce"
    roster: bytes  # Roster


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction(Message):
    """Trainer → aggregator: secrets sealed to the session keys of others, and one signature over all of them."""

    KIND: ClassVar[str] = "introduction"
    sealed: Blobs  # to `recipients`
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed(Message):
    """One secret on its way: what a sender sealed to this receiver, with the digests that its signature covers."""

    KIND: ClassVar[str] = "passed"
    sealed: bytes
    digests: Blobs  # of all that the sender sealed
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquaint(Message):
    """Aggregator → trainer: what its `senders` sealed to it."""

    KIND: ClassVar[str] = "acquaint"
    passed: Blobs  # Passed


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquainted(Message):
    """Trainer → aggregator: it has links to its neighbours and is ready for rounds under this roster."""

    KIND: ClassVar[str] = "acquainted"
    roster: bytes  # its digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertised(Message):
    """(1) Trainer → aggregator: the seeds of this round's pairwise masks, sealed, and commitments to two seeds."""

    KIND: ClassVar[str] = "advertised"
    sealed: Blobs  # to each neighbour after the sender
    self_commitment: bytes
    pair_commitment: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys(Message):
    """(2) Aggregator → trainer: who advertised, and the pairwise seeds that are for the receiver."""

    KIND: ClassVar[str] = "keys"
    members: bytes  # a set
    sealed: Blobs  # of each neighbour before the receiver that advertised


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared(Message):
    """(2) Trainer → aggregator: shares of its two seeds, sealed, and its neighbours' seeds under its own."""

    KIND: ClassVar[str] = "shared"
    sealed: Blobs  # to each neighbour that advertised
    escrow: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal(Message):
    """(3) Aggregator → trainer: who shared, and the shares that are for the receiver."""

    KIND: ClassVar[str] = "deal"
    members: bytes  # a set
    sealed: Blobs  # of each neighbour that shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked(Message):
    """(3) Trainer → aggregator: for whom it masked, told to each neighbour under their link. The body is masked."""

    KIND: ClassVar[str] = "masked"
    proofs: Blobs  # to each neighbour that shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivors(Message):
    """(4) Aggregator → witness: whose masked updates came in."""

    KIND: ClassVar[str] = "survivors"
    members: bytes  # a set


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(Message):
    """(4) Witness → aggregator: its signature over the one set of survivors that it signs in this round."""

    KIND: ClassVar[str] = "signed"
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed(Message):
    """(5) Aggregator → survivor: the set that witnesses signed, and its neighbours' word for whom they masked."""

    KIND: ClassVar[str] = "agreed"
    masked: bytes  # a set: those for whom all survivors masked
    members: bytes  # a set: the survivors
    witnesses: bytes  # a set: who signed
    signatures: Blobs  # theirs
    proofs: Blobs  # of each surviving neighbour


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmasked(Message):
    """(5) Survivor → aggregator: of each member that shared and whose holder it is, one of two shares."""

    KIND: ClassVar[str] = "unmasked"
    shares: Blobs  # 66 bytes each: of the self-mask's seed for survivors, of the pairwise masks' for the others


@dataclass(frozen=True, slots=True, kw_only=True)
class Total(Message):
    """(6) Aggregator → all: whose updates the sum is of, by their signatures; the body is the sum."""

    KIND: ClassVar[str] = "total"
    round: int
    masked: bytes
    members: bytes
    witnesses: bytes
    signatures: Blobs
