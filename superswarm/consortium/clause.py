"""What every clause of a manifest is made of: a strict base, and texts that must be what they look like."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from superswarm.consortium.documents import describe, require_bounded
from superswarm.crypto.hpke import KemPublicKey
from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import Error, Malformed
from superswarm.values import LIMITS, MEMBER_ID, Digest, Measurement


def _readable(parse: type[Digest] | type[Measurement] | type[VerifyingKey] | type[KemPublicKey]) -> AfterValidator:
    def check(text: str) -> str:
        try:
            parse.parse(text)  # which takes one spelling only: the same key twice must look the same
        except Error as error:
            raise ValueError(str(error)) from None
        return text

    return AfterValidator(check)


def _printable(text: str) -> str:
    """No control, no invisible and no direction-changing characters: a name must look like what it is."""
    if not text.isprintable():
        raise ValueError("holds characters that cannot be seen")
    return text


Name = Annotated[str, Field(pattern=rf"^{MEMBER_ID.pattern}$")]
DigestText = Annotated[str, _readable(Digest)]
MeasurementText = Annotated[str, _readable(Measurement)]
VerifyingKeyText = Annotated[str, _readable(VerifyingKey)]
KemKeyText = Annotated[str, _readable(KemPublicKey)]
Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Count = Annotated[int, Field(ge=1, le=LIMITS.members)]


class Clause(BaseModel):
    """Base of every table: frozen, strict, and closed to unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def from_data(cls, data: object) -> Self:
        """Read plain data. Raises Malformed naming each faulty field."""
        require_bounded(data, cls.__name__.lower())
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise Malformed(f"the {cls.__name__.lower()} has faults:\n{describe(error)}") from None
