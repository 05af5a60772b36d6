"""Mutual attestation and vouching, as judged by each side (docs/protocol.md, "Handshake").

Three judges, each numbered: a member's node judges aggregator and trainer before it vouches; a trainer judges the
aggregator; the aggregator judges a trainer. Nothing here sends or waits.
"""

from __future__ import annotations

import hmac
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from superswarm.attestation.appraise import (
    AggregatorKey,
    TrainerKey,
    appraise_aggregator,
    appraise_trainer,
    trust_roots,
)
from superswarm.attestation.evidence import Binding, Evidence, SessionKeys, combine_nonces
from superswarm.attestation.messages import Hello
from superswarm.attestation.verify import verify
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.grant import ApprovedGrant, SignedGrant, approve_grant
from superswarm.consortium.vouch import Vouch, check_vouch
from superswarm.errors import Malformed, NoGrant, NotVouched, OtherManifest
from superswarm.values import LIMITS, Digest, MemberId, Role
from superswarm.wire import pack

HANDSHAKE_TAG = "superswarm/v1/handshake"
PAIRING_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at one run under one approved manifest: what everything in a handshake is bound to."""

    manifest: ApprovedManifest
    run: str
    number: int

    def binding(self, role: Role, member: MemberId | None, keys: SessionKeys, nonce: bytes, ev: Evidence) -> Binding:
        """What this party's report_data must speak for."""
        return Binding(
            domain=self.manifest.domain,
            role=role,
            member=member,
            run=self.run,
            nonce=nonce,
            keys=keys,
            manifest=self.manifest.digest,
            devices=ev.device_digest,
        )

    def vouch(
        self, role: Role, subject: MemberId | None, voucher: MemberId, session: Digest, nonce: bytes, at: int
    ) -> Vouch:
        """The vouch that `voucher` gives, or must have given, for these session keys."""
        return Vouch(
            manifest=self.manifest.digest,
            consortium=self.manifest.manifest.consortium,
            epoch=self.manifest.manifest.epoch,
            run=self.run,
            attempt=self.number,
            role=role,
            subject=subject,
            voucher=voucher,
            session=session,
            nonce=nonce,
            time=at,
        )


def open_attempt(manifest: ApprovedManifest, hello: Hello, at: int | None) -> tuple[Attempt, ApprovedGrant]:
    """Check that a hello announces a granted run under this manifest; raises OtherManifest or NoGrant.

    `at` is the time in unix seconds, or None where no time is known yet (a TEE before its node vouched).
    """
    mine = manifest.manifest.epoch
    if Digest(hello.manifest) != manifest.digest:
        older = "this side" if hello.epoch > mine else "the aggregator"
        raise OtherManifest(f"the aggregator acts under epoch {hello.epoch}, this side under {mine}: update {older}")
    grant = approve_grant(SignedGrant.parse(hello.grant), manifest)
    if grant.grant.run != hello.run:
        raise NoGrant("the grant is for another run")
    if at is not None:
        grant.check(at, hello.attempt)
    return Attempt(manifest=manifest, run=hello.run, number=hello.attempt), grant


def judge_aggregator(
    attempt: Attempt, keys: SessionKeys, nonces: Sequence[bytes], mine: bytes, evidence: Evidence, at: int
) -> AggregatorKey:
    """Judge the aggregator's evidence, as a node or trainer whose challenge was `mine`, at time `at`.

    Raises NotVouched where the evidence does not answer this side's challenge, EvidenceRejected where it fails.
    """
    # (1) It answers my challenge.
    if mine not in nonces:
        raise NotVouched("the aggregator's evidence does not cover this side's nonce")
    # (2) The vendor's chain and signature hold at the given time.
    report = verify(evidence, trust_roots(attempt.manifest), at)
    # (3) It speaks for these keys, in this role, run and manifest; the consortium approved this code.
    binding = attempt.binding(Role.AGGREGATOR, None, keys, combine_nonces(list(nonces)), evidence)
    return appraise_aggregator(report, attempt.manifest, binding)


def judge_trainer(
    attempt: Attempt, member: MemberId, keys: SessionKeys, nonces: Sequence[bytes], evidence: Evidence, at: int
) -> TrainerKey:
    """Judge a trainer's evidence against the challenges of the aggregator and of its own node."""
    report = verify(evidence, trust_roots(attempt.manifest), at)
    binding = attempt.binding(Role.TRAINER, member, keys, combine_nonces(list(nonces)), evidence)
    return appraise_trainer(report, attempt.manifest, binding)


def check_trainer_vouch(attempt: Attempt, raw: bytes, member: MemberId, keys: SessionKeys, nonce: bytes) -> int:
    """The time that the member's node signed while vouching for its trainer's keys, in unix seconds.

    Raises NotVouched unless the vouch is the member's own, for these keys, nonces, run and attempt.
    """
    vouch = check_vouch(raw, attempt.manifest)
    if vouch != attempt.vouch(Role.TRAINER, member, member, keys.digest, nonce, vouch.time):
        raise NotVouched(f"{member} did not vouch for this trainer, in this run and attempt, with these nonces")
    return vouch.time


def check_aggregator_vouch(attempt: Attempt, raw: bytes, keys: SessionKeys, nonce: bytes) -> Vouch:
    """One member's vouch for these session keys of the aggregator; NotVouched where it says something else."""
    vouch = check_vouch(raw, attempt.manifest)
    if vouch != attempt.vouch(Role.AGGREGATOR, None, vouch.voucher, keys.digest, nonce, vouch.time):
        raise NotVouched(f"{vouch.voucher} did not vouch for this aggregator, in this run and attempt")
    return vouch


def check_aggregator_vouches(attempt: Attempt, raws: Sequence[bytes], keys: SessionKeys, nonce: bytes) -> int:
    """The members' signed time: the median over a quorum's vouches for the aggregator, in unix seconds.

    Raises NotVouched for a vouch that says something else, a member twice, too few, or clocks that disagree.
    """
    vouches = [check_aggregator_vouch(attempt, raw, keys, nonce) for raw in raws]
    times = {vouch.voucher: vouch.time for vouch in vouches}
    if len(times) != len(vouches):
        raise NotVouched("a member vouches twice")
    quorum = attempt.manifest.manifest.quorum.aggregator
    if len(times) < quorum:
        raise NotVouched(f"{len(times)} members vouch for the aggregator; the manifest asks for {quorum}")
    return signed_time(times)


def signed_time(times: dict[MemberId, int]) -> int:
    """The lower median of the members' clocks; NotVouched where one is off by more than the allowed skew."""
    middle = statistics.median_low(times.values())
    off = sorted(member for member, time in times.items() if abs(time - middle) > LIMITS.clock_skew_seconds)
    if off:
        raise NotVouched(f"the clock of {', '.join(off)} is off by more than {LIMITS.clock_skew_seconds} s")
    return middle


def transcript(attempt: Attempt, aggregator: Binding, trainer: Binding) -> Digest:
    """What both sides agreed on: every claim that either side's hardware signed, and the attempt."""
    return Digest.of(
        pack(
            f"{attempt.manifest.domain}/handshake",
            attempt.manifest.digest.raw,
            attempt.run,
            attempt.number,
            trainer.member or "",
            aggregator.report_data(),
            trainer.report_data(),
        )
    )


def secret_info(agreed: Digest, sender: str) -> bytes:
    """HPKE `info` of one side's secret: opens under this transcript, from this side, only."""
    return pack("superswarm/v1/handshake-secret", agreed.raw, sender)


def signed_secret(agreed: Digest, sender: str, sealed: bytes) -> bytes:
    """What a side signs, since base-mode HPKE does not authenticate its sender."""
    return pack(agreed.raw, sender, sealed)


def pairing_proof(pairing_key: bytes, binding: Binding) -> bytes:
    """Show a member's node that this trainer is the one which the member started (HMAC-SHA256, RFC 2104).

    Approved code on approved hardware is public, so evidence cannot say whose it is; this key, which the member
    gives to its node and its trainer only, does. It covers all that report_data covers.
    """
    if len(pairing_key) < PAIRING_KEY_BYTES:
        raise Malformed(f"a pairing key has {PAIRING_KEY_BYTES} bytes")
    return hmac.digest(pairing_key, pack("superswarm/v1/pairing", binding.report_data()), "sha256")


def check_pairing(pairing_key: bytes, binding: Binding, proof: bytes) -> None:
    """Raise NotVouched unless the trainer holds the member's pairing key."""
    if not hmac.compare_digest(pairing_proof(pairing_key, binding), proof):
        raise NotVouched(f"a trainer that claims to be {binding.member}'s does not hold its pairing key")
