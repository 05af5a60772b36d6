"""The manifest: what the consortium agreed on, as people write it (TOML) and as members sign it (RFC 8785 JSON).

Parsing proves nothing: only `superswarm.consortium.approval` turns a manifest into an `ApprovedManifest`. An
unknown field is refused, since an ignored constraint is a hole.
"""

from __future__ import annotations

import tomllib
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from superswarm.consortium.aggregation import Aggregation
from superswarm.consortium.assets import Asset, Release
from superswarm.consortium.checks import faults_of
from superswarm.consortium.clause import (
    Clause,
    Count,
    DigestText,
    KemKeyText,
    Line,
    MeasurementText,
    Name,
    VerifyingKeyText,
)
from superswarm.consortium.documents import dump_json, load_json, require_size
from superswarm.consortium.jobs import Evaluation, Job, Lora, Training
from superswarm.consortium.parties import Coordinator, Member
from superswarm.consortium.protection import Encoding, Homomorphic, Masking, Protection
from superswarm.consortium.workloads import Platform, Workload, Workloads
from superswarm.errors import Malformed
from superswarm.values import LIMITS, Digest, MemberId

FORMAT = "superswarm-manifest/1"

__all__ = [
    "FORMAT",
    "Aggregation",
    "Asset",
    "Clause",
    "Coordinator",
    "Count",
    "DigestText",
    "Encoding",
    "Evaluation",
    "Homomorphic",
    "Job",
    "KemKeyText",
    "Line",
    "Lora",
    "Manifest",
    "Masking",
    "MeasurementText",
    "Member",
    "Metrics",
    "Name",
    "Platform",
    "Privacy",
    "Protection",
    "Quorum",
    "Release",
    "Result",
    "Training",
    "VerifyingKeyText",
    "Workload",
    "Workloads",
    "load_toml",
]


class Privacy(Clause):
    mechanism: Literal["none"]


class Metrics(Clause):
    """What may leave a TEE in the clear, and to whom. What is not listed stays inside."""

    release: Annotated[
        tuple[Literal["train_loss", "eval_loss", "examples", "seconds"], ...], Field(strict=False, max_length=8)
    ] = ()
    granularity: Literal["aggregate", "member"] = "aggregate"
    to: Annotated[tuple[Literal["members", "operator"], ...], Field(strict=False, max_length=2)] = ()


class Result(Clause):
    """Who gets the adapter, and how.

    Without `approvals` its key is sealed to each recipient as soon as it exists. With `approvals` = k it is shared
    out among the contributors (Shamir), and k of them release it, each time to one recipient, or to the attested
    server of one member in `serving`. k contributors together can always rebuild it.
    """

    form: Literal["adapter"] = "adapter"
    recipients: Annotated[tuple[Name, ...], Field(strict=False, max_length=LIMITS.members)] = ()
    serving: Annotated[tuple[Name, ...], Field(strict=False, max_length=LIMITS.members)] = ()
    approvals: Annotated[int, Field(ge=0, le=LIMITS.members)] = 0


class Quorum(Clause):
    """How many members must sign to change a clause, to grant a run, and to vouch for the aggregator.

    Each is more than half of the members, so that no two rivals can both be approved. Those for `members` and
    `quorum` are the highest, since who may change these two may, in two steps, change everything.
    """

    members: Count
    coordinator: Count
    workloads: Count
    assets: Count
    jobs: Count
    aggregation: Count
    protection: Count
    privacy: Count
    metrics: Count
    result: Count
    quorum: Count
    run: Count
    aggregator: Count


class Manifest(Clause):
    """One epoch of a consortium. `digest` names it; `predecessor` names the epoch before it."""

    format: Literal["superswarm-manifest/1"]
    consortium: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    name: Line
    epoch: Annotated[int, Field(ge=1, lt=2**31)]
    predecessor: DigestText | None = None
    attestation: Literal["simulated", "real"]
    members: Annotated[tuple[Member, ...], Field(strict=False, min_length=1, max_length=LIMITS.members)]
    coordinator: Coordinator
    workloads: Workloads
    assets: Annotated[tuple[Asset, ...], Field(strict=False, min_length=1, max_length=4096)]
    jobs: Annotated[tuple[Job, ...], Field(strict=False, min_length=1, max_length=LIMITS.jobs)]
    aggregation: Aggregation
    protection: Protection
    privacy: Privacy
    metrics: Metrics
    result: Result
    quorum: Quorum

    @classmethod
    def from_toml(cls, text: str | bytes) -> Self:
        """Read what people write. Raises Malformed naming each faulty field, TooLarge over the limit."""
        return cls.from_data(load_toml(text))

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read canonical JSON; anything but the exact canonical bytes is refused."""
        manifest = cls.from_data(load_json(raw, "manifest", limit=LIMITS.manifest_bytes))
        if manifest.to_json() != raw:
            raise Malformed("the manifest's JSON is not in canonical form (RFC 8785)")
        return manifest

    def to_data(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True)

    def to_json(self) -> bytes:
        """The canonical bytes that members sign."""
        return dump_json(self.to_data())

    @property
    def digest(self) -> Digest:
        """SHA-256 over format and canonical bytes, under a tag that keeps simulated and real apart."""
        return Digest.of(self.domain.encode() + b"\0" + self.to_json())

    @property
    def domain(self) -> str:
        """Prefix of every tag and label used under this manifest; never the same for simulated and real."""
        return f"superswarm/v1/{self.attestation}"

    @property
    def simulated(self) -> bool:
        return self.attestation == "simulated"

    def member(self, member: str) -> Member | None:
        return next((m for m in self.members if m.id == member), None)

    def asset(self, name: str) -> Asset | None:
        return next((a for a in self.assets if a.name == name), None)

    def job(self, name: str) -> Job | None:
        return next((j for j in self.jobs if j.name == name), None)

    def sealed_for(self, member: str, job: Job) -> tuple[Asset, ...]:
        """The sealed assets whose keys this member's trainer needs for a job: its base model, and data."""
        return tuple(
            asset
            for asset in self.assets
            if asset.release is not None
            and "trainer" in asset.release.roles
            and member in asset.release.members
            and (asset.kind == "dataset" or asset.name == job.base_model)
        )

    @property
    def trainers(self) -> tuple[MemberId, ...]:
        """The members that bring data, in the manifest's order: the cohort."""
        return tuple(MemberId(m.id) for m in self.members if "data" in m.contributes)

    @property
    def contributors(self) -> tuple[MemberId, ...]:
        """The members that bring data or a model, in the manifest's order: a result is theirs."""
        return tuple(MemberId(m.id) for m in self.members if {"data", "model"} & set(m.contributes))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = list(faults_of(self))
        if faults:
            raise ValueError("\n".join(faults))
        return self


def load_toml(text: str | bytes) -> dict[str, Any]:
    """Read TOML under the manifest's limit, before anything is known of its fields."""
    try:
        raw = text.encode() if isinstance(text, str) else text
        require_size(raw, "manifest", LIMITS.manifest_bytes)
        return tomllib.loads(raw.decode())
    except ValueError as error:  # TOMLDecodeError, UnicodeError, an integer of thousands of digits
        raise Malformed(f"the manifest is not TOML: {ascii(str(error))[1:-1]}") from None
    except RecursionError:
        raise Malformed("the manifest is nested too deeply") from None
