"""The result container: what the aggregator hands out. Parsing its public head proves nothing.

    magic 8 | signature 3373 | encrypted stream (superswarm.crypto.stream), whose header is a ResultHeader in JSON

The signature is the aggregator's session key's, over the SHA-256 of the whole stream, header included. Recipients
hold the content key, so only a signature keeps one of them from making another result under it.

The content key is in the header's slots (`superswarm.updates.slots`). Where the manifest asks for no approvals, each
slot is "hpke": sealed to one recipient. Where k contributors must approve, each is "share": one of n shares, sealed
to one contributor, and k of them give the key. Whoever reads skips slots of a kind that it does not know.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, BinaryIO, Final, Literal, Self

import rfc8785
from pydantic import Field, ValidationError, model_validator

from superswarm.consortium.documents import describe, dump_json, load_json
from superswarm.consortium.grant import RUN
from superswarm.consortium.manifest import Clause, DigestText, Name, VerifyingKeyText
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SIGNATURE_BYTES, SigningKey, VerifyingKey
from superswarm.crypto.stream import Prologue, read_up_to
from superswarm.errors import CannotOpen, Malformed, Untrusted
from superswarm.updates.slots import HpkeSlot, KeyContext, OtherSlot, ShareSlot, slot_faults
from superswarm.values import LIMITS, Digest, MemberId

MAGIC: Final = b"SSWRSLT\x01"
FORMAT: Final = "superswarm-result/1"
STREAM_AT: Final = len(MAGIC) + SIGNATURE_BYTES
BLOCK = 1 << 20  # bytes hashed at a time


class ResultHeader(Clause):
    """What anybody may read of a result: where it comes from, and who can get its key."""

    format: Literal["superswarm-result/1"] = FORMAT
    attestation: Literal["simulated", "real"]
    consortium: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    epoch: Annotated[int, Field(ge=1, lt=2**31)]
    manifest: DigestText
    job: Name
    run: Annotated[str, Field(pattern=rf"^{RUN.pattern}$")]
    rounds: Annotated[int, Field(ge=1, le=100_000)]
    container: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # random: names this container in its slots
    signer: VerifyingKeyText  # the aggregator's session key; believe it only if a node vouched for it
    approvals: Annotated[int, Field(ge=0, le=LIMITS.members)]  # contributors who must approve each release of the key
    key_slots: Annotated[tuple[HpkeSlot | ShareSlot | OtherSlot, ...], Field(strict=False, max_length=LIMITS.members)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if fault := slot_faults(self.approvals, self.key_slots):
            raise ValueError(fault)
        return self

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read the canonical JSON. Raises Malformed or TooLarge."""
        try:
            header = cls.model_validate(load_json(raw, "result's header"))
        except ValidationError as error:
            raise Malformed(f"the result's header has faults:\n{describe(error)}") from None
        try:
            canonical = header.to_json()
        except (rfc8785.CanonicalizationError, RecursionError):  # of what an unknown slot holds
            canonical = b""
        if canonical != raw:
            raise Malformed("the result's header is not in canonical form (RFC 8785)")
        return header

    def to_json(self) -> bytes:
        return dump_json(self.model_dump(mode="json"))

    @property
    def recipients(self) -> tuple[MemberId, ...]:
        """Members to whom the key is sealed."""
        return tuple(MemberId(slot.recipient) for slot in self.key_slots if isinstance(slot, HpkeSlot))

    @property
    def shares(self) -> tuple[ShareSlot, ...]:
        """The shares of the key, in the order of their numbers; none where no approval is needed."""
        return tuple(slot for slot in self.key_slots if isinstance(slot, ShareSlot))

    @property
    def tag(self) -> str:
        """What the aggregator's signature is made for."""
        return f"superswarm/v1/{self.attestation}/result"

    @property
    def context(self) -> KeyContext:
        """What this container's slots are bound to."""
        return KeyContext(
            attestation=self.attestation,
            manifest=Digest.parse(self.manifest),
            run=self.run,
            container=bytes.fromhex(self.container),
            approvals=self.approvals,
            shares=len(self.shares),
        )

    def open_key(self, member: MemberId, kem: KemKey) -> bytes:
        """The content key, from this member's slot. Raises CannotOpen where there is none, or for another key."""
        for slot in self.key_slots:
            if isinstance(slot, HpkeSlot) and slot.recipient == member:
                return self.context.open_key(slot, kem)
        if self.approvals:
            raise CannotOpen(f"{self.approvals} contributors must approve before this result opens for {member}")
        raise CannotOpen(f"the result is for {', '.join(self.recipients) or 'nobody by key'}, not for {member}")

    def share_of(self, member: str) -> ShareSlot:
        """A contributor's slot. Raises CannotOpen where it has none."""
        for slot in self.shares:
            if slot.contributor == member:
                return slot
        raise CannotOpen(f"{member[:32]!a} holds no share of this result's key")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultHead:
    """What stands before the ciphertext. Proves nothing until `check_signature`."""

    signature: bytes
    prologue: Prologue
    header: ResultHeader


def read_head(src: BinaryIO) -> ResultHead:
    """Parse the head of a container and leave `src` at the first chunk. Raises Malformed or TooLarge."""
    fixed = read_up_to(src, STREAM_AT)
    if len(fixed) != STREAM_AT or not fixed.startswith(MAGIC):
        raise Malformed("not a result of this version of superswarm")
    prologue = Prologue.read(src)
    return ResultHead(signature=fixed[len(MAGIC) :], prologue=prologue, header=ResultHeader.parse(prologue.header))


def sign_stream(src: BinaryIO, header: ResultHeader, key: SigningKey) -> bytes:
    """The aggregator's signature over the stream that `src` holds from here to its end."""
    return key.sign(header.tag, _digest(src).raw)


def check_signature(src: BinaryIO, head: ResultHead, expected_signer: VerifyingKey | None) -> Digest:
    """The stream's digest. Raises Untrusted for another signer than expected, BadSignature for any other stream.

    Reads all of `src`. Without `expected_signer` the signature shows that nothing was changed since whoever made it,
    not who that was.
    """
    signer = VerifyingKey.parse(head.header.signer)
    if expected_signer is not None and signer != expected_signer:
        raise Untrusted("the result is signed by another aggregator than the one that was vouched for")
    src.seek(STREAM_AT)
    digest = _digest(src)
    signer.verify(head.header.tag, digest.raw, head.signature)
    return digest


def _digest(src: BinaryIO) -> Digest:
    digest = hashlib.sha256()
    while block := src.read(BLOCK):
        digest.update(block)
    return Digest(digest.digest())
