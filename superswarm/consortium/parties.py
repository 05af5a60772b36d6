"""Who takes part: members, and the coordinator."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from superswarm.consortium.clause import Clause, DigestText, KemKeyText, Line, Name, VerifyingKeyText


class Member(Clause):
    """An organisation, the keys that speak for it, and what it brings."""

    id: Name
    name: Line
    contributes: Annotated[tuple[Literal["data", "model", "hosting"], ...], Field(strict=False, max_length=3)]
    signing_key: VerifyingKeyText
    encryption_key: KemKeyText
    development_authority: DigestText | None = None  # SHA-256 of the SPKI of the member's simulated vendor root


class Coordinator(Clause):
    """Who runs the relay and hosts the aggregator. Has no vote; may be a member or an outsider."""

    name: Line
    development_authority: DigestText | None = None
