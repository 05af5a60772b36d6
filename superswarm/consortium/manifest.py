"""The manifest: what the consortium agreed on, as people write it (TOML) and as members sign it (RFC 8785 JSON).

Parsing proves nothing: only `superswarm.consortium.approval` turns a manifest into an `ApprovedManifest`. An
unknown field is refused, since an ignored constraint is a hole.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from superswarm.consortium.documents import describe, dump_json, load_json, require_bounded, require_size
from superswarm.consortium.policy import PlatformPolicies
from superswarm.crypto.hpke import KemPublicKey
from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import Error, Malformed
from superswarm.values import LIMITS, MEMBER_ID, Digest, Measurement, MemberId

FORMAT = "superswarm-manifest/1"


class Platform(StrEnum):
    """Where a workload may run. A manifest is wholly simulated or wholly real."""

    SIMULATED = "simulated"
    TDX = "tdx"
    SEV_SNP = "sev-snp"
    AZURE_VTPM = "azure-vtpm"


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


class Workload(Clause):
    """Code that may hold plaintext, and the platforms on which it may run."""

    platforms: Annotated[
        tuple[Annotated[Platform, Field(strict=False)], ...], Field(strict=False, min_length=1, max_length=8)
    ]
    measurements: Annotated[tuple[MeasurementText, ...], Field(strict=False, min_length=1, max_length=256)]
    policy: PlatformPolicies | None = None  # what is asked of real hardware, for each real platform; else None


class Workloads(Clause):
    trainer: Workload
    aggregator: Workload


class Asset(Clause):
    """A base model or dataset. `owner` is a member, or "public" for what anybody may have."""

    name: Name
    kind: Literal["model", "dataset"]
    owner: Annotated[str, Field(pattern=rf"^({MEMBER_ID.pattern}|public)$")]
    digest: DigestText
    source: Line  # where people find it: a Hugging Face id or a description; never trusted


class Lora(Clause):
    """LoRA (arXiv:2106.09685), in the terms of peft.LoraConfig."""

    rank: Annotated[int, Field(ge=1, le=1024)]
    alpha: Annotated[float, Field(gt=0, le=65_536)]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[tuple[Line, ...], Field(strict=False, min_length=1, max_length=256)]


class Training(Clause):
    """How each trainer trains between two aggregations."""

    local_steps: Annotated[int, Field(ge=1, le=1_000_000)]  # optimiser steps a round
    batch_size: Annotated[int, Field(ge=1, le=65_536)]  # sequences a forward pass
    gradient_accumulation: Annotated[int, Field(ge=1, le=65_536)] = 1  # forward passes an optimiser step
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # over all rounds of the run
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    max_length: Annotated[int, Field(ge=8, le=1_048_576)]  # tokens a sequence; longer ones are cut
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of the frozen base; the adapter stays float32


class Evaluation(Clause):
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 8
    max_examples: Annotated[int, Field(ge=1, le=10_000_000)] = 1000


class Job(Clause):
    """What is trained: one adapter on one base model. Training hyperparameters come from here only."""

    base_model: Name
    task: Literal["causal-lm"] = "causal-lm"
    rounds: Annotated[int, Field(ge=1, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**53)]
    lora: Lora
    training: Training
    evaluation: Evaluation = Evaluation()


class Aggregation(Clause):
    """How updates become the next global adapter."""

    rule: Literal["fedavg"]  # weighted mean (arXiv:1602.05629); more rules come with their modes
    weighting: Literal["examples", "equal"]
    minimum_cohort: Count  # members whose updates a round needs
    round_seconds: Annotated[int, Field(ge=1, le=30 * 86_400)]  # a round closes then with those that answered


class Protection(Clause):
    mode: Literal["attested"]


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
    """Who receives the adapter. Its key is wrapped for each recipient."""

    form: Literal["adapter"] = "adapter"
    recipients: Annotated[tuple[Name, ...], Field(strict=False, min_length=1, max_length=LIMITS.members)]


class Quorum(Clause):
    """How many members must sign to change a clause, to grant a run, and to vouch for the aggregator.

    Each is more than half of the members, so that no two rivals can both be approved. Those for `members` and
    `quorum` are the highest, since who may change these two may, in two steps, change everything.
    """

    members: Count
    coordinator: Count
    workloads: Count
    assets: Count
    job: Count
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
    job: Job
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

    @property
    def trainers(self) -> tuple[MemberId, ...]:
        """The members that bring data, in the manifest's order: the cohort."""
        return tuple(MemberId(m.id) for m in self.members if "data" in m.contributes)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = list(_faults(self))
        if faults:
            raise ValueError("; ".join(faults))
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


def _faults(m: Manifest) -> Iterable[str]:
    """Everything that one table says and another contradicts, in words that say what to change."""
    ids = {member.id for member in m.members}
    if "public" in ids:
        yield "no member may have the id public: it marks what anybody may have"
    named: list[tuple[str, list[str]]] = [
        ("members have the id", [x.id for x in m.members]),
        ("members share the signing key", [x.signing_key for x in m.members]),
        ("members share the encryption key", [x.encryption_key for x in m.members]),
        ("assets have the name", [x.name for x in m.assets]),
        ("recipients are", list(m.result.recipients)),
        *((f"contributions of {x.id} are", [str(c) for c in x.contributes]) for x in m.members),
    ]
    for what, names in named:
        for name, count in Counter(names).items():
            if count > 1:
                yield f"{count} {what} {name[:40]}"
    if (m.epoch == 1) != (m.predecessor is None):
        yield "epoch 1 has no predecessor, and every later epoch names one"
    yield from (
        f"asset {asset.name} belongs to {asset.owner}, who is not a member"
        for asset in m.assets
        if asset.owner not in {"public", *ids}
    )
    base = m.asset(m.job.base_model)
    if base is None or base.kind != "model":
        yield f"job.base_model is {m.job.base_model}, which is not a model in assets"
    for name in m.result.recipients:
        if name not in ids:
            yield f"result.recipients names {name}, who is not a member"
    if not m.trainers:
        yield "no member contributes data"
    if m.aggregation.minimum_cohort > len(m.trainers):
        yield f"aggregation.minimum_cohort is over the {len(m.trainers)} members that contribute data"
    yield from _quorum_faults(m)
    yield from _platform_faults(m)


def _quorum_faults(m: Manifest) -> Iterable[str]:
    n = len(m.members)
    for clause, quorum in m.quorum.model_dump().items():
        if not n // 2 < quorum <= n:
            yield f"quorum.{clause} is {quorum}: it must be more than half of the {n} members, and at most all"
        for guard, floor in (("members", m.quorum.members), ("quorum", m.quorum.quorum)):
            if quorum > floor:
                yield f"quorum.{guard} is {floor}: it must be at least quorum.{clause}, {quorum}"


def _policy_faults(name: str, workload: Workload) -> Iterable[str]:
    """A real platform without a policy would be judged by nothing; a policy without its platform would be ignored."""
    wanted = {platform.value.replace("-", "_") for platform in workload.platforms} - {Platform.SIMULATED.value}
    found = set() if workload.policy is None else workload.policy.platforms
    for field in sorted(wanted - found):
        yield f"workloads.{name} has no policy.{field}, for a platform that it allows"
    for field in sorted(found - wanted):
        yield f"workloads.{name} has a policy.{field}, for a platform that it does not allow"
    if workload.policy is not None and not wanted:
        yield f"workloads.{name} has a policy, but no real platform"


def _platform_faults(m: Manifest) -> Iterable[str]:
    for name, workload in (("trainer", m.workloads.trainer), ("aggregator", m.workloads.aggregator)):
        for platform in workload.platforms:
            if (platform is Platform.SIMULATED) != m.simulated:
                yield f"workloads.{name} allows {platform}, but attestation is {m.attestation}: never both"
        yield from _policy_faults(name, workload)
    parties: list[Member | Coordinator] = [*m.members, m.coordinator]
    for party in parties:
        if (party.development_authority is not None) != m.simulated:
            need = "needs" if m.simulated else "may not have"
            yield f"{party.name}: {m.attestation} attestation {need} a development_authority"
    authorities = Counter(p.development_authority for p in m.members if p.development_authority)
    if any(count > 1 for count in authorities.values()):
        yield "two members share a development_authority: each makes its own"
