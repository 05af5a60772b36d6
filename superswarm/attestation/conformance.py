"""Judge a folder of evidence cases: what must be accepted is, what must be refused is, and for the stated reason.

Each case is a folder with a `case.json`: `kind`, `verify_at` (a UTC date; judged at noon), `files` (name → SHA-256)
and `judge`, a list of judgements with `consent`, `verdict` and, for a refusal, `reason`. A judgement may name the
`files` that it is given; otherwise it is given all. Where several claims fail at once, the stated reason must be one
of those that were found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from superswarm.attestation import baseline
from superswarm.attestation.nvidia.cases import judge_device_case, judge_manifest_case
from superswarm.attestation.reasons import Reason
from superswarm.attestation.snp.cases import judge_snp_case
from superswarm.attestation.tdx.cases import judge_tdx_case
from superswarm.attestation.vtpm.cases import judge_vtpm_case
from superswarm.consortium.documents import describe, load_json
from superswarm.errors import EvidenceRejected, Malformed, Misconfigured, TooLarge
from superswarm.values import LIMITS

CASE = "case.json"
Files = Mapping[str, bytes]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class Judgement(BaseModel):
    """What must come out of one case under some consents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consent: tuple[str, ...]
    verdict: Literal["accept", "reject"]
    reason: str | None = None
    files: tuple[Name, ...] | None = None


class Case(BaseModel):
    """A `case.json`. Fields that describe the evidence for people are not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: str
    verify_at: date
    files: Annotated[dict[Name, str], Field(min_length=1, max_length=64)]
    judge: Annotated[tuple[Judgement, ...], Field(min_length=1, max_length=64)]

    @property
    def at(self) -> int:
        """The time of judging, unix seconds: noon UTC of the day."""
        return int(datetime.combine(self.verify_at, time(12), UTC).timestamp())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out: no reasons means accepted."""

    reasons: tuple[str, ...] = ()
    message: str = ""

    @property
    def accepted(self) -> bool:
        return not self.reasons

    def matches(self, wanted: Judgement) -> bool:
        if wanted.verdict == "accept":
            return self.accepted
        return not self.accepted and (wanted.reason is None or wanted.reason in self.reasons)


@dataclass(frozen=True, slots=True)
class Line:
    """One judgement of one case, and whether it came out. Without a judgement, the case itself is at fault."""

    case: str
    wanted: Judgement | None
    outcome: Outcome

    @property
    def holds(self) -> bool:
        return self.wanted is not None and self.outcome.matches(self.wanted)

    def __str__(self) -> str:
        if self.wanted is None:
            return f"FAIL {self.case}: cannot be judged: {self.outcome.message}"
        consent = ",".join(self.wanted.consent) or "none"
        wanted = self.wanted.verdict if self.wanted.reason is None else f"{self.wanted.verdict} {self.wanted.reason}"
        text = f"{'ok  ' if self.holds else 'FAIL'} {self.case} (consent: {consent}): {wanted}"
        if self.holds:
            return text
        found = "accepted" if self.outcome.accepted else f"refused for {', '.join(self.outcome.reasons)}"
        return f"{text}; but {found}: {self.outcome.message}".rstrip(": ")


Judge = Callable[[Files, frozenset[str], int], None]
"""Judges files under consents at a time; returns, or raises EvidenceRejected or Malformed."""


def run(folder: Path) -> Iterator[Line]:
    """Judge every case below a folder, or the one case that it is. Raises Misconfigured when there is none."""
    paths = [folder / CASE] if (folder / CASE).is_file() else sorted(folder.glob(f"*/{CASE}"))
    if not paths:
        raise Misconfigured(f"{folder} has no folder with a {CASE}")
    for path in paths:
        yield from judge_case(path.parent)


def judge_case(folder: Path) -> Iterator[Line]:
    """Judge one case. A case at fault (unreadable, altered, of an unknown kind) is a line that does not hold."""
    try:
        case = _load(folder / CASE)
        files = dict(_files(folder, case))
        for wanted in case.judge:
            chosen = {name: _needed(files, name) for name in (wanted.files or files)}
            yield Line(folder.name, wanted, outcome(case.kind, chosen, wanted.consent, case.at))
    except Malformed as error:
        yield Line(folder.name, None, Outcome((Reason.MALFORMED,), str(error)))


def outcome(kind: str, files: Files, consent: Iterable[str], at: int) -> Outcome:
    """Judge some files as a kind of evidence. An unknown kind or consent is the case's fault: Malformed."""
    judge = JUDGES.get(kind)
    if judge is None:
        raise Malformed(f"unknown kind of evidence {kind[:40]!r}")
    consents = baseline.check_consents(consent)
    try:
        judge(files, consents, at)
    except EvidenceRejected as error:
        return Outcome(error.reasons, str(error))
    except Malformed as error:
        return Outcome((Reason.MALFORMED,), str(error))
    return Outcome()


def _load(path: Path) -> Case:
    try:
        return Case.model_validate(load_json(_read(path), f"{path.parent.name}/{CASE}"))
    except ValidationError as error:
        raise Malformed(f"{path.parent.name}/{CASE} has faults:\n{describe(error)}") from None


def _files(folder: Path, case: Case) -> Iterator[tuple[str, bytes]]:
    """The case's files, exactly as its digests say."""
    for name, digest in case.files.items():
        data = _read(folder / name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise Malformed(f"{folder.name}/{name} is not the file that {CASE} names")
        yield name, data


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LIMITS.evidence_bytes:
            raise TooLarge(f"{path.parent.name}/{path.name} has more than {LIMITS.evidence_bytes} bytes")
        return path.read_bytes()
    except OSError:
        raise Malformed(f"{path.parent.name}/{path.name} cannot be read") from None


def _needed(files: Files, name: str) -> bytes:
    if name not in files:
        raise Malformed(f"the case has no {name}")
    return files[name]


JUDGES: dict[str, Judge] = {
    "sev-snp": judge_snp_case,
    "tdx": judge_tdx_case,
    "azure-vtpm": judge_vtpm_case,
    "nvidia-gpu": judge_device_case,
    "nvidia-rim": judge_manifest_case,
}
