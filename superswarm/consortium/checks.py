"""What one clause of a manifest says and another contradicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from superswarm.consortium.aggregation import aggregation_faults
from superswarm.consortium.assets import asset_faults
from superswarm.consortium.parties import Coordinator, Member
from superswarm.consortium.protection import protection_faults
from superswarm.consortium.workloads import Platform, Workload

if TYPE_CHECKING:
    from superswarm.consortium.manifest import Manifest


def faults_of(m: Manifest) -> Iterable[str]:
    """Everything that one table says and another contradicts, in words that say what to change."""
    ids = {member.id for member in m.members}
    if "public" in ids:
        yield "no member may have the id public: it marks what anybody may have"
    named: list[tuple[str, list[str]]] = [
        ("members have the id", [x.id for x in m.members]),
        ("members share the signing key", [x.signing_key for x in m.members]),
        ("members share the encryption key", [x.encryption_key for x in m.members]),
        ("assets have the name", [x.name for x in m.assets]),
        ("jobs have the name", [x.name for x in m.jobs]),
        ("recipients are", list(m.result.recipients)),
        ("members that serve the result are", list(m.result.serving)),
        *((f"contributions of {x.id} are", [str(c) for c in x.contributes]) for x in m.members),
    ]
    for what, names in named:
        for name, count in Counter(names).items():
            if count > 1:
                yield f"{count} {what} {name[:40]}"
    if (m.epoch == 1) != (m.predecessor is None):
        yield "epoch 1 has no predecessor, and every later epoch names one"
    yield from asset_faults(m.assets, ids, m.trainers)
    yield from _job_faults(m)
    yield from _result_faults(m)
    if not m.trainers:
        yield "no member contributes data"
    if m.aggregation.minimum_cohort > len(m.trainers):
        yield f"aggregation.minimum_cohort is over the {len(m.trainers)} members that contribute data"
    yield from aggregation_faults(m.aggregation)
    yield from protection_faults(m)
    yield from _quorum_faults(m)
    yield from _platform_faults(m)


def _job_faults(m: Manifest) -> Iterable[str]:
    for job in m.jobs:
        base = m.asset(job.base_model)
        if base is None or base.kind != "model":
            yield f"base_model of the job {job.name} is {job.base_model}, which is not a model in assets"
        elif base.release is not None:
            for name in sorted(set(m.trainers) - set(base.release.members)):
                yield f"{name} trains the job {job.name}, but the key of {base.name} is not released to it"
    for asset in m.assets:
        if asset.kind == "dataset" and asset.release is not None and "server" in asset.release.roles:
            yield f"asset {asset.name} is a dataset, which no server needs"


def _result_faults(m: Manifest) -> Iterable[str]:
    result, ids = m.result, {member.id for member in m.members}
    for clause, names in (("recipients", result.recipients), ("serving", result.serving)):
        for name in names:
            if name not in ids:
                yield f"result.{clause} names {name}, who is not a member"
    if not (result.recipients or result.serving):
        yield "nobody gets the result: name result.recipients, or result.serving"
    if result.serving and not result.approvals:
        yield "result.serving needs result.approvals: a server gets the key from contributors who approve it"
    if bool(result.serving) != (m.workloads.server is not None):
        yield "result.serving and workloads.server go together: who serves, and the code that may"
    if result.approvals > len(m.contributors):
        yield f"result.approvals is over the {len(m.contributors)} members that contribute data or a model"


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
    for name, workload in m.workloads.named():
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
