"""Hybrid post-quantum HPKE (RFC 9180, base mode): ML-KEM-768 + X25519, HKDF-SHA256, AES-256-GCM.

Base mode does not authenticate its sender; whoever needs that signs (a transcript, a letter, a vouch).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from superswarm.crypto.signing import decode_key
from superswarm.errors import CannotOpen, Malformed
from superswarm.values import Digest

MLKEM_PUBLIC = 1184
X25519_PUBLIC = 32
MLKEM_SEED = 64
OVERHEAD = 1136  # bytes that sealing adds: encapsulations and tag
PREFIX = "mlkem768+x25519:"
SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class KemPublicKey:
    """A hybrid KEM public key, 1184 + 32 bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != MLKEM_PUBLIC + X25519_PUBLIC:
            raise Malformed(f"a KEM key has {MLKEM_PUBLIC + X25519_PUBLIC} bytes, not {len(self.raw)}")

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(decode_key(PREFIX, text))

    def __str__(self) -> str:
        return PREFIX + base64.b64encode(self.raw).decode()

    @property
    def digest(self) -> Digest:
        return Digest.of(self.raw)

    def seal(self, plaintext: bytes, *, info: bytes) -> bytes:
        """Encrypt to this key under `info`; OVERHEAD bytes longer. Raises Malformed for an invalid key."""
        try:
            key = MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(self.raw[:MLKEM_PUBLIC]),
                X25519PublicKey.from_public_bytes(self.raw[MLKEM_PUBLIC:]),
            )
            return SUITE.encrypt(plaintext, key, info=info)
        except ValueError:
            raise Malformed("not a valid KEM public key") from None


@dataclass(frozen=True, slots=True)
class KemKey:
    """A hybrid KEM private key, as seeds of 64 and 32 bytes. Never printed."""

    seeds: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seeds) != MLKEM_SEED + 32:
            raise Malformed(f"a KEM private key has {MLKEM_SEED + 32} bytes")

    @classmethod
    def generate(cls) -> Self:
        return cls(
            MLKEM768PrivateKey.generate().private_bytes_raw() + X25519PrivateKey.generate().private_bytes_raw()
        )

    def _parts(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        return (
            MLKEM768PrivateKey.from_seed_bytes(self.seeds[:MLKEM_SEED]),
            X25519PrivateKey.from_private_bytes(self.seeds[MLKEM_SEED:]),
        )

    @property
    def public(self) -> KemPublicKey:
        mlkem, x25519 = self._parts()
        return KemPublicKey(mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw())

    def open(self, sealed: bytes, *, info: bytes) -> bytes:
        """Decrypt what was sealed to this key under the same `info`; CannotOpen otherwise."""
        try:
            return SUITE.decrypt(sealed, MLKEM768X25519PrivateKey(*self._parts()), info=info)
        except (InvalidTag, ValueError):
            raise CannotOpen("a sealed message does not open under this key and context") from None
