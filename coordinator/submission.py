"""What the operator submits with a run: the members' grant, which proves itself, and the number of the attempt."""

from __future__ import annotations

from collections.abc import Mapping

from superswarm.consortium.grant import SignedGrant
from superswarm.errors import Malformed

GRANT, ATTEMPT = "grant", "attempt"


def submission(grant: SignedGrant, attempt: int) -> dict[str, str]:
    """The texts that travel with a run through the relay."""
    return {GRANT: grant.to_bytes().decode(), ATTEMPT: str(attempt)}


def parse_submission(texts: Mapping[str, str]) -> tuple[SignedGrant, int]:
    """Invert `submission`; anything else that came along is ignored. Raises Malformed."""
    attempt = texts.get(ATTEMPT, "")
    if not attempt.isascii() or not attempt.isdecimal() or len(attempt) > 4:
        raise Malformed("the run was submitted without the number of its attempt: use superswarm run start")
    return SignedGrant.parse(texts.get(GRANT, "").encode()), int(attempt)
