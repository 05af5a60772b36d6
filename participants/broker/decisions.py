"""A broker's log as entries, and what follows from them: what is offered, and how often a key was released.

Each entry names the digest of the one before it. Nothing here reads or writes files; no entry holds a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.clause import Clause, DigestText, Name
from superswarm.consortium.documents import dump_json, load_json
from superswarm.consortium.grant import LAST_SECOND, RUN
from superswarm.errors import Malformed
from superswarm.values import Digest, MemberId

FORMAT: Final = "superswarm-broker-entry/1"
WHAT: Final = "broker's log"
FIRST: Final = Digest(bytes(32))  # what the first entry names as the one before it
ENTRY_BYTES: Final = 16 * 1024
EVERY: Final = 2**31  # more releases than any terms allow

Event = Literal["add", "offer", "withdraw", "release", "refuse", "restore", "rekey"]


class Entry(Clause):
    """One thing that the broker or its owner decided."""

    format: Literal["superswarm-broker-entry/1"] = FORMAT
    number: Annotated[int, Field(ge=1, le=LAST_SECOND)]  # 1, 2, …
    previous: DigestText  # of the entry before this one
    time: Annotated[int, Field(ge=0, le=LAST_SECOND)]  # unix seconds, by this machine's clock
    event: Event
    asset: DigestText | None = None  # of the sealed file
    manifest: DigestText | None = None
    consortium: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    member: Name | None = None  # whose TEE asked
    role: Literal["trainer", "server"] | None = None
    run: Annotated[str, Field(pattern=rf"^{RUN.pattern}$")] | None = None
    attempt: Annotated[int, Field(ge=0, le=LAST_SECOND)] | None = None
    session: DigestText | None = None  # of the session keys that got the asset's
    code: Annotated[str, Field(max_length=64)] | None = None  # why it was refused
    missing: Annotated[int, Field(ge=0, le=LAST_SECOND)] | None = None  # entries that a restored log lacks
    charged: Annotated[int, Field(ge=0, le=LAST_SECOND)] | None = None  # releases among them, at most
    current: Annotated[tuple[DigestText, ...], Field(strict=False, max_length=1024)] | None = None
    # ^ epochs when it was restored: their successors began with a full count

    def to_bytes(self) -> bytes:
        return dump_json(self.model_dump(mode="json", exclude_none=True))

    @property
    def digest(self) -> Digest:
        return Digest.of(self.to_bytes())


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log ends: how many entries, the last one's digest, and how many releases it stands for."""

    count: int
    digest: Digest
    releases: int  # those that were charged for in its place included


@dataclass
class Decisions:
    """A log that was read, entry by entry, and checked to be one chain."""

    digests: list[Digest] = field(default_factory=list)
    releases: int = 0
    _offers: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    # ^ (asset, manifest) → consortium, number of the entry
    _sessions: dict[tuple[str, str, str], set[str]] = field(default_factory=dict)  # (manifest, asset, member)
    _restores: list[tuple[int, frozenset[str]]] = field(default_factory=list)

    @property
    def head(self) -> Head:
        return Head(len(self.digests), self.digests[-1] if self.digests else FIRST, self.releases)

    def next(self, event: Event, at: int, fields: Mapping[str, Any]) -> Entry:
        """The entry that comes next, not taken yet."""
        head = self.head
        return Entry.from_data(
            {"number": head.count + 1, "previous": str(head.digest), "time": at, "event": event}
            | {name: value for name, value in fields.items() if value is not None}
        )

    def read(self, line: bytes) -> Entry:
        """Take one line of the log. Malformed where it was altered, or does not follow the one before."""
        entry = Entry.from_data(load_json(line, WHAT, limit=ENTRY_BYTES))
        if (entry.number, entry.previous) != (self.head.count + 1, str(self.head.digest)) or entry.to_bytes() != line:
            raise Malformed(f"entry {self.head.count + 1} was altered, or does not follow the one before it")
        self.take(entry)
        return entry

    def take(self, entry: Entry) -> None:
        """Draw the consequences of an entry that follows."""
        asset, manifest = entry.asset or "", entry.manifest or ""
        match entry.event:
            case "offer":
                self._drop(asset, lambda _, consortium: consortium == entry.consortium)  # an earlier epoch's
                self._offers[asset, manifest] = entry.consortium or "", entry.number
            case "withdraw":
                self._drop(asset, lambda offered, _: manifest in ("", offered))
            case "release":
                self.releases += 1
                self._sessions.setdefault((manifest, asset, entry.member or ""), set()).add(entry.session or "")
            case "restore":
                if entry.missing != 0:
                    self._offers.clear()  # a withdrawal may be among what is missing
                charge = entry.charged if entry.charged is not None else EVERY
                self.releases += charge
                self._restores.append((charge, _current(entry)))
            case "add" | "refuse" | "rekey":
                pass
        self.digests.append(entry.digest)

    def offered(self, asset: Digest, manifest: Digest) -> int | None:
        """The entry in which the owner offers this asset under this manifest; None where newer ones end the offer."""
        _, entry = self._offers.get((str(asset), str(manifest)), ("", None))
        return entry

    def counts(self, asset: str, manifest: str) -> list[tuple[str, int]]:
        """How many sessions of each member got an asset's key under a manifest, for people to read."""
        found = [(m, len(s)) for (under, what, m), s in self._sessions.items() if (under, what) == (manifest, asset)]
        return sorted(found)

    def used(self, asset: Digest, manifest: ApprovedManifest, member: MemberId, session: Digest | None) -> int:
        """How many releases of an asset to a member count under a manifest, besides one to this same session.

        A TEE that has the key learns nothing from getting it again, so that lost letters use nothing up. What a
        restored log lacks counts in full, except under epochs that came after it was restored.
        """
        others = self._sessions.get((str(manifest.digest), str(asset), member), set()) - {str(session)}
        before = {str(digest) for digest in manifest.history[:-1]}
        return len(others) + sum(charge for charge, current in self._restores if not current & before)

    def _drop(self, asset: str, picked: Callable[[str, str], bool]) -> None:
        gone = [
            key for key, (consortium, _) in self._offers.items() if key[0] == asset and picked(key[1], consortium)
        ]
        for key in gone:
            del self._offers[key]


def _current(entry: Entry) -> frozenset[str]:
    return frozenset(entry.current or ())
