"""The node: a member's own program, on its own premises, with the member's keys.

It judges the aggregator and its own trainer before it vouches for either, receives results, and carries no plaintext
of anybody's data, model or update. It only answers; it opens no port to the relay.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from participants.key_desk import BrokerApi, KeyDesk
from participants.mailbox import Mailbox
from superswarm.attestation.evidence import NONCE_BYTES, Evidence, SessionKeys, combine_nonces
from superswarm.attestation.handshake import Attempt, check_pairing, judge_aggregator, judge_trainer, open_attempt
from superswarm.attestation.messages import AskVouch, Hello, Here, Refused, Vouched
from superswarm.attestation.peers import Dossier, judge_peer
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.documents import load_json
from superswarm.consortium.vouch import sign_vouch
from superswarm.crypto.letter import Letter, open_letter
from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import Error, Malformed, NotVouched, OtherManifest
from superswarm.io.keystore import MemberKeys
from superswarm.values import LIMITS, Digest, Role
from superswarm.wire import Parcel, join, party, split

PENDING = 16  # challenges that may be open at once


class VouchRecord(Protocol):
    """What a node vouched for, durable across restarts."""

    def claim(self, run: str, attempt: int, session: Digest) -> None:
        """Record the one aggregator of a run attempt; SecondAggregator for another, or for an earlier attempt."""
        ...


class ResultStore(Protocol):
    """Where a node keeps the results it receives, still sealed."""

    def store(self, run: str, container: bytes, signer: VerifyingKey) -> object:
        """Check and keep a container; raises before anything half-written is visible."""
        ...


@dataclass(frozen=True, slots=True)
class _Challenge:
    """An open challenge to one aggregator."""

    attempt: Attempt
    keys: SessionKeys
    aggregator_nonce: bytes
    expires: float  # monotonic seconds


class Node:
    """One member's node. `handle` answers one message at a time and never raises our errors to the relay."""

    def __init__(
        self,
        *,
        manifest: ApprovedManifest,
        keys: MemberKeys,
        record: VouchRecord,
        results: ResultStore,
        broker: BrokerApi | None = None,
        now: Callable[[], int] = lambda: int(time.time()),
        monotonic: Callable[[], float] = time.monotonic,
        notify: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        if manifest.verifying_key(keys.member) != keys.signing.public:
            raise OtherManifest(f"the manifest gives {keys.member} another signing key than the one at hand")
        self.member, self.manifest = keys.member, manifest
        self.mailbox = Mailbox(party(Role.NODE, keys.member))
        self._keys, self._record, self._results = keys, record, results
        self._now, self._monotonic, self._notify = now, monotonic, notify
        self._desk = KeyDesk(manifest, keys, broker, notify) if broker is not None else None
        self._open: dict[bytes, _Challenge] = {}
        self._aggregator: tuple[str, VerifyingKey] | None = None  # run, and the session key vouched for last
        self._attempt: Attempt | None = None  # in which it was

    def handle(self, _relay_run: int, kind: str, parcel: Parcel) -> Parcel:
        """Answer one message; a refusal leaves as a fixed word and is told to the member in full."""
        try:
            match kind:
                case "hello":
                    return Parcel(self._hello(Hello.parse(parcel.head)).to_bytes())
                case "ask_vouch":
                    return Parcel(self._vouch(AskVouch.parse(parcel.head)).to_bytes())
                case "mail":
                    return self._mail(parcel)
                case "result":
                    return self._result(parcel)
                case _:
                    raise Malformed("a message of a kind that a node does not take")
        except Error as error:
            self._notify("refused", kind=kind, error=error.code, why=str(error))
            return Parcel(Refused(code=error.code).to_bytes())

    def _hello(self, hello: Hello) -> Here:
        attempt, _ = open_attempt(self.manifest, hello, self._now())
        at = self._monotonic()
        self._open = {n: c for n, c in self._open.items() if c.expires > at}
        if len(self._open) >= PENDING:
            raise NotVouched(f"{PENDING} handshakes are already under way")
        nonce = secrets.token_bytes(NONCE_BYTES)
        keys = SessionKeys.parse(hello.keys)
        self._open[nonce] = _Challenge(attempt, keys, hello.nonce, at + LIMITS.nonce_seconds)
        return Here(party=party(Role.NODE, self.member), nonce=nonce, keys=b"")

    def _vouch(self, ask: AskVouch) -> Vouched:
        """Judge, record, then vouch."""
        # (1) The aggregator answers a challenge of mine, which serves once and expires.
        mine = next((nonce for nonce in ask.nonces if nonce in self._open), None)
        challenge = self._open.pop(mine) if mine is not None else None
        if mine is None or challenge is None or challenge.expires <= self._monotonic():
            raise NotVouched("the aggregator's evidence answers no open challenge of this node")
        attempt, at = challenge.attempt, self._now()
        # (2) It is the approved code on an approved platform, and these are its keys.
        judge_aggregator(attempt, challenge.keys, ask.nonces, mine, Evidence.parse(ask.evidence), at)
        # (3) It is the only aggregator of this attempt that I ever vouch for; durable before I answer.
        self._record.claim(attempt.run, attempt.number, challenge.keys.digest)
        self._aggregator, self._attempt = (attempt.run, challenge.keys.signing), attempt
        # (4) I vouch for my own trainer only if it holds up too; the aggregator does not answer for it.
        trainer = self._vouch_for_trainer(ask, challenge, mine, at) if ask.trainer_evidence else b""
        self._notify("vouched", run=attempt.run, attempt=attempt.number, trainer=bool(trainer))
        nonce = combine_nonces(list(ask.nonces))
        vouch = attempt.vouch(Role.AGGREGATOR, None, self.member, challenge.keys.digest, nonce, at)
        return Vouched(
            aggregator=sign_vouch(self._keys.signing, vouch, self.manifest.domain),
            trainer=trainer,
        )

    def _vouch_for_trainer(self, ask: AskVouch, challenge: _Challenge, mine: bytes, at: int) -> bytes:
        """The vouch for my own trainer, or nothing, with the reason told to the member."""
        try:
            return self._judge_own_trainer(ask, challenge, mine, at)
        except Error as error:
            self._notify("trainer refused", error=error.code, why=str(error))
            return b""

    def _judge_own_trainer(self, ask: AskVouch, challenge: _Challenge, mine: bytes, at: int) -> bytes:
        keys, nonces = SessionKeys.parse(ask.trainer_keys), [challenge.aggregator_nonce, mine]
        attempt, evidence, nonce = challenge.attempt, Evidence.parse(ask.trainer_evidence), combine_nonces(nonces)
        # (1) The member started it: it holds the pairing key.
        binding = attempt.binding(Role.TRAINER, self.member, keys, nonce, evidence)
        check_pairing(self._keys.pairing, binding, ask.pairing)
        # (2) It is the approved code on an approved platform.
        judge_trainer(attempt, self.member, keys, nonces, evidence, at)
        vouch = attempt.vouch(Role.TRAINER, self.member, self.member, keys.digest, nonce, at)
        return sign_vouch(self._keys.signing, vouch, self.manifest.domain)

    def _mail(self, parcel: Parcel) -> Parcel:
        for error in self.mailbox.deliver(split(parcel.head)):
            self._notify("letter refused", error=error.code, why=str(error))
        while (letter := self.mailbox.read(str(Role.AGGREGATOR))) is not None:
            self._read(letter)
        if self._desk is not None:
            self._desk.answer(self.mailbox)
        return Parcel(join(self.mailbox.collect()))

    def _read(self, letter: Letter) -> None:
        """Read a letter of the aggregator. Those of other members wait in the mailbox for whoever deals with them."""
        try:
            if self._aggregator is None:
                raise NotVouched("a letter from an aggregator that this node did not vouch for")
            text = open_letter(letter, me=self.mailbox.me, key=self._keys.kem, sender=self._aggregator[1])
            self.mailbox.accept(letter)
            news = load_json(text, "aggregator's letter")
            self._notify(letter.header.kind, run=letter.header.run, round=letter.header.round, metrics=news)
        except Error as error:
            self._notify("letter refused", error=error.code, why=str(error))

    def _result(self, parcel: Parcel) -> Parcel:
        if self._aggregator is None:
            raise NotVouched("a result from an aggregator that this node did not vouch for")
        run, signer = self._aggregator
        if self.manifest.manifest.protection.mode == "he":
            signer = self._maker(parcel.head)
        self._results.store(run, parcel.body, signer)
        self._notify("result received", run=run, bytes=len(parcel.body))
        return Parcel(b"stored")

    def _maker(self, shown: bytes) -> VerifyingKey:
        """The key of the trainer that made the result, which the aggregator cannot: judged as its peers judge it."""
        if self._attempt is None:
            raise NotVouched("a result of a run that this node did not vouch in")
        return judge_peer(self._attempt, Dossier.parse(shown), self._now()).keys.signing
