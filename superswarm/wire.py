"""Canonical bytes: one encoding for everything that is hashed, signed, or used as associated data.

`pack` writes a list of fields, each as a one-letter type, a length of 8 bytes, and the bytes; integers are 8 bytes,
big-endian. Two different lists never pack to the same bytes, and `unpack` accepts only what `pack` writes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from superswarm.errors import Malformed, TooLarge, VersionMismatch
from superswarm.values import LIMITS, MEMBER_ID, PROTOCOL_VERSION, Digest, MemberId, Role

Field: TypeAlias = bytes | str | int
MAGIC = b"SSW\x01"
HEADER = struct.Struct(">cQ")


def pack(*fields: Field) -> bytes:
    """Encode fields (bytes, text or integers from 0 to 2**63 - 1) injectively."""
    parts = [MAGIC, struct.pack(">I", len(fields))]
    for field in fields:
        match field:
            case bytes():
                parts += [HEADER.pack(b"b", len(field)), field]
            case str():
                text = _encode(field)
                parts += [HEADER.pack(b"s", len(text)), text]
            case int() if not isinstance(field, bool) and 0 <= field < 2**63:
                parts += [HEADER.pack(b"i", 8), field.to_bytes(8, "big")]
            case _:
                raise TypeError(f"cannot pack {type(field).__name__}")
    return b"".join(parts)


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        raise Malformed("a text holds something that is no character") from None


def unpack(data: bytes, *kinds: type, limit: int = LIMITS.head_bytes) -> list[Any]:
    """Decode what `pack` wrote, and check that the fields have exactly these types (bytes, str, int).

    Raises Malformed for anything that `pack` would not have written, TooLarge over `limit` bytes.
    """
    fields = unpack_list(data, limit=limit)
    if len(fields) != len(kinds) or any(type(f) is not k for f, k in zip(fields, kinds, strict=True)):
        raise Malformed("a packed message does not have the expected fields")
    return fields


def unpack_list(data: bytes, *, limit: int = LIMITS.head_bytes) -> list[Field]:
    """Decode what `pack` wrote, however many fields it has."""
    if len(data) > limit:
        raise TooLarge(f"a packed message has {len(data)} bytes; the limit is {limit}")
    view = memoryview(data)
    if bytes(view[:4]) != MAGIC or len(view) < 8:
        raise Malformed("not a packed message")
    (count,) = struct.unpack_from(">I", view, 4)
    if count > LIMITS.fields:
        raise TooLarge(f"a packed message claims {count} fields")
    fields: list[Field] = []
    at = 8
    for _ in range(count):
        if at + HEADER.size > len(view):
            raise Malformed("a packed message is cut short")
        letter, length = HEADER.unpack_from(view, at)
        at += HEADER.size
        if length > len(view) - at:
            raise Malformed("a packed field is longer than its message")
        fields.append(_field(letter, bytes(view[at : at + length])))
        at += length
    if at != len(view):
        raise Malformed("a packed message has trailing bytes")
    return fields


def _field(letter: bytes, raw: bytes) -> Field:
    if letter == b"b":
        return raw
    if letter == b"s":
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise Malformed("a packed text is not UTF-8") from None
    if letter == b"i" and len(raw) == 8 and raw[0] < 128:
        return int.from_bytes(raw, "big")
    raise Malformed("a packed field has an unknown type")


@dataclass(frozen=True, slots=True)
class Parcel:
    """What the relay carries: a small head and one large body, both opaque to it.

    Parcels to many recipients that share a body share its bytes, which the relay stores once.
    """

    head: bytes
    body: bytes = b""

    def __post_init__(self) -> None:
        if len(self.head) > LIMITS.head_bytes or len(self.body) > LIMITS.body_bytes:
            raise TooLarge("a parcel is over its limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a relay may read of an envelope; all of it is authenticated as associated data.

    `round` counts from 1; 0 is everything before the first round. `sequence` counts the messages of one direction
    in one round, from 0.
    """

    manifest: Digest
    run: str
    round: int
    sender: str  # "trainer/<member>", "node/<member>" or "aggregator"
    receiver: str
    kind: str
    sequence: int

    def to_bytes(self) -> bytes:
        return pack(
            PROTOCOL_VERSION,
            self.manifest.raw,
            self.run,
            self.round,
            self.sender,
            self.receiver,
            self.kind,
            self.sequence,
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        fields = unpack_list(data, limit=4096)
        require_version(fields[0] if fields else None)
        match fields:
            case [int(), bytes(raw), str(run), int(round_), str(sender), str(receiver), str(kind), int(sequence)]:
                return cls(
                    manifest=Digest(raw),
                    run=run,
                    round=round_,
                    sender=sender,
                    receiver=receiver,
                    kind=kind,
                    sequence=sequence,
                )
            case _:
                raise Malformed("an envelope's header does not have the expected fields")


def require_version(version: object) -> None:
    """Refuse another protocol version in words that say which side must upgrade."""
    if not isinstance(version, int):
        raise Malformed("a message does not begin with a protocol version")
    if version != PROTOCOL_VERSION:
        older = "the peer" if version < PROTOCOL_VERSION else "this side"
        raise VersionMismatch(f"the peer speaks protocol {version}, this side {PROTOCOL_VERSION}: upgrade {older}")


def party(role: Role, member: MemberId | None = None) -> str:
    """Name a party of the protocol: `trainer/<member>`, `node/<member>`, or `aggregator`."""
    return f"{role}/{member}" if member is not None else str(role)


def parse_party(name: str) -> tuple[Role, MemberId | None]:
    """Invert `party`."""
    role, slash, member = name.partition("/")
    if role == Role.AGGREGATOR and not slash:
        return Role.AGGREGATOR, None
    if role in (Role.TRAINER, Role.NODE) and MEMBER_ID.fullmatch(member):
        return Role(role), MemberId(member)
    raise Malformed("not the name of a party")


def join(items: Sequence[bytes]) -> bytes:
    """Pack a list of byte strings."""
    return pack(*items)


def split(data: bytes, *, limit: int = LIMITS.head_bytes) -> list[bytes]:
    """Invert `join`."""
    items = unpack_list(data, limit=limit)
    if not all(isinstance(item, bytes) for item in items):
        raise Malformed("a packed list holds something other than bytes")
    return [item for item in items if isinstance(item, bytes)]
