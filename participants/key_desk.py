"""The node's desk for keys: takes trainers' letters to the broker, and the broker's answers back to them.

It decides nothing: the broker appraises and releases. The node signs the letters, by which a trainer knows an owner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from participants.mailbox import Mailbox
from superswarm.assets import release
from superswarm.assets.release import KeyGrant, KeyHello, KeyNonce, KeyRefusal, KeyRequest
from superswarm.attestation.evidence import SessionKeys
from superswarm.consortium.approval import ApprovedManifest
from superswarm.crypto.letter import Letter, check_letter, seal_letter
from superswarm.errors import Error, Malformed
from superswarm.io.keystore import MemberKeys
from superswarm.values import Digest, MemberId, Role
from superswarm.wire import Header, party


class BrokerApi(Protocol):
    """An owner's broker, in this process or another one of the owner's."""

    def challenge(self, manifest: Digest, member: MemberId, asset: bytes) -> bytes:
        """A nonce, 32 bytes, for a request of this member's trainer. Raises ReleaseRefused."""
        ...

    def release(self, manifest: Digest, member: MemberId, request: KeyRequest) -> bytes:
        """The key, sealed to the trainer's attested key; decided and logged before it returns.

        Raises ReleaseRefused, or whatever in the request does not hold.
        """
        ...


class KeyDesk:
    """Answers the letters that trainers write about keys."""

    def __init__(
        self, manifest: ApprovedManifest, keys: MemberKeys, broker: BrokerApi, notify: Callable[..., None]
    ) -> None:
        self._manifest, self._keys, self._broker, self._notify = manifest, keys, broker, notify
        self._me = party(Role.NODE, keys.member)
        self._written = 0

    def answer(self, mailbox: Mailbox) -> None:
        """Answer what waits in the mailbox from trainers. A letter that does not hold is told to the member."""
        for member in self._manifest.manifest.trainers:
            while (letter := mailbox.read(party(Role.TRAINER, member))) is not None:
                try:
                    mailbox.post(self._answer(letter, member))
                except Error as error:
                    self._notify("letter refused", error=error.code, why=str(error))

    def _answer(self, letter: Letter, member: MemberId) -> Letter:
        question, keys = self._open(letter)
        answer = self._ask(member, question)
        header = Header(
            manifest=self._manifest.digest,
            run=letter.header.run,
            round=0,
            sender=self._me,
            receiver=letter.header.sender,
            kind=answer.KIND,
            sequence=self._written,
        )
        self._written += 1
        return seal_letter(header, answer.to_bytes(), to=keys.kem, sender=self._keys.signing)

    def _open(self, letter: Letter) -> tuple[KeyHello | KeyRequest, SessionKeys]:
        """Read a letter, which must bear the signature of the session keys that it names; whose they are, the broker
        finds out.
        """
        if letter.header.manifest != self._manifest.digest:
            raise Malformed("a letter about keys of another manifest")
        text = letter.decrypt(self._keys.kem)
        match letter.header.kind:
            case release.HELLO:
                question: KeyHello | KeyRequest = KeyHello.parse(text)
            case release.REQUEST:
                question = KeyRequest.parse(text)
            case _:
                raise Malformed("a letter of a kind that a node does not take from a trainer")
        keys = SessionKeys.parse(question.keys)
        check_letter(letter, me=self._me, sender=keys.signing)
        return question, keys

    def _ask(self, member: MemberId, question: KeyHello | KeyRequest) -> KeyNonce | KeyGrant | KeyRefusal:
        manifest, nonce = self._manifest.digest, b""
        try:
            match question:
                case KeyHello():
                    fresh = self._broker.challenge(manifest, member, question.asset)
                    return KeyNonce(asset=question.asset, nonce=fresh)
                case KeyRequest():
                    nonce = question.nonce
                    sealed = self._broker.release(manifest, member, question)
                    self._notify("key released", member=member, attempt=question.attempt)
                    return KeyGrant(asset=question.asset, nonce=nonce, sealed=sealed)
        except Error as error:
            self._notify("key refused", member=member, error=error.code, why=str(error))
            return KeyRefusal(asset=question.asset, nonce=nonce, code=error.code)
