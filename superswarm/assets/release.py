"""Releasing the key of a sealed asset: what a trainer and the owner's node say to each other, in sealed letters.

    trainer → node   key-hello     which asset, and the trainer's session keys
    node → trainer   key-nonce     the broker's challenge, which serves once
    trainer → node   key-request   fresh evidence over challenge and session keys; vouch; grant
    node → trainer   key-grant     the key, sealed to the attested session key; or key-refusal, a fixed word

Parsing proves nothing: `superswarm.assets.terms` judges a request (docs/protocol.md, "Releasing keys").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from superswarm.attestation.evidence import SessionKeys
from superswarm.attestation.messages import CODE, Message
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.kdf import KEY_BYTES
from superswarm.errors import CannotOpen, Malformed, ReleaseRefused
from superswarm.values import Digest, MemberId
from superswarm.wire import pack

HELLO: Final = "key-hello"
NONCE: Final = "key-nonce"
REQUEST: Final = "key-request"
GRANT: Final = "key-grant"
REFUSAL: Final = "key-refusal"
"""Kinds of letters; each carries the message of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHello(Message):
    """Trainer → owner's node: a challenge, please."""

    KIND: ClassVar[str] = HELLO
    asset: bytes  # digest of the sealed file
    keys: bytes  # SessionKeys: whose signature the letter bears


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyNonce(Message):
    """Owner's node → trainer: the broker's challenge, 32 bytes."""

    KIND: ClassVar[str] = NONCE
    asset: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest(Message):
    """Trainer → owner's node: everything that the broker judges."""

    KIND: ClassVar[str] = REQUEST
    asset: bytes
    nonce: bytes  # the broker's
    keys: bytes  # SessionKeys
    evidence: bytes  # binds the keys, the nonce, role, member, run and manifest
    vouch: bytes  # the member's, for these keys, from the handshake of this attempt
    grant: bytes  # SignedGrant
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGrant(Message):
    """Owner's node → trainer: the key, for these session keys and this request only."""

    KIND: ClassVar[str] = GRANT
    asset: bytes
    nonce: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRefusal(Message):
    """Owner's node → trainer: no, for a reason that has a fixed word."""

    KIND: ClassVar[str] = REFUSAL
    asset: bytes
    nonce: bytes  # of the request that is refused; empty for a hello
    code: str

    def error(self, name: str) -> ReleaseRefused:
        """What it means to the trainer, whose asset is called `name`."""
        word = self.code if CODE.fullmatch(self.code) else "unreadable"
        return ReleaseRefused("by-owner", f"the owner of {name} does not release its key: {word}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyContext:
    """What a sealed key is bound to: it opens nowhere else."""

    domain: str  # the manifest's
    manifest: Digest
    run: str
    attempt: int
    asset: Digest
    member: MemberId  # whose TEE it is sealed to
    session: Digest  # SessionKeys.digest
    nonce: bytes  # of the broker

    def info(self) -> bytes:
        """HPKE `info`. Authenticates nobody: the letter's signature does."""
        return pack(
            f"{self.domain}/asset-key",
            self.manifest.raw,
            self.run,
            self.attempt,
            self.asset.raw,
            self.member,
            self.session.raw,
            self.nonce,
        )


def seal_key(key: bytes, to: SessionKeys, context: KeyContext) -> bytes:
    """Seal an asset's key to attested session keys."""
    if len(key) != KEY_BYTES:
        raise Malformed(f"an asset's key has {KEY_BYTES} bytes")
    if to.digest != context.session:
        raise RuntimeError("seal_key() for other session keys than the context's")
    return to.kem.seal(key, info=context.info())


def open_key(sealed: bytes, kem: KemKey, context: KeyContext) -> bytes:
    """Invert `seal_key`. Raises CannotOpen for another session, member, run, asset, manifest or challenge."""
    key = kem.open(sealed, info=context.info())
    if len(key) != KEY_BYTES:
        raise CannotOpen("what was sealed is not an asset's key")
    return key
