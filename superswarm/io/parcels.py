"""Parcels as Flower carries them: the head in a ConfigRecord, the body in one opaque array.

Uses Flower's public API only. What arrives is whatever the relay chose to deliver: anything that `to_record` would
not have written is Malformed, and nothing in it is believed before it opens under a session key.
"""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from superswarm.errors import Malformed, TooLarge
from superswarm.values import LIMITS
from superswarm.wire import Parcel

HEAD = "head"
BODY = "body"
DTYPE = "uint8"
SEALED = "superswarm.sealed/1"


def to_record(parcel: Parcel, *, body: Array | None = None) -> RecordDict:
    """Write a parcel. Give the `sealed_array` of its body where several parcels share it: it is then hashed once."""
    record = RecordDict({HEAD: ConfigRecord({HEAD: parcel.head})})
    if parcel.body:
        record[BODY] = ArrayRecord({BODY: body if body is not None else sealed_array(parcel.body)})
    return record


def sealed_array(body: bytes) -> Array:
    """Wrap ciphertext in the one array type that a parcel may hold; the bytes are not copied."""
    return Array(dtype=DTYPE, shape=(len(body),), stype=SEALED, data=body)


def from_record(record: RecordDict) -> Parcel:
    """Read what `to_record` wrote. Proves nothing about who wrote it."""
    if not set(record) <= {HEAD, BODY}:
        raise Malformed("a parcel holds records that it should not")
    return Parcel(_head(record), _body(record))


def _head(record: RecordDict) -> bytes:
    config = record.get(HEAD)
    if not isinstance(config, ConfigRecord) or set(config) != {HEAD}:
        raise Malformed("a parcel has no head")
    head = config[HEAD]
    if not isinstance(head, bytes):
        raise Malformed("a parcel's head is not bytes")
    return head


def _body(record: RecordDict) -> bytes:
    if BODY not in record:
        return b""
    arrays = record[BODY]
    if not isinstance(arrays, ArrayRecord) or set(arrays) != {BODY}:
        raise Malformed("a parcel's body is not one array")
    array = arrays[BODY]
    if len(array.data) > LIMITS.body_bytes:
        raise TooLarge("a parcel's body is over its limit")
    if (array.dtype, array.stype, array.shape) != (DTYPE, SEALED, (len(array.data),)) or not array.data:
        raise Malformed("a parcel's body is not the sealed bytes that it claims to be")
    return bytes(array.data)
