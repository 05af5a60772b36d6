"""What a manifest tolerates, in words: the choices that a member should have seen before it signs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from superswarm.consortium.manifest import Manifest
from superswarm.updates.secure.graph import plan
from superswarm.values import SIMULATED_WARNING


def tolerated(manifest: Manifest) -> list[str]:
    """Every weakness that the manifest knowingly accepts, worst first."""
    return [*_attestation(manifest), *_handling(manifest), *_steering(manifest), *_power(manifest)]


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
    yield from _masking(m)
    yield from _encryption(m)
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


def _masking(m: Manifest) -> Iterable[str]:
    """What masked sums tolerate, and what they leave open."""
    masking, n = m.protection.masking, len(m.trainers)
    if masking is None:
        return
    least, found = masking.least(m.aggregation.minimum_cohort), plan(n, masking)
    c = masking.colluders
    who = f"a broken aggregator together with {c} member{'s' * (c != 1)}" if c else "a broken aggregator on its own"
    yield (
        f"protection is masked: {who} learns nothing but the sum of {least - c} others at least; with "
        f"{c + 1} colluder{'s' * (c != 0)} single updates are not safe"
    )
    yield f"up to {masking.dropouts} of {n} members may vanish in a round, at any step; with more it has no result"
    if not found.complete:
        yield (
            f"{n} members mask with {found.degree} neighbours each: the graph exposes somebody with a probability "
            f"of at most 2^{_power_of_two(found.exposure)}, and a round in which {masking.dropouts} members vanish "
            f"at random fails with one of at most 2^{_power_of_two(found.failure)}"
        )
    yield "protection is masked: what a member adds to a sum is not seen, so one that lies can spoil it unnoticed"


def _encryption(m: Manifest) -> Iterable[str]:
    """What encrypted sums tolerate, and what they leave open."""
    clause, n = m.protection.homomorphic, len(m.trainers)
    if clause is None:
        return
    holders = min(clause.key_holders, plan(n, clause).witnesses)  # who must know each other: all, or the panel
    if holders < clause.key_holders:
        yield f"key_holders is {clause.key_holders}: of {n} members no more than the {holders} witnesses hold the key"
    yield (
        f"protection is he: the trainers of {holders} of {n} members hold the key of a round; whoever breaks the TEE "
        "of the aggregator and of any one trainer, which can vouch for false sums, sees single updates"
    )
    yield f"up to {clause.dropouts} of {n} members may vanish in a round, at any step; with more it has no result"
    if clause.scheme == "ckks":
        yield "scheme is ckks: updates take several times the bytes and time of bfv, for the same sum"
    yield "protection is he: what a member adds to a sum is not seen, so one that lies can spoil it unnoticed"
    yield "protection is he: the result is as good as the TEE of the trainer that makes it"


def _power_of_two(probability: float) -> int:
    """The exponent of the next power of two above; of a probability too small to tell, the smallest said."""
    return math.ceil(math.log2(max(probability, 2.0**-128)))


def _steering(m: Manifest) -> Iterable[str]:
    """What a member can do to the result by what it sends, and what the rule shows of single members."""
    rule = m.aggregation
    smallest = rule.minimum_cohort
    if len(m.trainers) < 2:
        return
    match rule.rule:
        case "fedavg":
            yield "rule is fedavg: one member with bad data, or a broken TEE, can make the adapter what it likes"
        case "norm-bound":
            bound = rule.max_norm or f"{rule.max_norm_ratio} times the median norm"
            yield (
                "rule is norm-bound: wherever it likes, a member can pull each round's result by "
                f"its share of the weight times {bound}"
            )
            if rule.weighting == "examples":
                yield "weighting is examples: that share grows with the examples a member brings"
        case robust:
            yield (
                f"rule is {robust}: {rule.tolerates} of a round's {smallest} members may send anything, and "
                f"{rule.tolerates + 1} together can steer the result"
            )
    if rule.rule == "median":
        yield "rule is median: each value of a round's result is one member's own, or the mean of two"
    if rule.rule == "multi-krum" and (rule.selected or 0) <= 2:
        yield f"selected is {rule.selected}: a round's result is the mean of as many members' updates, which all see"


def _power(m: Manifest) -> Iterable[str]:
    n = len(m.members)
    if n > 1:
        yield f"{m.quorum.run} of {n} members can start runs, and {m.quorum.members} can admit or exclude members"
    contributors = set(m.trainers)
    if n > 1 and len(contributors) == 1:
        yield "one member brings all the data: the adapter shows what that member's data holds"
