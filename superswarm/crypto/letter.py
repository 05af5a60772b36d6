"""Letters between members: sealed end to end and signed, carried by the aggregator, who cannot read them.

Used for what trainers and nodes tell each other (key requests, grants, shares) and for what the aggregator tells a
member's node. The header is public to whoever carries the letter and bound into both seal and signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from superswarm.crypto.hpke import KemKey, KemPublicKey
from superswarm.crypto.signing import SigningKey, VerifyingKey
from superswarm.errors import CannotOpen, TooLarge
from superswarm.values import LIMITS
from superswarm.wire import Header, pack, unpack

TAG = "superswarm/v1/letter"


@dataclass(frozen=True, slots=True)
class Letter:
    """A sealed letter: header, HPKE ciphertext, signature of the sender over both."""

    header: Header
    sealed: bytes
    signature: bytes

    def to_bytes(self) -> bytes:
        return pack(self.header.to_bytes(), self.sealed, self.signature)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        if len(data) > LIMITS.mail_bytes:
            raise TooLarge(f"a letter has at most {LIMITS.mail_bytes} bytes")
        header, sealed, signature = unpack(data, bytes, bytes, bytes)
        return cls(Header.parse(header), sealed, signature)

    def decrypt(self, key: KemKey) -> bytes:
        """What is written in it. Says nothing about who wrote it: `check_letter` does. Raises CannotOpen."""
        return key.open(self.sealed, info=pack(TAG, self.header.to_bytes()))


def seal_letter(header: Header, plaintext: bytes, *, to: KemPublicKey, sender: SigningKey) -> Letter:
    """Seal `plaintext` for the holder of `to`, and sign as the sender that the header names."""
    sealed = to.seal(plaintext, info=pack(TAG, header.to_bytes()))
    return Letter(header, sealed, sender.sign(TAG, pack(header.to_bytes(), sealed)))


def open_letter(letter: Letter, *, me: str, key: KemKey, sender: VerifyingKey) -> bytes:
    """Open a letter addressed to `me`. Raises BadSignature or CannotOpen."""
    check_letter(letter, me=me, sender=sender)
    return letter.decrypt(key)


def check_letter(letter: Letter, *, me: str, sender: VerifyingKey) -> None:
    """Raise CannotOpen unless it is addressed to `me`, BadSignature unless this sender signed it."""
    if letter.header.receiver != me:
        raise CannotOpen(f"a letter for {letter.header.receiver}, not for {me}")
    sender.verify(TAG, pack(letter.header.to_bytes(), letter.sealed), letter.signature)
