"""Small values that everything shares: names that mean something, and limits that are always on."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType, Self

from superswarm.errors import Malformed

PROTOCOL_VERSION = 1
"""Raised when a message or its meaning changes; peers of another version are refused plainly."""

SIMULATED_WARNING = "SIMULATED ATTESTATION: it protects nothing. Use made-up data only."
"""Said wherever something simulated is shown, signed, started or released."""

MemberId = NewType("MemberId", str)
"""A member's name in the manifest: lower-case letters, digits and hyphens, 1 to 32 characters."""

MEMBER_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")


class Role(StrEnum):
    """What a session key speaks for; bound into report_data and into every vouch."""

    TRAINER = "trainer"
    AGGREGATOR = "aggregator"
    NODE = "node"
    SERVER = "server"


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256 digest, 32 bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise Malformed(f"a digest has 32 bytes, not {len(self.raw)}")

    @classmethod
    def of(cls, data: bytes) -> Self:
        return cls(hashlib.sha256(data).digest())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `sha256:` and 64 lower-case hex digits."""
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
            raise Malformed("a digest is written sha256: and 64 lower-case hex digits")
        return cls(bytes.fromhex(text[7:]))

    def __str__(self) -> str:
        return f"sha256:{self.raw.hex()}"

    @property
    def short(self) -> str:
        """The first 12 hex digits, for people; never compared."""
        return self.raw.hex()[:12]


@dataclass(frozen=True, slots=True, order=True)
class Measurement:
    """A launch measurement, 48 bytes (SHA-384): TDX MRTD, SNP launch digest, or simulated."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 48:
            raise Malformed(f"a measurement has 48 bytes, not {len(self.raw)}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `sha384:` and 96 lower-case hex digits."""
        if not re.fullmatch(r"sha384:[0-9a-f]{96}", text):
            raise Malformed("a measurement is written sha384: and 96 lower-case hex digits")
        return cls(bytes.fromhex(text[7:]))

    def __str__(self) -> str:
        return f"sha384:{self.raw.hex()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a peer or a file may make us hold or wait for. No None: every limit is always on."""

    manifest_bytes: int = 8 * 1024**2  # 1,024 members of 5 kB each fit
    signed_manifest_bytes: int = 16 * 1024**2  # a manifest with its signatures
    chain_bytes: int = 128 * 1024**2  # all epochs of a consortium
    document_bytes: int = 8 * 1024**2  # a grant, a vouch
    evidence_bytes: int = 1024 * 1024  # a quote with its collateral
    head_bytes: int = 4 * 1024 * 1024  # a parcel's head: handshake messages of the largest cohort
    body_bytes: int = 2 * 1024**3  # a parcel's body: one sealed adapter
    kept_bytes: int = 64 * 1024**3  # updates of one round that a robust rule keeps
    mail_bytes: int = 256 * 1024  # one sealed letter between members
    mail_count: int = 1024  # letters that wait in one box
    mailbox_bytes: int = 64 * 1024**2  # of letters that wait to be read by one party, whoever wrote them
    members: int = 1024
    jobs: int = 64
    fields: int = 65_536  # in one packed list
    clock_skew_seconds: int = 300  # between the clocks of two members
    handshake_seconds: int = 60  # for one step of a handshake, which holds the whole cohort up
    nonce_seconds: int = 600  # a challenger's nonce serves once, and expires
    vouch_seconds: int = 6 * 3600  # between a handshake and what a session's vouch is still good for
    challenge_seconds: int = 86_400  # a challenge that people carry as a file, likewise
    challenges: int = 256  # of one member, open at once


LIMITS = Limits()
