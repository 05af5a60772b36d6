"""The aggregator's view of the relay: post parcels to peers, collect their replies. Knows nothing of Flower.

A peer is a Flower node id, a number that the relay hands out and may shuffle at will: it routes, and proves nothing.
Who answered is decided by what opens under whose session key.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from superswarm.wire import Parcel


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One parcel on its way to one peer."""

    peer: int
    kind: str  # lower-case letters and underscores
    parcel: Parcel


@dataclass(frozen=True, slots=True)
class Delivery:
    """One reply, or its failure."""

    peer: int
    ticket: str
    parcel: Parcel | None  # None: the relay or the peer's program failed; no text travels


class Mailroom(Protocol):
    """Posts and collects. Every call raises RunStopped once the operator has stopped the run."""

    def peers(self) -> frozenset[int]:
        """Node ids that are connected now, as the relay tells it."""
        ...

    def post(self, peer: int, kind: str, parcel: Parcel, *, ttl: float) -> str:
        """Send one parcel; the ticket names its reply. The reply is due within `ttl` seconds."""
        ...

    def post_all(self, letters: Sequence[Outgoing], *, ttl: float) -> list[str]:
        """Send several parcels at once, tickets in the same order. A body that they share travels once."""
        ...

    def collect(self, tickets: Collection[str]) -> list[Delivery]:
        """Take what has arrived for these tickets, without waiting; each ticket yields at most one delivery."""
        ...
