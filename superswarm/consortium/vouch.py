"""Vouches: a member's word that a session's keys speak for its trainer or server, or that it accepts this aggregator.

Approved code on approved hardware is public: anybody can boot it and claim a name. The vouch ties the keys of one
session to one member, run and attempt. It also tells a TEE, which has no memory and no clock of its own, the current
epoch and the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.grant import RUN
from superswarm.crypto.signing import SIGNATURE_BYTES, SigningKey
from superswarm.errors import BadSignature, Malformed, NotVouched
from superswarm.values import MEMBER_ID, Digest, MemberId, Role
from superswarm.wire import pack, unpack

NONCE_BYTES = 32
VOUCH_BYTES = 4096  # a vouch with its signature is shorter


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouch:
    """What a member signs for one session. `subject` is the member whose TEE it is; None for the aggregator's."""

    manifest: Digest
    consortium: str
    epoch: int
    run: str
    attempt: int  # from 1; 0 for a server, which serves what any attempt has made
    role: Role  # TRAINER, SERVER or AGGREGATOR
    subject: MemberId | None
    voucher: MemberId
    session: Digest  # SessionKeys.digest
    nonce: bytes  # 32 bytes, of whoever will rely on this vouch
    time: int  # unix seconds, by the voucher's clock

    def __post_init__(self) -> None:
        if self.role not in (Role.TRAINER, Role.SERVER, Role.AGGREGATOR) or (self.subject is None) != (
            self.role is Role.AGGREGATOR
        ):
            raise Malformed("a vouch is for a member's trainer or server, or for the aggregator")
        if not all(MEMBER_ID.fullmatch(m) for m in (self.voucher, self.subject or self.voucher)):
            raise Malformed("a vouch names something that is not a member")
        if not RUN.fullmatch(self.run) or len(self.nonce) != NONCE_BYTES:
            raise Malformed(f"a vouch has a run's name and a nonce of {NONCE_BYTES} bytes")

    def to_bytes(self) -> bytes:
        """The canonical bytes that the voucher signs."""
        return pack(
            self.manifest.raw,
            self.consortium,
            self.epoch,
            self.run,
            self.attempt,
            str(self.role),
            self.subject or "",
            self.voucher,
            self.session.raw,
            self.nonce,
            self.time,
        )

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Invert `to_bytes`. Proves nothing."""
        fields = unpack(raw, bytes, str, int, str, int, str, str, str, bytes, bytes, int, limit=VOUCH_BYTES)
        match fields:
            case [
                bytes(manifest),
                str(consortium),
                int(epoch),
                str(run),
                int(attempt),
                str(role),
                str(subject),
                str(voucher),
                bytes(session),
                bytes(nonce),
                int(time),
            ] if role in list(Role):
                return cls(
                    manifest=Digest(manifest),
                    consortium=consortium,
                    epoch=epoch,
                    run=run,
                    attempt=attempt,
                    role=Role(role),
                    subject=MemberId(subject) if subject else None,
                    voucher=MemberId(voucher),
                    session=Digest(session),
                    nonce=nonce,
                    time=time,
                )
            case _:
                raise Malformed("a vouch does not have the expected fields")


def sign_vouch(key: SigningKey, vouch: Vouch, domain: str) -> bytes:
    """The vouch with its signature, as it travels; `domain` is the manifest's."""
    body = vouch.to_bytes()
    return pack(body, key.sign(f"{domain}/vouch", body))


def check_vouch(raw: bytes, manifest: ApprovedManifest) -> Vouch:
    """Check who speaks and under which manifest. Raises Malformed, NotVouched or BadSignature.

    Whoever relies on it compares what it vouches for: run, attempt, role, subject, session, nonce and time.
    """
    body, signature = _split(raw)
    vouch = Vouch.parse(body)
    # (1) It is given under this manifest.
    if (vouch.manifest, vouch.consortium, vouch.epoch) != (
        manifest.digest,
        manifest.manifest.consortium,
        manifest.manifest.epoch,
    ):
        raise NotVouched(f"the vouch of {vouch.voucher} is given under another manifest")
    # (2) A member speaks, and of trainers and servers only for its own.
    if manifest.manifest.member(vouch.voucher) is None:
        raise NotVouched(f"{vouch.voucher} vouches, but is not a member")
    if vouch.subject not in (None, vouch.voucher):
        raise NotVouched(f"{vouch.voucher} vouches for the {vouch.role} of {vouch.subject}")
    # (3) The signature is the member's.
    try:
        manifest.verifying_key(vouch.voucher).verify(f"{manifest.domain}/vouch", body, signature)
    except BadSignature:
        raise BadSignature(f"the signature of {vouch.voucher} does not hold for this vouch") from None
    return vouch


def _split(raw: bytes) -> tuple[bytes, bytes]:
    match unpack(raw, bytes, bytes, limit=VOUCH_BYTES + SIGNATURE_BYTES):
        case [bytes(body), bytes(signature)]:
            return body, signature
        case _:
            raise Malformed("a vouch does not have the expected fields")
