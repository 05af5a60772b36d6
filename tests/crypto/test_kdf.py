"""Key derivation: RFC 5869 under a packed info, and different for every input."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from superswarm.crypto.kdf import derive
from superswarm.wire import pack

SECRET = bytes(range(32))


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, from its text."""
    prk = hmac.digest(salt or bytes(32), secret, hashlib.sha256)
    out = block = b""
    counter = 1
    while len(out) < length:
        block = hmac.digest(prk, block + info + bytes([counter]), hashlib.sha256)
        out, counter = out + block, counter + 1
    return out[:length]


@pytest.mark.parametrize("length", [16, 32, 64, 100])
@pytest.mark.parametrize("salt", [b"", b"salt"])
def test_it_is_hkdf(length: int, salt: bytes) -> None:
    expected = hkdf(SECRET, salt, pack("label", b"context", length), length)
    assert derive(SECRET, "label", b"context", length, salt=salt) == expected


def test_every_input_counts() -> None:
    base: dict[str, Any] = {"secret": SECRET, "label": "a", "context": b"b", "length": 32, "salt": b"c"}
    changes: list[dict[str, Any]] = [{}, {"secret": SECRET[::-1]}, {"label": "ab"}, {"context": b""}, {"salt": b""}]
    assert len({derive(**base | change) for change in changes}) == len(changes)
    assert derive(**base | {"length": 16}) != derive(**base)[:16]


def test_a_short_secret_is_our_own_fault() -> None:
    with pytest.raises(ValueError, match="secret"):
        derive(b"passphrase", "label", b"")
