"""Assets: base models and datasets that members bring, and on which terms the key of a sealed one is given out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from superswarm.consortium.clause import Clause, DigestText, Line, Name
from superswarm.values import LIMITS, MEMBER_ID


def _date(text: str) -> str:
    if date.fromisoformat(text).isoformat() != text:
        raise ValueError("a date is written YYYY-MM-DD")
    return text


class Release(Clause):
    """On which terms the owner's broker releases the key of a sealed asset: what the owner consents to by signing."""

    roles: Annotated[tuple[Literal["trainer", "server"], ...], Field(strict=False, min_length=1, max_length=2)] = (
        "trainer",
    )
    members: Annotated[tuple[Name, ...], Field(strict=False, min_length=1, max_length=LIMITS.members)]  # whose TEEs
    not_after: Annotated[str, Field(max_length=10), AfterValidator(_date)]  # the last day, UTC
    times: Annotated[int, Field(ge=1, le=1_000_000)]  # releases to one member under this manifest

    @property
    def ends(self) -> int:
        """The last second in which a key may be released; unix seconds."""
        return int(datetime.combine(date.fromisoformat(self.not_after), time(23, 59, 59), UTC).timestamp())


class Asset(Clause):
    """A base model or dataset. `owner` is a member, or "public" for what anybody may have.

    With `release` it is sealed: `digest` is then the sealed file's, and its key comes from the owner's broker.
    """

    name: Name
    kind: Literal["model", "dataset"]
    owner: Annotated[str, Field(pattern=rf"^({MEMBER_ID.pattern}|public)$")]
    digest: DigestText
    source: Line  # where people find it: a Hugging Face id, an address or a description; never trusted
    release: Release | None = None

    @property
    def sealed(self) -> bool:
        return self.release is not None


def asset_faults(assets: Iterable[Asset], members: set[str], trainers: Iterable[str]) -> Iterable[str]:
    """What assets say that the list of members contradicts."""
    cohort = set(trainers)
    for asset in assets:
        if asset.owner not in {"public", *members}:
            yield f"asset {asset.name} belongs to {asset.owner}, who is not a member"
        if asset.release is None:
            continue
        if asset.owner == "public":
            yield f"asset {asset.name} is sealed, so a member must own it: nobody else has its key"
        for name in asset.release.members:
            if name not in members:
                yield f"asset {asset.name} is released to {name}, who is not a member"
            elif "trainer" in asset.release.roles and "server" not in asset.release.roles and name not in cohort:
                yield f"asset {asset.name} is released to the trainer of {name}, who contributes no data"
