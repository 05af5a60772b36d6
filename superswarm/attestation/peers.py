"""Trainers that judge each other: what the aggregator passes on of its handshake with one, for the others to check.

An aggregator that is broken cannot invent a peer: each trainer verifies the others' evidence and vouches itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from superswarm.attestation.appraise import TrainerKey
from superswarm.attestation.evidence import Evidence, SessionKeys, combine_nonces
from superswarm.attestation.handshake import Attempt, check_trainer_vouch, judge_trainer
from superswarm.attestation.messages import Blobs, Message
from superswarm.errors import Malformed
from superswarm.values import MEMBER_ID, MemberId


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier(Message):
    """One trainer's session keys, and what speaks for them. Proves nothing until `judge_peer`."""

    KIND: ClassVar[str] = "dossier"
    member: str
    keys: bytes  # SessionKeys
    nonces: Blobs  # the challenges that its evidence covers: the aggregator's, and its own node's
    evidence: bytes
    vouch: bytes  # its own member's, for these keys


def judge_peer(attempt: Attempt, dossier: Dossier, at: int) -> TrainerKey:
    """Judge another trainer at time `at` (unix seconds), as the aggregator has.

    Raises NotVouched or EvidenceRejected. The challenges are not this side's: what makes old evidence useless is that
    keys are fresh for each handshake, and that the member vouches for them in this run and attempt only.
    """
    # (1) The member itself vouches for these keys, in this run and attempt.
    if not MEMBER_ID.fullmatch(dossier.member):
        raise Malformed("a dossier does not name a member")
    member, keys = MemberId(dossier.member), SessionKeys.parse(dossier.keys)
    check_trainer_vouch(attempt, dossier.vouch, member, keys, combine_nonces(list(dossier.nonces)))
    # (2) Approved code on an approved platform holds them, as a trainer of this member.
    return judge_trainer(attempt, member, keys, dossier.nonces, Evidence.parse(dossier.evidence), at)
