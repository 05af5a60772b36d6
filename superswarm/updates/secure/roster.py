"""Who is in the secure sums of one run attempt. Its digest names it, and is bound into all that its members say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

from superswarm.attestation.evidence import SessionKeys
from superswarm.attestation.handshake import Attempt
from superswarm.consortium.manifest import Manifest
from superswarm.consortium.protection import Masking
from superswarm.errors import CohortTooSmall, Malformed, Untrusted
from superswarm.updates.secure.graph import Graph, plan
from superswarm.values import LIMITS, Digest, MemberId
from superswarm.wire import pack, unpack_list

LABEL: Final = "superswarm/v1/roster"
PAIR: Final = 2  # fields of an entry


@dataclass(frozen=True, kw_only=True)
class Roster:
    """Members in the manifest's order, each with the digest of the session keys that speak for it.

    Proves nothing: whoever relies on a member's keys judges them. `number` counts the rosters of an attempt.
    """

    manifest: Digest
    run: str
    attempt: int
    number: int
    entries: tuple[tuple[MemberId, Digest], ...]

    @classmethod
    def of(cls, attempt: Attempt, number: int, keys: dict[MemberId, SessionKeys]) -> Self:
        entries = tuple((m, keys[m].digest) for m in attempt.manifest.manifest.trainers if m in keys)
        digest = attempt.manifest.digest
        return cls(manifest=digest, run=attempt.run, attempt=attempt.number, number=number, entries=entries)

    def to_bytes(self) -> bytes:
        flat = [field for member, keys in self.entries for field in (str(member), keys.raw)]
        return pack(LABEL, self.manifest.raw, self.run, self.attempt, self.number, *flat)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Invert `to_bytes`; only its exact bytes are taken. Raises Malformed."""
        match unpack_list(data):
            case [label, bytes(manifest), str(run), int(attempt), int(number), *rest] if label == LABEL:
                entries = tuple(zip(rest[::PAIR], rest[1::PAIR], strict=False))
                found = tuple(
                    (MemberId(m), Digest(k)) for m, k in entries if isinstance(m, str) and isinstance(k, bytes)
                )
                roster = cls(manifest=Digest(manifest), run=run, attempt=attempt, number=number, entries=found)
            case _:
                raise Malformed("not a roster")
        if roster.to_bytes() != data or len(found) > LIMITS.members:
            raise Malformed("a roster is not in canonical form")
        return roster

    @cached_property
    def digest(self) -> Digest:
        return Digest.of(self.to_bytes())

    @cached_property
    def members(self) -> tuple[MemberId, ...]:
        return tuple(member for member, _ in self.entries)

    def keys_of(self, member: MemberId) -> Digest:
        return dict(self.entries)[member]

    @cached_property
    def _places(self) -> dict[MemberId, int]:
        return {member: i for i, member in enumerate(self.members)}

    def mark(self, members: Iterable[MemberId]) -> bytes:
        """A set of members of this roster as a bit each, in its order."""
        marks = bytearray(-(-len(self.entries) // 8))
        for member in members:
            place = self._places[member]
            marks[-1 - place // 8] |= 1 << place % 8
        return bytes(marks)

    def read(self, marks: bytes) -> frozenset[MemberId]:
        """Invert `mark`. Raises Malformed for bits beyond the roster, or another length."""
        bits = int.from_bytes(marks, "big")
        if len(marks) != -(-len(self.entries) // 8) or bits >> len(self.entries):
            raise Malformed("a set of members does not fit the roster")
        return frozenset(member for i, member in enumerate(self.members) if marks[-1 - i // 8] >> i % 8 & 1)


@dataclass(frozen=True, slots=True)
class Terms:
    """A roster that the manifest allows, and what follows from both: the graph, and the smallest set of survivors."""

    roster: Roster
    graph: Graph
    least: int  # members in any sum: the threshold, the minimum cohort, and two beyond the colluders


def accept_roster(roster: Roster, attempt: Attempt) -> Terms:
    """Check a roster against manifest and attempt, as trainers and aggregator do. Judges nobody's keys."""
    manifest, masking = attempt.manifest.manifest, masking_of(attempt.manifest.manifest)
    # (1) It is this manifest's, run's and attempt's.
    if (roster.manifest, roster.run, roster.attempt) != (attempt.manifest.digest, attempt.run, attempt.number):
        raise Untrusted("the roster is for another manifest, run or attempt")
    # (2) Its members contribute data, in the manifest's order, each once, and each with keys of its own.
    listed = set(roster.members)
    if roster.members != tuple(m for m in manifest.trainers if m in listed):
        raise Untrusted("the roster lists somebody twice, out of order, or who contributes no data")
    if len({keys for _, keys in roster.entries}) != len(roster.entries):
        raise Untrusted("two members of the roster have the same session keys")
    # (3) They are enough to hide behind each other.
    least = masking.least(manifest.aggregation.minimum_cohort)
    if len(roster.entries) < least:
        raise CohortTooSmall(f"{len(roster.entries)} members are in the roster; a sum needs {least}")
    return Terms(roster, Graph(roster.members, plan(len(roster.entries), masking), roster.digest), least)


def masking_of(manifest: Manifest) -> Masking:
    if manifest.protection.agreement is None:
        raise Untrusted("the manifest does not ask for sums that hide single updates")
    return manifest.protection.agreement
