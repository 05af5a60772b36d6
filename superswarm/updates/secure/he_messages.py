"""What trainers and aggregator say in a round of encrypted sums, inside their channels (docs/secure-sums-he.md).

Sets of members are a bit each in the roster's order; `Survivors` and `Signed` are those of masked rounds. Parsing
proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from superswarm.attestation.messages import Blobs, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal(Message):
    """(1) Aggregator → a key holder: make the round's key pair."""

    KIND: ClassVar[str] = "he_deal"
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealt(Message):
    """(1) A key holder → aggregator: the round's key pair, the secret key sealed to the other holders."""

    KIND: ClassVar[str] = "he_dealt"
    pair: bytes  # digest of the public key
    public: bytes  # HePublicKey; empty where all members hold the secret key
    sealed: Blobs  # to each other holder, in the order of the holders
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealing(Message):
    """(2) Aggregator → trainer: what the dealer signed, and what it sealed to this trainer if it is a holder."""

    KIND: ClassVar[str] = "he_dealing"
    dealer: str
    pair: bytes
    public: bytes
    sealed: bytes
    digests: Blobs  # of all that the dealer sealed
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Encrypted(Message):
    """(2) Trainer → aggregator: the tag of what it encrypted; the body is the encrypted update."""

    KIND: ClassVar[str] = "he_encrypted"
    tag: int  # below p; uniform to whoever lacks the trainers' secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ToDecrypt(Message):
    """(4) Aggregator → one key holder: whose sum it is, by witnesses' signatures; the body is the encrypted sum."""

    KIND: ClassVar[str] = "he_to_decrypt"
    total: bytes  # Total
    tag: int  # sum of the survivors' tags, modulo p


@dataclass(frozen=True, slots=True, kw_only=True)
class Decrypted(Message):
    """(4) Key holder → aggregator: the sum was decrypted and holds; the body is sealed to all trainers."""

    KIND: ClassVar[str] = "he_decrypted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(Message):
    """(5) Aggregator → all: whose sum it is, and who decrypted it; the body is what that holder sealed."""

    KIND: ClassVar[str] = "he_opened"
    total: bytes  # Total
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken(Message):
    """(5) Trainer → aggregator: the digest of the adapter that it has now, of the sum or handed over."""

    KIND: ClassVar[str] = "he_taken"
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Give(Message):
    """Aggregator → a trainer: seal the adapter that you hold to all trainers of the roster."""

    KIND: ClassVar[str] = "he_give"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given(Message):
    """Trainer → aggregator, and on to those that lack it: the body is the adapter, sealed to all trainers."""

    KIND: ClassVar[str] = "he_given"
    rounds: int  # that made it
    nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish(Message):
    """Aggregator → a trainer: make the result container of the last round's adapter."""

    KIND: ClassVar[str] = "he_publish"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(Message):
    """Trainer → aggregator: the body is the container, which the trainer's session key signed."""

    KIND: ClassVar[str] = "he_published"
