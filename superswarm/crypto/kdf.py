"""Keys from a secret: HKDF-SHA256 (RFC 5869) under one label a purpose."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from superswarm.wire import pack

KEY_BYTES = 32


def derive(secret: bytes, label: str, context: bytes, length: int = KEY_BYTES, *, salt: bytes = b"") -> bytes:
    """Derive `length` bytes that differ for every label, context, length and salt.

    `secret` must have full entropy: a key or a KEM's secret, never a passphrase. Length is part of the info, so that
    a short key is no prefix of a long one.
    """
    if len(secret) < KEY_BYTES:
        raise ValueError(f"a secret to derive from has at least {KEY_BYTES} bytes")
    return HKDF(SHA256(), length, salt or None, pack(label, context, length)).derive(secret)
