"""The trainer's side of the handshake: it shows evidence, and judges the aggregator before it talks to it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from superswarm.attestation.evidence import (
    NONCE_BYTES,
    Attester,
    Binding,
    Evidence,
    SessionKeys,
    combine_nonces,
)
from superswarm.attestation.handshake import (
    HANDSHAKE_TAG,
    Attempt,
    check_aggregator_vouches,
    check_trainer_vouch,
    judge_aggregator,
    open_attempt,
    pairing_proof,
    secret_info,
    signed_secret,
    transcript,
)
from superswarm.attestation.messages import Attest, Confirm, Confirmed, Hello, Here, Shown
from superswarm.attestation.nvidia.binding import attest_machine
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.grant import ApprovedGrant
from superswarm.crypto.channel import SECRET_BYTES, Channel
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey
from superswarm.errors import NotVouched
from superswarm.values import MemberId, Role
from superswarm.wire import party

AGGREGATOR = party(Role.AGGREGATOR)


@dataclass(slots=True)
class _Pending:
    """A handshake under way. Keys are fresh for it, so what vouches for them is fresh too."""

    attempt: Attempt
    grant: ApprovedGrant
    signed_grant: bytes
    aggregator: SessionKeys
    aggregator_nonce: bytes
    nonce: bytes
    keys: SessionKeys
    kem: KemKey = field(repr=False)
    signing: SigningKey = field(repr=False)
    binding: Binding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A judged aggregator, the channel to it, and this session's own keys with the vouch for them."""

    attempt: Attempt
    grant: ApprovedGrant
    channel: Channel
    time: int  # unix seconds, as the members signed it
    keys: SessionKeys
    kem: KemKey = field(repr=False)  # owners, peers and key holders seal to it
    signing: SigningKey = field(repr=False)
    vouch: bytes  # of the trainer's own member
    signed_grant: bytes


class Handshake:
    """One handshake at a time. A new hello begins anew; a channel that is open stays until another was judged."""

    def __init__(self, member: MemberId, manifest: ApprovedManifest, attester: Attester, pairing_key: bytes) -> None:
        self._member, self._manifest = member, manifest
        self._me = party(Role.TRAINER, member)
        self._attester, self._pairing_key = attester, pairing_key
        self._pending: _Pending | None = None

    def hello(self, hello: Hello) -> Here:
        attempt, grant = open_attempt(self._manifest, hello, None)
        kem, signing = KemKey.generate(), SigningKey.generate()
        keys = SessionKeys(kem=kem.public, signing=signing.public)
        nonce = secrets.token_bytes(NONCE_BYTES)
        peer = SessionKeys.parse(hello.keys)
        self._pending = _Pending(attempt, grant, hello.grant, peer, hello.nonce, nonce, keys, kem, signing)
        return Here(party=self._me, nonce=nonce, keys=keys.to_bytes())

    def attest(self, ask: Attest) -> Shown:
        pending = self._pending
        if pending is None or pending.binding is not None:
            raise NotVouched("no handshake is open")
        combined = combine_nonces([pending.aggregator_nonce, ask.node_nonce])
        blank = Evidence(self._attester.platform, b"")
        binding = pending.attempt.binding(Role.TRAINER, self._member, pending.keys, combined, blank)
        evidence, binding = attest_machine(self._attester, binding)
        pending.binding = binding
        return Shown(evidence=evidence.to_bytes(), pairing=pairing_proof(self._pairing_key, binding))

    def confirm(self, message: Confirm) -> tuple[Admitted, Confirmed]:
        """Judge the aggregator; only then make a channel to it. Raises what is wrong with it."""
        pending = self._pending
        if pending is None or pending.binding is None:
            raise NotVouched("no handshake is open")
        attempt, keys, mine = pending.attempt, pending.keys, pending.binding
        # (1) My own member vouches for my keys, and so says which epoch is current.
        check_trainer_vouch(attempt, message.trainer_vouch, self._member, keys, mine.nonce)
        # (2) A quorum vouches for the aggregator's keys, over my nonce; its clocks give the time.
        nonce = combine_nonces(list(message.nonces))
        at = check_aggregator_vouches(attempt, message.vouches, pending.aggregator, nonce)
        # (3) The run's grant holds at that time.
        pending.grant.check(at, attempt.number)
        # (4) The aggregator is the approved code on an approved platform, and answers my nonce.
        evidence = Evidence.parse(message.evidence)
        judge_aggregator(attempt, pending.aggregator, message.nonces, pending.nonce, evidence, at)
        # (5) It signed this transcript, and its secret opens under it.
        theirs = attempt.binding(Role.AGGREGATOR, None, pending.aggregator, nonce, evidence)
        agreed = transcript(attempt, theirs, mine)
        signed = signed_secret(agreed, AGGREGATOR, message.sealed_secret)
        pending.aggregator.signing.verify(HANDSHAKE_TAG, signed, message.signature)
        secret = pending.kem.open(message.sealed_secret, info=secret_info(agreed, AGGREGATOR))
        # (6) My secret goes to its key, signed.
        own = secrets.token_bytes(SECRET_BYTES)
        sealed = pending.aggregator.kem.seal(own, info=secret_info(agreed, self._me))
        channel = Channel(
            secrets=(secret, own),
            transcript=agreed,
            manifest=self._manifest.digest,
            run=attempt.run,
            me=self._me,
            peer=AGGREGATOR,
            last_round=pending.grant.grant.rounds + 1,
        )
        self._pending = None
        admitted = Admitted(
            attempt=attempt,
            grant=pending.grant,
            channel=channel,
            time=at,
            keys=keys,
            kem=pending.kem,
            signing=pending.signing,
            vouch=message.trainer_vouch,
            signed_grant=pending.signed_grant,
        )
        return admitted, Confirmed(
            sealed_secret=sealed,
            signature=pending.signing.sign(HANDSHAKE_TAG, signed_secret(agreed, self._me, sealed)),
            confirmation=channel.confirmation(self._me),
        )
