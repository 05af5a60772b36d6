"""What a manifest tolerates, in words: the choices that a member should have seen before it signs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from superswarm.consortium.manifest import Manifest
from superswarm.values import SIMULATED_WARNING


def tolerated(manifest: Manifest) -> list[str]:
    """Every weakness that the manifest knowingly accepts, worst first."""
    return [*_attestation(manifest), *_handling(manifest), *_power(manifest)]


def _attestation(m: Manifest) -> Iterable[str]:
    if m.simulated:
        yield f"{SIMULATED_WARNING} Whoever runs the machines can read data, models and updates"
    for role, workload in m.workloads.named():
        if len(workload.measurements) > 1:
            yield f"{len(workload.measurements)} versions of the {role}'s code are accepted, an older one included"

    yield from _policies(m)


def _policies(m: Manifest) -> Iterable[str]:
    """What the policies for real hardware leave open; whatever they do not say is on the strict side."""
    for role, workload in m.workloads.named():
        if workload.policy is not None:
            for where, value in _leaves(workload.policy.model_dump(mode="json", exclude_none=True), ""):
                if value in ("any", "accepted") or where.endswith("accepted_risk"):
                    yield f"the {role}'s policy says {where} = {value}"
                if where.endswith("tcb_statuses") and value != "UpToDate":
                    yield f"the {role} may run on hardware whose TCB status is {value}"


def _leaves(data: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(data, list):
        for value in data:
            yield from _leaves(value, path)
    else:
        yield path, data


def _handling(m: Manifest) -> Iterable[str]:
    if m.protection.mode == "attested":
        yield (
            "protection is attested: whoever breaks the aggregator's TEE sees each member's updates, from which "
            "training data can be guessed"
        )
    if m.privacy.mechanism == "none":
        yield (
            "privacy is none: whoever receives the adapter may learn from it what it remembers of the data "
            f"(recipients: {', '.join(m.result.recipients)})"
        )
    if m.result.approvals:
        yield (
            f"{m.result.approvals} of {', '.join(m.contributors)} release the result, and as many together can "
            "always rebuild its key, for anybody"
        )
    if len(m.trainers) > 1 and m.aggregation.minimum_cohort == 1:
        yield "minimum_cohort is 1: a round may rest on one member's update, which the others then learn"
    if len(m.trainers) == 2 or (len(m.trainers) > 2 and m.aggregation.minimum_cohort == 2):
        yield (
            "a round may rest on two members' updates: each of the two can compute the other's from the average, "
            "if it can look into its own trainer's TEE"
        )
    if m.metrics.granularity == "member" and m.metrics.to:
        yield f"{', '.join(m.metrics.release)} of single members are shown to {' and '.join(m.metrics.to)}"
    if "operator" in m.metrics.to:
        yield "the operator sees metrics"


def _power(m: Manifest) -> Iterable[str]:
    n = len(m.members)
    if n > 1:
        yield f"{m.quorum.run} of {n} members can start runs, and {m.quorum.members} can admit or exclude members"
    contributors = set(m.trainers)
    if n > 1 and len(contributors) == 1:
        yield "one member brings all the data: the adapter shows what that member's data holds"
