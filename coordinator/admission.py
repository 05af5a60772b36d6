"""Admission: the aggregator's side of the handshake (docs/protocol.md, "Handshake").

It challenges whoever is connected, shows its own evidence to nodes and trainers at once, and opens a channel to each
trainer whose evidence and vouch hold. Peers that fail are left out, and named with a fixed word.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from coordinator.exchange import PeerRefused, Timing, accepted, exchange
from coordinator.mailroom import Mailroom, Outgoing
from superswarm.attestation.evidence import NONCE_BYTES, Attester, Binding, Evidence, SessionKeys, combine_nonces
from superswarm.attestation.handshake import (
    HANDSHAKE_TAG,
    Attempt,
    check_aggregator_vouch,
    check_aggregator_vouches,
    check_trainer_vouch,
    judge_trainer,
    secret_info,
    signed_secret,
    transcript,
)
from superswarm.attestation.messages import (
    AskVouch,
    Attest,
    Confirm,
    Confirmed,
    Hello,
    Here,
    Message,
    Shown,
    Vouched,
)
from superswarm.attestation.nvidia.binding import attest_machine
from superswarm.attestation.peers import Dossier
from superswarm.consortium.grant import ApprovedGrant
from superswarm.crypto.channel import SECRET_BYTES, Channel
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.signing import SigningKey
from superswarm.errors import CannotOpen, Error, NotVouched, RefusedByMembers, Unavailable
from superswarm.values import LIMITS, Digest, MemberId, Role
from superswarm.wire import Parcel, parse_party, party

AGGREGATOR = party(Role.AGGREGATOR)
M = TypeVar("M", bound=Message)
FINAL = frozenset({"SecondAggregator", "NoGrant", "OtherManifest", "VersionMismatch", "UnapprovedMeasurement"})
"""Refusals that no waiting mends."""


@dataclass(frozen=True, slots=True)
class Session:
    """An attested, vouched-for trainer, the channel to it, and what shows other trainers that it is one."""

    member: MemberId
    peer: int
    channel: Channel
    keys: SessionKeys
    dossier: Dossier


@dataclass(frozen=True, slots=True)
class Admitted:
    """What an admission yields: sessions, the members' nodes, and the time that a quorum signed (unix seconds)."""

    sessions: tuple[Session, ...]
    nodes: Mapping[MemberId, int]
    signed_time: int


@dataclass(frozen=True, slots=True)
class _Trainer:
    """A trainer on its way through the handshake."""

    member: MemberId
    peer: int
    nonce: bytes
    keys: SessionKeys
    evidence: Evidence | None = None
    pairing: bytes = b""
    vouch: bytes = b""

    def dossier(self, nonces: list[bytes]) -> Dossier:
        """What other trainers judge it by."""
        evidence = self.evidence.to_bytes() if self.evidence is not None else b""
        return Dossier(
            member=self.member, keys=self.keys.to_bytes(), nonces=tuple(nonces), evidence=evidence, vouch=self.vouch
        )


@dataclass(slots=True)
class _Node:
    """A member's node, and its challenge."""

    member: MemberId
    peer: int
    nonce: bytes
    vouch: bytes = b""


@dataclass(slots=True)
class Admission:
    """The aggregator's identity in one run attempt, and the admission of peers to it.

    The session keys live as long as the attempt; each admission answers fresh challenges with fresh evidence.
    """

    attempt: Attempt
    grant: ApprovedGrant
    grant_bytes: bytes
    attester: Attester
    mailroom: Mailroom
    timing: Timing
    notify: Callable[..., None]
    patience: float = LIMITS.handshake_seconds  # seconds that one step may take
    kem: KemKey = field(default_factory=KemKey.generate, repr=False)
    signing: SigningKey = field(default_factory=SigningKey.generate, repr=False)
    _failed: set[int] = field(default_factory=set)  # peers that failed before: asked last
    _refusals: dict[int, str] = field(default_factory=dict)  # peers that refused in this admission, and their words

    @property
    def keys(self) -> SessionKeys:
        return SessionKeys(kem=self.kem.public, signing=self.signing.public)

    def admit(self, peers: Iterable[int]) -> Admitted:
        """Shake hands with these peers. Raises NotVouched where no quorum of nodes vouches for this aggregator."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._refusals.clear()
        # (1) Who is there, with which challenges?
        trainers, nodes = self._greet(peers, nonce)
        if not nodes:
            self._raise_if_hopeless()
            raise Unavailable("no member's node is connected")
        trainers = {member: trainer for member, trainer in trainers.items() if member in nodes}
        # (2) Trainers show evidence over my challenge and their own node's.
        trainers = self._ask_evidence(trainers, nodes)
        # (3) I show mine over everybody's; each node judges both, and vouches.
        nonces = (*(t.nonce for t in trainers.values()), *(n.nonce for n in nodes.values()))
        combined = combine_nonces(list(nonces))
        evidence, mine = self._show(combined)
        trainers = self._ask_vouches(trainers, nodes, nonces, evidence)
        vouches = self._valid_vouches(nodes, combined)
        if not vouches:
            self._raise_if_hopeless()
        at = check_aggregator_vouches(self.attempt, list(vouches.values()), self.keys, combined)
        self.grant.check(at, self.attempt.number)
        # (4) I judge each trainer's evidence and vouch at the members' time, and open a channel to it.
        confirm = Confirm(
            nonces=nonces,
            evidence=evidence.to_bytes(),
            vouches=tuple(vouches.values()),
            trainer_vouch=b"",
            sealed_secret=b"",
            signature=b"",
        )
        sessions = self._confirm(trainers, nodes, nonce, confirm, mine, at)
        return Admitted(tuple(sessions), {m: n.peer for m, n in nodes.items() if m in vouches}, at)

    def _raise_if_hopeless(self) -> None:
        """Raise RefusedByMembers where all who answered refuse for good. A lying relay gains what it has: no run."""
        words = {word.partition(":")[0] for word in self._refusals.values()}
        if words and words <= FINAL:
            raise RefusedByMembers(f"every member that answers refuses this run: {', '.join(sorted(words))}")

    def _greet(self, peers: Iterable[int], nonce: bytes) -> tuple[dict[MemberId, _Trainer], dict[MemberId, _Node]]:
        hello = Hello(
            manifest=self.attempt.manifest.digest.raw,
            epoch=self.attempt.manifest.manifest.epoch,
            grant=self.grant_bytes,
            run=self.attempt.run,
            attempt=self.attempt.number,
            keys=self.keys.to_bytes(),
            nonce=nonce,
        )
        trainers: dict[MemberId, _Trainer] = {}
        nodes: dict[MemberId, _Node] = {}

        def take(peer: int, here: Here) -> None:
            role, member = parse_party(here.party)
            if member is None or self.attempt.manifest.manifest.member(member) is None:
                raise NotVouched("a peer that names no member")
            if role is Role.NODE:
                nodes.setdefault(member, _Node(member, peer, here.nonce))
            elif member in self.attempt.manifest.manifest.trainers:
                keys = SessionKeys.parse(here.keys)
                trainers.setdefault(member, _Trainer(member, peer, here.nonce, keys))

        # Of two peers that claim one name the first to answer is heard; one that failed before is asked after it.
        for some in (sorted(set(peers) - self._failed), sorted(set(peers) & self._failed)):
            self._ask(dict.fromkeys(some, hello), Here, take)
        return trainers, nodes

    def _ask_evidence(
        self, trainers: dict[MemberId, _Trainer], nodes: dict[MemberId, _Node]
    ) -> dict[MemberId, _Trainer]:
        by_peer = {t.peer: t for t in trainers.values()}
        shown: dict[MemberId, _Trainer] = {}

        def take(peer: int, reply: Shown) -> None:
            trainer = by_peer[peer]
            shown[trainer.member] = replace(trainer, evidence=Evidence.parse(reply.evidence), pairing=reply.pairing)

        ask = {t.peer: Attest(node_nonce=nodes[t.member].nonce) for t in trainers.values()}
        self._ask(ask, Shown, take)
        return shown

    def _show(self, combined: bytes) -> tuple[Evidence, Binding]:
        blank = Evidence(self.attester.platform, b"")
        mine = self.attempt.binding(Role.AGGREGATOR, None, self.keys, combined, blank)
        return attest_machine(self.attester, mine)

    def _ask_vouches(
        self,
        trainers: dict[MemberId, _Trainer],
        nodes: dict[MemberId, _Node],
        nonces: tuple[bytes, ...],
        evidence: Evidence,
    ) -> dict[MemberId, _Trainer]:
        by_peer = {n.peer: n for n in nodes.values()}
        vouched: dict[MemberId, _Trainer] = {}

        def ask(node: _Node) -> AskVouch:
            trainer = trainers.get(node.member)
            shown = trainer.evidence if trainer is not None else None
            return AskVouch(
                nonces=nonces,
                evidence=evidence.to_bytes(),
                trainer_keys=trainer.keys.to_bytes() if trainer is not None else b"",
                trainer_evidence=shown.to_bytes() if shown is not None else b"",
                pairing=trainer.pairing if trainer is not None else b"",
            )

        def take(peer: int, reply: Vouched) -> None:
            node = by_peer[peer]
            node.vouch = reply.aggregator
            if node.member in trainers:
                vouched[node.member] = replace(trainers[node.member], vouch=reply.trainer)

        self._ask({node.peer: ask(node) for node in nodes.values()}, Vouched, take)
        return vouched

    def _valid_vouches(self, nodes: dict[MemberId, _Node], combined: bytes) -> dict[MemberId, bytes]:
        """The vouches that are what they must be; a bad one is left out and does not spoil the others'."""
        valid: dict[MemberId, bytes] = {}
        for node in nodes.values():
            if node.vouch:
                with self._leaving_out(node.peer):
                    vouch = check_aggregator_vouch(self.attempt, node.vouch, self.keys, combined)
                    if vouch.voucher != node.member:
                        raise NotVouched("a vouch of another member")
                    valid[node.member] = node.vouch
        return valid

    def _confirm(
        self,
        trainers: dict[MemberId, _Trainer],
        nodes: dict[MemberId, _Node],
        nonce: bytes,
        shared: Confirm,
        mine: Binding,
        at: int,
    ) -> list[Session]:
        half_open: dict[int, tuple[_Trainer, Binding, bytes]] = {}
        nonces = {t.peer: [nonce, nodes[t.member].nonce] for t in trainers.values()}
        asks: dict[int, Confirm] = {}
        for trainer in trainers.values():
            with self._leaving_out(trainer.peer):
                theirs = self._judge(trainer, nonces[trainer.peer], at)
                agreed = transcript(self.attempt, mine, theirs)
                secret = secrets.token_bytes(SECRET_BYTES)
                sealed = trainer.keys.kem.seal(secret, info=secret_info(agreed, AGGREGATOR))
                half_open[trainer.peer] = trainer, theirs, secret
                asks[trainer.peer] = replace(
                    shared,
                    trainer_vouch=trainer.vouch,
                    sealed_secret=sealed,
                    signature=self.signing.sign(HANDSHAKE_TAG, signed_secret(agreed, AGGREGATOR, sealed)),
                )
        sessions: list[Session] = []

        def take(peer: int, reply: Confirmed) -> None:
            trainer, theirs, secret = half_open[peer]
            channel = self._open(trainer, transcript(self.attempt, mine, theirs), secret, reply)
            sessions.append(Session(trainer.member, peer, channel, trainer.keys, trainer.dossier(nonces[peer])))

        self._ask(asks, Confirmed, take)
        return sessions

    def _judge(self, trainer: _Trainer, nonces: list[bytes], at: int) -> Binding:
        """Judge a trainer: its member vouches for these keys, and its evidence holds at the members' time."""
        if trainer.evidence is None:
            raise NotVouched(f"{trainer.member}'s trainer shows no evidence")
        combined = combine_nonces(nonces)
        check_trainer_vouch(self.attempt, trainer.vouch, trainer.member, trainer.keys, combined)
        judge_trainer(self.attempt, trainer.member, trainer.keys, nonces, trainer.evidence, at)
        return self.attempt.binding(Role.TRAINER, trainer.member, trainer.keys, combined, trainer.evidence)

    def _open(self, trainer: _Trainer, agreed: Digest, secret: bytes, reply: Confirmed) -> Channel:
        """Check the trainer's half of the key exchange, and make the channel."""
        me = party(Role.TRAINER, trainer.member)
        signed = signed_secret(agreed, me, reply.sealed_secret)
        trainer.keys.signing.verify(HANDSHAKE_TAG, signed, reply.signature)
        theirs = self.kem.open(reply.sealed_secret, info=secret_info(agreed, me))
        if len(theirs) != SECRET_BYTES:
            raise CannotOpen("the trainer's secret has the wrong length")
        channel = Channel(
            secrets=(secret, theirs),
            transcript=agreed,
            manifest=self.attempt.manifest.digest,
            run=self.attempt.run,
            me=AGGREGATOR,
            peer=me,
            last_round=self.grant.grant.rounds + 1,
        )
        channel.check_confirmation(reply.confirmation)
        return channel

    def _ask(self, asks: Mapping[int, Message], kind: type[M], take: Callable[[int, M], None]) -> None:
        """Send each peer its message, and take the answers; a peer that fails or is silent is left out."""

        def each(peer: int, parcel: Parcel | None) -> None:
            with self._leaving_out(peer):
                take(peer, kind.parse(accepted(parcel).head))

        outgoing = [Outgoing(peer, ask.KIND, Parcel(ask.to_bytes())) for peer, ask in asks.items()]
        silent = exchange(self.mailroom, outgoing, self.patience, each, timing=self.timing)
        for peer in silent:
            self._leave_out(peer, Unavailable("no answer in time"))

    @contextmanager
    def _leaving_out(self, peer: int) -> Iterator[None]:
        """Our errors leave this peer out; the others go on."""
        try:
            yield
        except Error as error:
            self._leave_out(peer, error)

    def _leave_out(self, peer: int, error: Error) -> None:
        self._failed.add(peer)
        if isinstance(error, PeerRefused):
            self._refusals[peer] = error.refusal
        self.notify("left out", peer=peer, error=error.code, why=str(error))
