"""The messages of the handshake, as bytes. Parsing proves nothing (docs/protocol.md, "Handshake").

The aggregator asks, trainers and nodes answer; each message begins with the protocol's version and its own name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, get_type_hints

from superswarm.errors import Malformed
from superswarm.values import PROTOCOL_VERSION
from superswarm.wire import join, pack, require_version, split, unpack_list

Blobs = tuple[bytes, ...]
CODE = re.compile(r"[A-Za-z:-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Base: fields are bytes, text, integers, or tuples of bytes, packed in the order of the class."""

    KIND: ClassVar[str]

    def to_bytes(self) -> bytes:
        values = [getattr(self, field.name) for field in fields(self)]
        return pack(PROTOCOL_VERSION, self.KIND, *(join(v) if isinstance(v, tuple) else v for v in values))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Invert `to_bytes`. Raises VersionMismatch, Malformed or TooLarge."""
        items = unpack_list(data)
        require_version(items[0] if items else None)
        names, hints = [field.name for field in fields(cls)], get_type_hints(cls)
        if items[1:2] != [cls.KIND] or len(items) != len(names) + 2:
            raise Malformed(f"not a {cls.KIND} message")
        return cls(**{n: _value(cls.KIND, hints[n], v) for n, v in zip(names, items[2:], strict=True)})


def _value(kind: str, hint: Any, value: Any) -> Any:
    if hint == Blobs and isinstance(value, bytes):
        return tuple(split(value))
    if type(value) is not hint:
        raise Malformed(f"a field of a {kind} message has the wrong type")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Message):
    """Aggregator → everybody: which run this is, and a challenge."""

    KIND: ClassVar[str] = "hello"
    manifest: bytes  # digest, 32 bytes
    epoch: int
    grant: bytes  # SignedGrant
    run: str
    attempt: int
    keys: bytes  # the aggregator's SessionKeys
    nonce: bytes  # the aggregator's challenge, 32 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Here(Message):
    """Trainer or node → aggregator: who answers, and its own challenge. Nodes have no session keys."""

    KIND: ClassVar[str] = "here"
    party: str
    nonce: bytes
    keys: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest(Message):
    """Aggregator → trainer: the challenge of the trainer's own node, to be covered by its evidence."""

    KIND: ClassVar[str] = "attest"
    node_nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown(Message):
    """Trainer → aggregator: evidence that binds its keys and the challenges of aggregator and node."""

    KIND: ClassVar[str] = "shown"
    evidence: bytes
    pairing: bytes  # proof for the member's node that this is its trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class AskVouch(Message):
    """Aggregator → node: its evidence, and that of the node's own trainer (empty for members without one)."""

    KIND: ClassVar[str] = "ask_vouch"
    nonces: Blobs  # all challenges that the aggregator's evidence covers
    evidence: bytes
    trainer_keys: bytes
    trainer_evidence: bytes
    pairing: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched(Message):
    """Node → aggregator: the member's signed vouches, for the aggregator and for its own trainer (or empty)."""

    KIND: ClassVar[str] = "vouched"
    aggregator: bytes
    trainer: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm(Message):
    """Aggregator → trainer: what the trainer needs to judge it, and its secret, signed."""

    KIND: ClassVar[str] = "confirm"
    nonces: Blobs
    evidence: bytes
    vouches: Blobs  # of a quorum, for the aggregator
    trainer_vouch: bytes
    sealed_secret: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed(Message):
    """Trainer → aggregator: its secret, signed, and proof that it derived the channel's keys."""

    KIND: ClassVar[str] = "confirmed"
    sealed_secret: bytes
    signature: bytes
    confirmation: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Message):
    """Instead of an answer: a fixed word, never a text. Not authenticated, so it is news and no proof."""

    KIND: ClassVar[str] = "refused"
    code: str

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """The refusal that these bytes are, or None where they are something else. Raises VersionMismatch."""
        try:
            refusal = cls.parse(data)
        except Malformed:
            return None
        return refusal if CODE.fullmatch(refusal.code) else None
