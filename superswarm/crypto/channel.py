"""The channel between the aggregator and one trainer, once both have attested (docs/protocol.md, "Channel").

Two 32-byte secrets, one from each side, and the hash of the handshake's transcript give a chain key. Each round has
its own link of the chain; a link gives one AES-256-GCM key a direction and is dropped when the next round begins, so
that a key taken later opens nothing earlier. The header is associated data; the sequence is the nonce.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from superswarm.errors import CannotOpen, Malformed, Replay
from superswarm.values import Digest
from superswarm.wire import Header, Parcel, pack, unpack

SECRET_BYTES = 32
TAG_BYTES = 16
LABEL = "superswarm/v1/channel"
HEAD, BODY = 0, 1  # first four bytes of a nonce: which part of a parcel


def _expand(key: bytes, *label: str | int) -> bytes:
    info = pack(LABEL, *label)
    return HKDFExpand(algorithm=hashes.SHA256(), length=32, info=info).derive(key)


@dataclass(slots=True)
class _Direction:
    """One direction in one round: its key, and the sequence number that comes next."""

    key: AESGCM = field(repr=False)
    next: int = 0


@dataclass(slots=True)
class _Link:
    """One round of the chain."""

    round: int
    chain: bytes = field(repr=False)
    sending: _Direction = field(repr=False)
    receiving: _Direction = field(repr=False)


class Channel:
    """One side of an attested channel. Rounds only go forward; each message is taken once, in order.

    `me` and `peer` are parties (`wire.party`). `last_round` bounds how far a message may move the chain.
    """

    def __init__(
        self,
        *,
        secrets: tuple[bytes, bytes],  # the aggregator's, the trainer's; 32 bytes each
        transcript: Digest,
        manifest: Digest,
        run: str,
        me: str,
        peer: str,
        last_round: int,
    ) -> None:
        if any(len(secret) != SECRET_BYTES for secret in secrets):
            raise Malformed(f"a handshake secret has {SECRET_BYTES} bytes")
        self.me, self.peer = me, peer
        self._manifest, self._run, self._last_round = manifest, run, last_round
        root = HKDF(algorithm=hashes.SHA256(), length=32, salt=transcript.raw, info=pack(LABEL, "root"))
        chain = root.derive(secrets[0] + secrets[1])
        self._confirm = _expand(chain, "confirm")
        self._link = self._make_link(0, _expand(chain, "chain"))

    def confirmation(self, party: str) -> bytes:
        """Proof that `party` derived these keys, 32 bytes (key confirmation)."""
        return _expand(self._confirm, party)

    def check_confirmation(self, proof: bytes) -> None:
        """Raise CannotOpen unless the peer derived the same keys."""
        if not hmac.compare_digest(proof, self.confirmation(self.peer)):
            raise CannotOpen("the peer's key confirmation does not hold")

    @property
    def round(self) -> int:
        """The round whose keys are held."""
        return self._link.round

    def seal(self, kind: str, round_: int, head: bytes, body: bytes | None = None) -> Parcel:
        """Seal a message for the peer; moving to a later round drops the keys of the earlier one."""
        if round_ < self._link.round:
            raise RuntimeError("seal() for a round that is over")
        self._link = self._link_of(round_)
        way = self._link.sending
        header = self._header(kind, round_, self.me, self.peer, way.next).to_bytes()
        way.next += 1
        parts = pack(int(body is not None), head)
        sealed = way.key.encrypt(_nonce(HEAD, way.next - 1), parts, header)
        ciphertext = way.key.encrypt(_nonce(BODY, way.next - 1), body, header) if body is not None else b""
        return Parcel(pack(header, sealed), ciphertext)

    def open(self, parcel: Parcel, kind: str, round_: int | None = None) -> tuple[bytes, bytes | None]:
        """Open the peer's message of this kind (and round, if given): its head, and its body if it sealed one.

        Raises Replay for what was taken before or belongs to an earlier round, CannotOpen for everything that is
        not the peer's next message, Malformed for what is no message at all. A failure changes nothing.
        """
        raw, sealed = unpack(parcel.head, bytes, bytes)
        header = Header.parse(raw)
        # (1) The header is what this side expects, and says nothing older than what was taken.
        expected = self._header(kind, header.round, self.peer, self.me, header.sequence)
        if header != expected or (round_ is not None and header.round > round_) or header.round > self._last_round:
            raise CannotOpen(f"not {self.peer}'s {kind} message of this round")
        if header.round < (self._link.round if round_ is None else round_):
            raise Replay("a message of an earlier round")
        link = self._link_of(header.round)
        if header.sequence < link.receiving.next:
            raise Replay("a message that was already taken")
        # (2) It opens under the round's key, header included.
        key = link.receiving.key
        try:
            flag, head = unpack(key.decrypt(_nonce(HEAD, header.sequence), sealed, raw), int, bytes)
            body = key.decrypt(_nonce(BODY, header.sequence), parcel.body, raw) if flag else None
        except InvalidTag:
            raise CannotOpen(f"{self.peer}'s {kind} message does not open") from None
        # (3) Only now does the state move.
        link.receiving.next = header.sequence + 1
        self._link = link
        return bytes(head), body

    def _header(self, kind: str, round_: int, sender: str, receiver: str, sequence: int) -> Header:
        return Header(
            manifest=self._manifest,
            run=self._run,
            round=round_,
            sender=sender,
            receiver=receiver,
            kind=kind,
            sequence=sequence,
        )

    def _link_of(self, round_: int) -> _Link:
        """The link of this round or a later one. Does not move the chain."""
        if round_ > self._last_round:
            raise RuntimeError("a round after the last")
        link = self._link
        if round_ == link.round:
            return link
        chain = link.chain
        for number in range(link.round, round_):
            chain = _expand(chain, "next", number)
        return self._make_link(round_, chain)

    def _make_link(self, round_: int, chain: bytes) -> _Link:
        def way(sender: str, receiver: str) -> _Direction:
            return _Direction(AESGCM(_expand(chain, "key", round_, sender, receiver)))

        return _Link(round_, chain, way(self.me, self.peer), way(self.peer, self.me))


def _nonce(part: int, sequence: int) -> bytes:
    return part.to_bytes(4, "big") + sequence.to_bytes(8, "big")


def seal_broadcast(plaintext: bytes, key: bytes, context: Header) -> bytes:
    """Encrypt once what all members of a round receive; `key` is fresh, 32 bytes, and wrapped for each of them."""
    return AESGCM(key).encrypt(_nonce(BODY, 0), plaintext, context.to_bytes())


def open_broadcast(sealed: bytes, key: bytes, context: Header) -> bytes:
    """Invert `seal_broadcast`; CannotOpen for another round's, run's or manifest's broadcast."""
    try:
        return AESGCM(key).decrypt(_nonce(BODY, 0), sealed, context.to_bytes())
    except (InvalidTag, ValueError):
        raise CannotOpen("the broadcast does not open under this round's key") from None
