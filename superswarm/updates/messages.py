"""What aggregator and trainer say inside their channel. Always sealed; never seen by the relay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from superswarm.attestation.messages import Blobs, Message
from superswarm.values import Digest
from superswarm.wire import Header


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlock(Message):
    """Aggregator → trainer: get ready for the run's job; letters from the owners of its sealed assets."""

    KIND: ClassVar[str] = "unlock"
    letters: Blobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlocked(Message):
    """Trainer → aggregator: whether model and data are loaded (1), and letters to owners where they are not (0)."""

    KIND: ClassVar[str] = "unlocked"
    ready: int
    letters: Blobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(Message):
    """Trainer → aggregator: what it trains, with how much, and which global adapter it holds."""

    KIND: ClassVar[str] = "prepared"
    spec: bytes  # AdapterSpec
    examples: int
    rounds: int  # completed rounds in the adapter held
    digest: bytes  # of the adapter held, encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Message):
    """Aggregator → trainer: train or evaluate from this global adapter.

    `content_key` opens the parcel's body, which all members share; empty where the trainer already holds the
    adapter whose digest is named. With `total` the body is the last round's sum, which makes that adapter of the one
    held (docs/secure-sums.md).
    """

    KIND: ClassVar[str] = "order"
    content_key: bytes
    digest: bytes
    letters: Blobs
    total: bytes = b""  # Total; empty where the body is an adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained(Message):
    """Trainer → aggregator: its metrics and letters; the update is the sealed body."""

    KIND: ClassVar[str] = "trained"
    metrics: bytes  # MemberMetrics
    letters: Blobs


def broadcast_context(manifest: Digest, run: str, round_: int) -> Header:
    """The associated data of a round's broadcast: one ciphertext for all members of the round."""
    return Header(
        manifest=manifest, run=run, round=round_, sender="aggregator", receiver="trainers", kind="global", sequence=0
    )
