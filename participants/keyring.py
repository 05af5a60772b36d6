"""The keys of a job's sealed assets, asked of their owners: one challenge and one request for each.

Lives as long as a trainer's session. Letters travel by the aggregator, who cannot read them; an answer counts only
if its owner signed it, and a key opens only under this session's keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from participants.mailbox import Mailbox
from superswarm.assets import release
from superswarm.assets.release import (
    KeyContext,
    KeyGrant,
    KeyHello,
    KeyNonce,
    KeyRefusal,
    KeyRequest,
    open_key,
)
from superswarm.attestation.evidence import Attester, Evidence, SessionKeys, combine_nonces
from superswarm.attestation.handshake import Attempt
from superswarm.attestation.nvidia.binding import attest_machine
from superswarm.consortium.manifest import Asset
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.letter import Letter, open_letter, seal_letter
from superswarm.crypto.signing import SigningKey
from superswarm.errors import Error, Malformed, Unavailable
from superswarm.values import Digest, MemberId, Role
from superswarm.wire import Header, parse_party, party

Answer: TypeAlias = KeyNonce | KeyGrant | KeyRefusal
AGAIN_SECONDS = 30.0  # then a question that nobody answered is asked anew: a letter or a node may have been lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asks: a trainer's session, with what proves it to an owner."""

    attempt: Attempt
    member: MemberId
    keys: SessionKeys
    kem: KemKey = field(repr=False)
    signing: SigningKey = field(repr=False)
    vouch: bytes  # the member's, for these keys
    grant: bytes  # SignedGrant
    attester: Attester

    @property
    def me(self) -> str:
        return party(Role.TRAINER, self.member)


@dataclass(slots=True)
class _Lock:
    """One sealed asset: what was asked of its owner, and the key once it came."""

    asset: Asset
    asked: float | None = None  # monotonic seconds of the last question, a hello or a request
    nonce: bytes = b""  # the owner's challenge that was answered
    key: bytes | None = field(default=None, repr=False)

    @property
    def digest(self) -> Digest:
        return Digest.parse(self.asset.digest)

    @property
    def owner(self) -> str:
        return party(Role.NODE, MemberId(self.asset.owner))


class KeyRing:
    """Asks for the keys of these assets, and holds them until they are taken."""

    def __init__(self, asker: Asker, assets: tuple[Asset, ...], monotonic: Callable[[], float]) -> None:
        self._asker, self._monotonic = asker, monotonic
        self._locks = [_Lock(asset) for asset in assets]
        self._written = 0

    def advance(self, mailbox: Mailbox) -> list[Error]:
        """Take the answers that came, ask what is left to ask. Returns what was wrong with letters that do not count.

        Raises ReleaseRefused where an owner refuses, and NotATee or Environment where no evidence can be made.
        """
        faults = []
        for owner in sorted({lock.owner for lock in self._locks}):
            while (letter := mailbox.read(owner)) is not None:
                try:
                    answer = self._open(letter, owner)
                except Error as error:
                    faults.append(error)
                else:
                    self._take(owner, answer, mailbox)
        for lock in self._locks:
            overdue = lock.asked is None or self._monotonic() - lock.asked > AGAIN_SECONDS
            if lock.key is None and overdue:
                lock.asked, lock.nonce = self._monotonic(), b""
                self._post(lock, KeyHello(asset=lock.digest.raw, keys=self._asker.keys.to_bytes()), mailbox)
        return faults

    @property
    def complete(self) -> bool:
        """Whether all keys are here."""
        return all(lock.key is not None for lock in self._locks)

    def take(self) -> Mapping[str, bytes]:
        """The keys, by asset; they are not held any longer. Unavailable while one is missing."""
        missing = [lock.asset.name for lock in self._locks if lock.key is None]
        if missing:
            raise Unavailable(f"the keys of {', '.join(missing)} have not been released yet")
        keys = {lock.asset.name: lock.key for lock in self._locks if lock.key is not None}
        for lock in self._locks:
            lock.key, lock.asked = None, None
        return keys

    def _open(self, letter: Letter, owner: str) -> Answer:
        """What an owner's node writes: signed by the member, sealed to this session."""
        _, member = parse_party(owner)
        sender = self._asker.attempt.manifest.verifying_key(member or "")
        text = open_letter(letter, me=self._asker.me, key=self._asker.kem, sender=sender)
        match letter.header.kind:
            case release.NONCE:
                return KeyNonce.parse(text)
            case release.GRANT:
                return KeyGrant.parse(text)
            case release.REFUSAL:
                return KeyRefusal.parse(text)
            case _:
                raise Malformed("a letter of a kind that a trainer does not take")

    def _take(self, owner: str, answer: Answer, mailbox: Mailbox) -> None:
        """Act on an answer to what is open; one that came before, or answers nothing, changes nothing."""
        for lock in self._locks:
            if lock.owner != owner or lock.digest.raw != answer.asset or lock.asked is None or lock.key is not None:
                continue
            match answer:
                case KeyNonce() if not lock.nonce:
                    lock.nonce, lock.asked = answer.nonce, self._monotonic()
                    self._post(lock, self._request(lock), mailbox)
                case KeyGrant() if answer.nonce == lock.nonce:
                    lock.key = open_key(answer.sealed, self._asker.kem, self._context(lock))
                case KeyRefusal() if answer.nonce == lock.nonce:
                    raise answer.error(lock.asset.name)

    def _request(self, lock: _Lock) -> KeyRequest:
        """Show the owner fresh evidence over its challenge, for the keys that my member vouched for."""
        asker = self._asker
        blank = Evidence(asker.attester.platform, b"")
        nonce = combine_nonces([lock.nonce])
        binding = asker.attempt.binding(Role.TRAINER, asker.member, asker.keys, nonce, blank)
        evidence, _ = attest_machine(asker.attester, binding)
        return KeyRequest(
            asset=lock.digest.raw,
            nonce=lock.nonce,
            keys=asker.keys.to_bytes(),
            evidence=evidence.to_bytes(),
            vouch=asker.vouch,
            grant=asker.grant,
            attempt=asker.attempt.number,
        )

    def _context(self, lock: _Lock) -> KeyContext:
        attempt = self._asker.attempt
        return KeyContext(
            domain=attempt.manifest.domain,
            manifest=attempt.manifest.digest,
            run=attempt.run,
            attempt=attempt.number,
            asset=lock.digest,
            member=self._asker.member,
            session=self._asker.keys.digest,
            nonce=lock.nonce,
        )

    def _post(self, lock: _Lock, message: KeyHello | KeyRequest, mailbox: Mailbox) -> None:
        attempt = self._asker.attempt
        header = Header(
            manifest=attempt.manifest.digest,
            run=attempt.run,
            round=0,
            sender=self._asker.me,
            receiver=lock.owner,
            kind=message.KIND,
            sequence=self._written,
        )
        self._written += 1
        to = attempt.manifest.encryption_key(lock.asset.owner)
        mailbox.post(seal_letter(header, message.to_bytes(), to=to, sender=self._asker.signing))
