"""A contributor's log of the results that it released: beside its keys, and on disk before an approval exists.

Append-only: each entry names the digest of the one before it, and each approval the digest of its entry. So a log
from which something was taken contradicts the approvals that its owner gave out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from superswarm.consortium.documents import dump_json, load_json
from superswarm.consortium.grant import LAST_SECOND, RUN
from superswarm.consortium.manifest import Clause, DigestText, Name
from superswarm.crypto.signing import SigningKey
from superswarm.errors import Malformed
from superswarm.io.files import SECRET, locked, read_bytes, write_bytes
from superswarm.updates.approvals import Recipient, SignedApproval
from superswarm.updates.release import HeldShare, RecipientKey
from superswarm.values import LIMITS, Digest, MemberId

FORMAT: Final = "superswarm-release-entry/1"
WHAT: Final = "log of releases"
FIRST: Final = Digest(bytes(32))  # what the first entry names as the one before it


class Entry(Clause):
    """One release that was decided: of which result, to whom, and when."""

    format: Literal["superswarm-release-entry/1"] = FORMAT
    number: Annotated[int, Field(ge=1, le=LAST_SECOND)]  # 1, 2, …
    previous: DigestText  # of the entry before this one
    time: Annotated[int, Field(ge=1, le=LAST_SECOND)]  # unix seconds, by this machine's clock
    consortium: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    epoch: Annotated[int, Field(ge=1, lt=2**31)]
    manifest: DigestText
    run: Annotated[str, Field(pattern=rf"^{RUN.pattern}$")]
    container: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    result: DigestText
    recipient: Name
    server: DigestText | None  # of the session keys of the recipient's attested server

    def to_bytes(self) -> bytes:
        return dump_json(self.model_dump(mode="json"))

    @property
    def digest(self) -> Digest:
        return Digest.of(self.to_bytes())

    @property
    def to(self) -> Recipient:
        return Recipient(MemberId(self.recipient), None if self.server is None else Digest.parse(self.server))


class ReleaseLog:
    """The log beside a key file: `KEYS.releases`, one entry a line."""

    def __init__(self, keys: Path) -> None:
        self.file = keys.with_name(f"{keys.name}.releases")

    def entries(self) -> list[Entry]:
        """All entries, oldest first. Raises Malformed where one was altered, moved or taken out."""
        if not self.file.exists():
            return []
        entries: list[Entry] = []
        previous = FIRST
        for line in read_bytes(self.file, limit=LIMITS.document_bytes).splitlines():
            number = len(entries) + 1
            try:
                entry = Entry.from_data(load_json(line, WHAT))
            except Malformed as error:
                raise self._damaged(number, str(error)) from None
            if entry.number != number or entry.previous != str(previous) or entry.to_bytes() != line:
                raise self._damaged(number, "it was altered, or does not follow the one before it")
            entries.append(entry)
            previous = entry.digest
        return entries

    def _damaged(self, number: int, why: str) -> Malformed:
        return Malformed(f"{self.file}: entry {number}: {why}; it says what these keys released, so restore it")

    def approve(self, held: HeldShare, to: RecipientKey, signing: SigningKey, *, at: int) -> SignedApproval:
        """Log a release, durably, and only then approve it. Raises Malformed, DiskFull or Environment."""
        with locked(self.file):
            entries = self.entries()
            entry = Entry(
                number=len(entries) + 1,
                previous=str(entries[-1].digest if entries else FIRST),
                time=at,
                consortium=held.header.consortium,
                epoch=held.header.epoch,
                manifest=held.header.manifest,
                run=held.header.run,
                container=held.header.container,
                result=str(held.result),
                recipient=to.to.member,
                server=None if to.to.session is None else str(to.to.session),
            )
            lines = b"".join(one.to_bytes() + b"\n" for one in (*entries, entry))
            write_bytes(self.file, lines, mode=SECRET, replace=True)
        return held.approve(to, signing, entry=entry.digest, at=at)
