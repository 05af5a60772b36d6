"""Hybrid signatures: Ed25519 and ML-DSA-65 together, both must hold (RFC 8032, FIPS 204).

Every signature is made over a domain tag and a message, packed, so that bytes signed for one purpose never pass
for another.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from superswarm.errors import BadSignature, Malformed
from superswarm.values import Digest
from superswarm.wire import pack

ED25519_PUBLIC = 32
ED25519_SIGNATURE = 64
MLDSA_PUBLIC = 1952
MLDSA_SIGNATURE = 3309
SIGNATURE_BYTES = ED25519_SIGNATURE + MLDSA_SIGNATURE
PREFIX = "ed25519+mldsa65:"


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key pair, 32 + 1952 bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != ED25519_PUBLIC + MLDSA_PUBLIC:
            raise Malformed(f"a verifying key has {ED25519_PUBLIC + MLDSA_PUBLIC} bytes, not {len(self.raw)}")

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(decode_key(PREFIX, text))

    def __str__(self) -> str:
        return PREFIX + base64.b64encode(self.raw).decode()

    @property
    def digest(self) -> Digest:
        return Digest.of(self.raw)

    def verify(self, tag: str, message: bytes, signature: bytes) -> None:
        """Raise BadSignature unless both halves hold over (tag, message)."""
        if len(signature) != SIGNATURE_BYTES:
            raise BadSignature(f"a hybrid signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
        signed = pack(tag, message)
        try:
            ed25519 = Ed25519PublicKey.from_public_bytes(self.raw[:ED25519_PUBLIC])
            mldsa = MLDSA65PublicKey.from_public_bytes(self.raw[ED25519_PUBLIC:])
        except ValueError:
            raise Malformed("not a valid verifying key") from None
        try:
            ed25519.verify(signature[:ED25519_SIGNATURE], signed)
            mldsa.verify(signature[ED25519_SIGNATURE:], signed)
        except InvalidSignature:
            raise BadSignature(f"the signature does not hold for {tag}") from None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key pair, as two 32-byte seeds. Never printed."""

    seeds: bytes = field(repr=False)  # 32 Ed25519 + 32 ML-DSA-65

    def __post_init__(self) -> None:
        if len(self.seeds) != 64:
            raise Malformed("a signing key has 64 bytes")

    @classmethod
    def generate(cls) -> Self:
        return cls(
            Ed25519PrivateKey.generate().private_bytes_raw() + MLDSA65PrivateKey.generate().private_bytes_raw()
        )

    @property
    def public(self) -> VerifyingKey:
        ed25519 = Ed25519PrivateKey.from_private_bytes(self.seeds[:32]).public_key()
        mldsa = MLDSA65PrivateKey.from_seed_bytes(self.seeds[32:]).public_key()
        return VerifyingKey(ed25519.public_bytes_raw() + mldsa.public_bytes_raw())

    def sign(self, tag: str, message: bytes) -> bytes:
        """Sign (tag, message); 3,373 bytes."""
        signed = pack(tag, message)
        first = Ed25519PrivateKey.from_private_bytes(self.seeds[:32]).sign(signed)
        return first + MLDSA65PrivateKey.from_seed_bytes(self.seeds[32:]).sign(signed)


def decode_key(prefix: str, text: str) -> bytes:
    """Read a key written as a prefix and base64, in the one way that each key is written; Malformed otherwise."""
    if not text.startswith(prefix):
        raise Malformed(f"a key of this kind is written {prefix} and base64")
    try:
        raw = base64.b64decode(text.removeprefix(prefix), validate=True)
    except ValueError:
        raise Malformed("a key is not valid base64") from None
    if prefix + base64.b64encode(raw).decode() != text:
        raise Malformed("a key's base64 is not canonical")
    return raw
