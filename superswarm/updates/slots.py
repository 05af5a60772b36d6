"""Key slots of a result: each gives its content key, or one share of it, to somebody. Parsing proves nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from superswarm.consortium.documents import decode_base64
from superswarm.consortium.manifest import Clause, DigestText, Name
from superswarm.crypto.hpke import KemKey, KemPublicKey
from superswarm.crypto.shamir import Share, split
from superswarm.errors import WrongShare
from superswarm.values import LIMITS, Digest, MemberId
from superswarm.wire import pack

Sealed = Annotated[str, StringConstraints(max_length=4096)]
"""An HPKE ciphertext, in base64."""


class HpkeSlot(Clause):
    """The content key, sealed to one recipient's encryption key in the manifest."""

    kind: Literal["hpke"] = "hpke"
    recipient: Name
    sealed: Sealed


class ShareSlot(Clause):
    """One share of the content key (`superswarm.crypto.shamir`), sealed to a contributor's encryption key.

    `commitment` is a hash of the share and of what it belongs to: whoever hands in another share is named by it.
    """

    kind: Literal["share"] = "share"
    contributor: Name
    index: Annotated[int, Field(ge=1, le=LIMITS.members)]
    commitment: DigestText
    sealed: Sealed


class OtherSlot(BaseModel):
    """A slot of a kind that this version does not know: kept as it is, and skipped."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    kind: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]

    @field_validator("kind")
    @classmethod
    def _unknown(cls, kind: str) -> str:
        if kind in ("hpke", "share"):
            raise ValueError(f"a slot of the kind {kind} has other fields")
        return kind


Slot = HpkeSlot | ShareSlot | OtherSlot


def slot_faults(approvals: int, slots: Sequence[Slot]) -> str | None:
    """What is wrong with slots where `approvals` contributors release the key (0: nobody needs to)."""
    shares = [slot for slot in slots if isinstance(slot, ShareSlot)]
    if approvals == 0:
        return "a key that needs no approvals is not shared out" if shares else None
    if any(isinstance(slot, HpkeSlot) for slot in slots):
        return "a key that needs approvals is sealed to nobody"
    if [slot.index for slot in shares] != list(range(1, len(shares) + 1)):
        return "shares are numbered from 1, in order"
    if len({slot.contributor for slot in shares}) != len(shares):
        return "a contributor has two shares"
    if len(shares) < approvals:
        return f"{len(shares)} shares cannot give {approvals} approvals"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyContext:
    """What the slots of one container are bound to. Binding authenticates nobody: the aggregator's signature does."""

    attestation: str  # simulated or real
    manifest: Digest
    run: str
    container: bytes  # 32 random bytes
    approvals: int  # k
    shares: int  # n

    def seal_key(self, key: bytes, recipient: MemberId, to: KemPublicKey) -> HpkeSlot:
        return HpkeSlot(recipient=recipient, sealed=_text(to.seal(key, info=self._key_info(recipient))))

    def open_key(self, slot: HpkeSlot, kem: KemKey) -> bytes:
        """The content key. Raises CannotOpen under another key, recipient, container, run or manifest."""
        info = self._key_info(MemberId(slot.recipient))
        return kem.open(decode_base64(slot.sealed, "result's header"), info=info)

    def share_out(self, key: bytes, among: Sequence[tuple[MemberId, KemPublicKey]]) -> tuple[ShareSlot, ...]:
        """Split the key into one share for each contributor, and seal each share to its holder."""
        return tuple(
            ShareSlot(
                contributor=member,
                index=share.index,
                commitment=str(self._commitment(share, member)),
                sealed=_text(to.seal(share.to_bytes(), info=self._share_info("result-share", member, share.index))),
            )
            for share, (member, to) in zip(split(key, self.approvals, self.shares), among, strict=True)
        )

    def open_share(self, slot: ShareSlot, kem: KemKey) -> Share:
        """A contributor's share. Raises CannotOpen under another key or context, WrongShare, or Malformed."""
        info = self._share_info("result-share", MemberId(slot.contributor), slot.index)
        share = Share.parse(kem.open(decode_base64(slot.sealed, "result's header"), info=info))
        self.check_share(share, slot)
        return share

    def check_share(self, share: Share, slot: ShareSlot) -> None:
        """Raise WrongShare unless this is the share that the slot commits to."""
        held = self._commitment(share, MemberId(slot.contributor))
        if share.index != slot.index or str(held) != slot.commitment:
            raise WrongShare(f"the share of {slot.contributor} is not the one that the result commits to")

    def _commitment(self, share: Share, contributor: MemberId) -> Digest:
        """A share has as much entropy as the key, so a hash hides it."""
        info = self._share_info("result-share-commitment", contributor, share.index)
        return Digest.of(pack(info, share.to_bytes()))

    def _key_info(self, recipient: MemberId) -> bytes:
        return pack(self._label("result-key"), self.manifest.raw, self.run, self.container, recipient)

    def _share_info(self, purpose: str, contributor: MemberId, index: int) -> bytes:
        place = (contributor, index, self.approvals, self.shares)
        return pack(self._label(purpose), self.manifest.raw, self.run, self.container, *place)

    def _label(self, purpose: str) -> str:
        return f"superswarm/v1/{self.attestation}/{purpose}"


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
