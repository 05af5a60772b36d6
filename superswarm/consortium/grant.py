"""Run grants: a run starts only where a quorum allowed it, so no operator repeats runs at will."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.documents import (
    dump_json,
    load_json,
    require_fields,
    signatures_from_json,
    signatures_to_json,
)
from superswarm.consortium.jobs import Job
from superswarm.crypto.signing import SigningKey
from superswarm.errors import BadSignature, Malformed, NoGrant
from superswarm.values import MEMBER_ID, Digest, MemberId
from superswarm.wire import pack

FORMAT = "superswarm-run-grant/1"
RUN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
"""A run's name: lower-case letters, digits, dots, underscores and hyphens, 1 to 64 characters."""

LAST_SECOND = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGrant:
    """One run of one job under one manifest: how many rounds and attempts at most, and until when it may start."""

    manifest: Digest
    epoch: int
    run: str
    job: str  # one of the manifest's
    rounds: int
    attempts: int
    not_after: int  # unix seconds

    def __post_init__(self) -> None:
        if not RUN.fullmatch(self.run):
            raise Malformed("a run's name has 1 to 64 lower-case letters, digits, dots, underscores and hyphens")
        if not MEMBER_ID.fullmatch(self.job):
            raise Malformed("a grant names a job as the manifest writes it")
        for name, number, top in (
            ("epoch", self.epoch, 2**31 - 1),
            ("rounds", self.rounds, 100_000),
            ("attempts", self.attempts, 1_000),
            ("not_after", self.not_after, LAST_SECOND),
        ):
            if not 1 <= number <= top:
                raise Malformed(f"a grant's {name} is from 1 to {top}")

    def to_bytes(self) -> bytes:
        """The canonical bytes that members sign."""
        return pack(self.manifest.raw, self.epoch, self.run, self.job, self.rounds, self.attempts, self.not_after)

    def to_data(self) -> dict[str, Any]:
        return {
            "manifest": str(self.manifest),
            "epoch": self.epoch,
            "run": self.run,
            "job": self.job,
            "rounds": self.rounds,
            "attempts": self.attempts,
            "not_after": self.not_after,
        }

    @classmethod
    def from_data(cls, data: object) -> Self:
        if not isinstance(data, dict) or len(data) != 7 or any(isinstance(v, bool) for v in data.values()):
            raise Malformed("the run grant does not have the expected fields")
        match data:
            case {
                "manifest": str(manifest),
                "epoch": int(epoch),
                "run": str(run),
                "job": str(job),
                "rounds": int(rounds),
                "attempts": int(attempts),
                "not_after": int(not_after),
            }:
                return cls(
                    manifest=Digest.parse(manifest),
                    epoch=epoch,
                    run=run,
                    job=job,
                    rounds=rounds,
                    attempts=attempts,
                    not_after=not_after,
                )
            case _:
                raise Malformed("the run grant does not have the expected fields")


@dataclass(frozen=True, slots=True)
class SignedGrant:
    """A grant and signatures, as they travel. Proves nothing."""

    grant: RunGrant
    signatures: Mapping[MemberId, bytes] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        return dump_json(
            {"format": FORMAT, "grant": self.grant.to_data(), "signatures": signatures_to_json(self.signatures)}
        )

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        data = load_json(raw, "run grant")
        require_fields(data, "run grant", FORMAT, {"grant", "signatures"})
        return cls(RunGrant.from_data(data["grant"]), signatures_from_json(data["signatures"], "run grant"))


@dataclass(frozen=True, slots=True)
class ApprovedGrant:
    """A grant that the quorum for runs signed. Only `approve_grant` makes one."""

    grant: RunGrant
    job: Job  # the one that it names
    signers: tuple[MemberId, ...]

    def check(self, at: int, attempt: int) -> None:
        """Raise NoGrant unless this attempt (the first is 1) may start at this time (unix seconds).

        `at` is a time that members signed, never a host's clock.
        """
        if at > self.grant.not_after:
            raise NoGrant(f"the grant for {self.grant.run} ended {at - self.grant.not_after} s ago")
        if not 1 <= attempt <= self.grant.attempts:
            raise NoGrant(f"the grant for {self.grant.run} allows attempts 1 to {self.grant.attempts}, not {attempt}")


def sign_grant(key: SigningKey, grant: RunGrant, domain: str) -> bytes:
    """Sign a grant as a member; `domain` is the manifest's."""
    return key.sign(f"{domain}/grant", grant.to_bytes())


def grant_signers(signed: SignedGrant, manifest: ApprovedManifest) -> tuple[MemberId, ...]:
    """Whose signatures the grant bears. NoGrant if it is of another epoch, BadSignature if one does not hold."""
    grant = signed.grant
    # (1) It speaks of this epoch.
    if grant.manifest != manifest.digest or grant.epoch != manifest.manifest.epoch:
        raise NoGrant(f"the grant for {grant.run} is for another manifest than epoch {manifest.manifest.epoch}")
    # (2) It names one of this manifest's jobs.
    if manifest.manifest.job(grant.job) is None:
        raise NoGrant(f"the grant for {grant.run} is for the job {grant.job}, which the manifest does not have")
    # (3) Everybody who signs is a member, and the signature holds.
    message = grant.to_bytes()
    for member, signature in signed.signatures.items():
        if manifest.manifest.member(member) is None:
            raise BadSignature(f"{member} signs, but is not a member")
        try:
            manifest.verifying_key(member).verify(f"{manifest.domain}/grant", message, signature)
        except BadSignature:
            raise BadSignature(f"the signature of {member} does not hold for this grant") from None
    return tuple(MemberId(m.id) for m in manifest.manifest.members if m.id in signed.signatures)


def approve_grant(signed: SignedGrant, manifest: ApprovedManifest) -> ApprovedGrant:
    """Turn a signed grant into one that allows runs. Raises NoGrant or BadSignature."""
    # (1) It is of this epoch, and all its signatures hold.
    signers = grant_signers(signed, manifest)
    # (2) They are as many as the manifest asks for.
    need = manifest.manifest.quorum.run
    if len(signers) < need:
        raise NoGrant(f"{len(signers)} members granted {signed.grant.run}, and the manifest needs {need}")
    job = manifest.manifest.job(signed.grant.job)
    if job is None:
        raise RuntimeError("grant_signers() lets through a job that the manifest does not have")
    return ApprovedGrant(signed.grant, job, signers)
