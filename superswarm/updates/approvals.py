"""A contributor's approval of one release of a result: a file that members send each other. Parsing proves nothing.

It names the result, the epoch that the result was made under, and the one recipient who may get its key; and it
carries the contributor's share of the key, sealed to that recipient. `superswarm.updates.release` makes and judges
it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import Field, ValidationError

from superswarm.consortium.documents import decode_base64, describe, dump_json, load_json, require_fields
from superswarm.consortium.grant import LAST_SECOND, RUN
from superswarm.consortium.manifest import Clause, DigestText, Name
from superswarm.errors import Malformed
from superswarm.updates.slots import Sealed
from superswarm.values import LIMITS, Digest, MemberId
from superswarm.wire import pack

FORMAT: Final = "superswarm-result-approval/1"
WHAT: Final = "approval of a result"


@dataclass(frozen=True, slots=True)
class Recipient:
    """To whom a result's key goes: a member, or the attested server of one. Names, and proves nothing."""

    member: MemberId
    session: Digest | None = None  # of the server's session keys; None for the member itself

    def __str__(self) -> str:
        return self.member if self.session is None else f"the server of {self.member} ({self.session})"


class ResultApproval(Clause):
    """What a contributor signs: this result's key, for this recipient, once its share is joined by others."""

    consortium: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    epoch: Annotated[int, Field(ge=1, lt=2**31)]
    manifest: DigestText
    run: Annotated[str, Field(pattern=rf"^{RUN.pattern}$")]
    container: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    result: DigestText  # of the container's stream, as the aggregator signed it
    contributor: Name
    index: Annotated[int, Field(ge=1, le=LIMITS.members)]  # of the contributor's share
    recipient: Name
    server: DigestText | None  # of the session keys of the recipient's attested server; null for the recipient itself
    entry: DigestText  # of the contributor's log, which held this release before it was signed
    time: Annotated[int, Field(ge=1, le=LAST_SECOND)]  # unix seconds, by the contributor's clock
    sealed: Sealed  # the share, to the recipient

    @property
    def to(self) -> Recipient:
        return Recipient(MemberId(self.recipient), None if self.server is None else Digest.parse(self.server))

    def signed_bytes(self) -> bytes:
        """The canonical bytes that the contributor signs."""
        sealed = decode_base64(self.sealed, WHAT)
        return pack(*self._names(), Digest.parse(self.entry).raw, self.time, sealed)

    def share_info(self, domain: str) -> bytes:
        """HPKE `info` of the share: it opens for this recipient, result and epoch only."""
        return pack(f"{domain}/result-approval-share", *self._names())

    def _names(self) -> tuple[str | int | bytes, ...]:
        return (
            self.consortium,
            self.epoch,
            Digest.parse(self.manifest).raw,
            self.run,
            bytes.fromhex(self.container),
            Digest.parse(self.result).raw,
            self.contributor,
            self.index,
            self.recipient,
            b"" if self.server is None else Digest.parse(self.server).raw,
        )


@dataclass(frozen=True, slots=True)
class SignedApproval:
    """An approval and its signature, as they travel. Proves nothing."""

    approval: ResultApproval
    signature: bytes

    def to_bytes(self) -> bytes:
        signature = base64.b64encode(self.signature).decode()
        return dump_json(
            {"format": FORMAT, "approval": self.approval.model_dump(mode="json"), "signature": signature}
        )

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Invert `to_bytes`. Raises Malformed or TooLarge."""
        data = load_json(raw, WHAT)
        require_fields(data, WHAT, FORMAT, {"approval", "signature"})
        if not isinstance(data["signature"], str):
            raise Malformed(f"the {WHAT} bears no signature")
        try:
            approval = ResultApproval.model_validate(data["approval"])
        except ValidationError as error:
            raise Malformed(f"the {WHAT} has faults:\n{describe(error)}") from None
        return cls(approval, decode_base64(data["signature"], WHAT))
