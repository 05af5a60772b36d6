"""Links: a secret between each two neighbours, and one among all trainers, made once a roster.

The earlier of two neighbours on the circle seals a random secret to the attested session key of the later one, under
the hybrid KEM, and signs all that it seals with its own attested key: this takes the place of the Diffie-Hellman keys
of Bonawitz et al. (CCS 2017) with a post-quantum agreement that costs one encapsulation a pair and roster, none a
round. A link steps on with each round and forgets, so that what is taken from a TEE later opens no earlier round.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from superswarm.attestation.appraise import TrainerKey
from superswarm.crypto.hpke import KemKey
from superswarm.crypto.kdf import KEY_BYTES, derive
from superswarm.crypto.signing import SigningKey
from superswarm.errors import CannotOpen, Malformed, Replay, Untrusted
from superswarm.updates.secure.graph import Graph
from superswarm.updates.secure.messages import Acquaint, Introduction, Passed
from superswarm.updates.secure.roster import Terms
from superswarm.values import Digest, MemberId
from superswarm.wire import pack

LABEL: Final = "superswarm/v1/link"
NONCE: Final = bytes(12)  # each key below seals one message


def needed(graph: Graph, member: MemberId) -> tuple[MemberId, ...]:
    """Whose keys this member must have judged: its neighbours, the witnesses; for the leader, everybody's."""
    if member == graph.leader:
        return tuple(other for other in graph.circle if other != member)
    wanted = {*graph.neighbours(member), *graph.witnesses}
    return tuple(other for other in graph.circle if other in wanted and other != member)


def recipients(graph: Graph, member: MemberId) -> tuple[MemberId, ...]:
    """To whom this member seals a secret: neighbours after it; for the leader, everybody."""
    others = graph.circle if member == graph.leader else graph.neighbours(member)
    return tuple(other for other in others if other != member and graph.first(member, other))


def senders(graph: Graph, member: MemberId) -> tuple[MemberId, ...]:
    """Who seals a secret to this member: neighbours before it, and the leader."""
    before = {other for other in graph.neighbours(member) if graph.first(other, member)} | {graph.leader}
    return tuple(other for other in graph.circle if other in before and other != member)


class Link:
    """A secret between two neighbours: one key for each round, purpose and direction. Goes forward only."""

    __slots__ = ("_chain", "_round")

    def __init__(self, secret: bytes, roster: Digest) -> None:
        self._round, self._chain = 0, derive(secret, f"{LABEL}/chain", roster.raw)

    def advance(self, round_: int) -> None:
        """Move to a later round and forget the earlier ones."""
        if round_ < self._round:
            raise RuntimeError("a link does not go back")
        while self._round < round_:
            self._round, self._chain = self._round + 1, derive(self._chain, f"{LABEL}/next", pack(self._round))

    def key(self, purpose: str, sender: MemberId, receiver: MemberId) -> bytes:
        return derive(self._chain, f"{LABEL}/{purpose}", pack(self._round, sender, receiver))

    def seal(self, purpose: str, sender: MemberId, receiver: MemberId, plaintext: bytes) -> bytes:
        """Encrypt the one message of this purpose and direction in this round."""
        return AESGCM(self.key(purpose, sender, receiver)).encrypt(NONCE, plaintext, None)

    def open(self, purpose: str, sender: MemberId, receiver: MemberId, sealed: bytes) -> bytes:
        """Invert `seal`: it opens in its round, for its purpose, from its sender only. Raises CannotOpen."""
        try:
            return AESGCM(self.key(purpose, sender, receiver)).decrypt(NONCE, sealed, None)
        except (InvalidTag, ValueError):
            raise CannotOpen(f"what {sender} sealed to {receiver} does not open in this round") from None


@dataclass(slots=True)
class Standing:
    """A member's place in a roster once it is acquainted: links to its neighbours, and the trainers' secret."""

    terms: Terms
    me: MemberId
    signing: SigningKey = field(repr=False)
    peers: Mapping[MemberId, TrainerKey]  # judged: at least `needed`
    links: Mapping[MemberId, Link] = field(repr=False)
    group: bytes = field(repr=False)  # 32 bytes that only trainers have
    last: int = 0  # the newest round that was begun

    def begin(self, round_: int) -> None:
        """Begin a round, once: a mask or a seed of an earlier one never comes again."""
        if round_ <= self.last:
            raise Replay(f"round {round_} was begun before under this roster")
        self.last = round_
        for link in self.links.values():
            link.advance(round_)


class Acquaintance:
    """One trainer's side of making links under one roster: `introduce`, then `acquaint`."""

    def __init__(
        self, terms: Terms, me: MemberId, kem: KemKey, signing: SigningKey, peers: Mapping[MemberId, TrainerKey]
    ) -> None:
        self.terms, self.me = terms, me
        self._kem, self._signing, self._peers = kem, signing, peers
        graph = terms.graph
        # (1) The roster gives me my keys.
        if me not in terms.roster.members:
            raise Untrusted("the roster does not list this trainer")
        # (2) All that I deal with were judged, under this manifest, and the roster gives them the judged keys.
        for other in needed(graph, me):
            peer = peers.get(other)
            if peer is None or peer.member != other or peer.manifest != terms.roster.manifest:
                raise Untrusted(f"{other} is in the roster and was not judged")
            if peer.keys.digest != terms.roster.keys_of(other):
                raise Untrusted(f"the roster gives {other} other keys than those judged")
        self._own = {
            other: secrets.token_bytes(KEY_BYTES) for other in graph.neighbours(me) if graph.first(me, other)
        }
        self._group = secrets.token_bytes(KEY_BYTES) if me == graph.leader else None

    def introduce(self) -> Introduction:
        """Seal each later neighbour its link, and as the leader everybody the trainers' secret."""
        roster = self.terms.roster.digest
        sealed = tuple(
            self._peers[other].keys.kem.seal(
                self._own.get(other, b"") + (self._group or b""), info=_info(roster, self.me, other)
            )
            for other in recipients(self.terms.graph, self.me)
        )
        return Introduction(
            sealed=sealed, signature=self._signing.sign(LABEL, _signed(roster, self.me, _digests(sealed)))
        )

    def acquaint(self, message: Acquaint) -> Standing:
        """Open what others sealed to me, each under its sender's signature."""
        graph = self.terms.graph
        from_whom = senders(graph, self.me)
        if len(message.passed) != len(from_whom):
            raise Malformed("not one secret of each sender")
        links, group = {other: Link(own, self.terms.roster.digest) for other, own in self._own.items()}, self._group
        for other, raw in zip(from_whom, message.passed, strict=True):
            link, found = self._open(other, Passed.parse(raw))
            if link:
                links[other] = Link(link, self.terms.roster.digest)
            group = found or group
        if group is None or links.keys() != set(graph.neighbours(self.me)):
            raise RuntimeError("a trainer lacks links or the trainers' secret")
        return Standing(self.terms, self.me, self._signing, self._peers, links, group)

    def _open(self, other: MemberId, passed: Passed) -> tuple[bytes, bytes]:
        """The link and the trainers' secret that a sender sealed to me; empty where it does not send one."""
        graph, roster = self.terms.graph, self.terms.roster.digest
        position = recipients(graph, other).index(self.me)
        # (1) Its sender signed it, among all that it sealed.
        if passed.digests[position : position + 1] != (Digest.of(passed.sealed).raw,):
            raise Untrusted(f"{other} did not sign what came as its secret")
        self._peers[other].keys.signing.verify(LABEL, _signed(roster, other, passed.digests), passed.signature)
        # (2) It opens under my key, for this roster and this pair.
        plaintext = self._kem.open(passed.sealed, info=_info(roster, other, self.me))
        link = KEY_BYTES if self.me in graph.neighbours(other) else 0
        group = KEY_BYTES if other == graph.leader else 0
        if len(plaintext) != link + group:
            raise Malformed(f"{other} sealed something other than its secrets")
        return plaintext[:link], plaintext[link:]


def pass_on(graph: Graph, introductions: Mapping[MemberId, Introduction], to: MemberId) -> Acquaint:
    """The aggregator's part: give a member what its senders sealed to it, once all have introduced themselves."""
    passed = []
    for other in senders(graph, to):
        said = introductions[other]
        sealed = said.sealed[recipients(graph, other).index(to)]
        passed.append(Passed(sealed=sealed, digests=_digests(said.sealed), signature=said.signature).to_bytes())
    return Acquaint(passed=tuple(passed))


def check_introduction(graph: Graph, member: MemberId, message: Introduction) -> None:
    """Malformed unless there is one secret for each recipient."""
    if len(message.sealed) != len(recipients(graph, member)):
        raise Malformed(f"{member} did not seal one secret to each recipient")


def _digests(sealed: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(Digest.of(one).raw for one in sealed)


def _info(roster: Digest, sender: MemberId, receiver: MemberId) -> bytes:
    """HPKE `info`: opens under this roster, from this sender's name to this receiver's only."""
    return pack(f"{LABEL}/secret", roster.raw, sender, receiver)


def _signed(roster: Digest, sender: MemberId, digests: tuple[bytes, ...]) -> bytes:
    """What a sender signs, since base-mode HPKE does not authenticate it."""
    return pack(roster.raw, sender, *digests)
