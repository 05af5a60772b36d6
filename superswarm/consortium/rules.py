"""Who must sign what: the rules by which one epoch of a consortium may follow another (docs/adr/0002).

A successor needs, of the *current* members, at least the current quorum of every clause that it changes, and on top:

- **Owner's veto.** The owner of every asset that is added, changed, removed or handed over, before and after. And
  whoever has something at stake, when a clause changes that decides which code sees it, who receives something of it,
  or how much of it shows in what leaves a TEE: `coordinator`, `workloads`, `jobs` (with their base models' digests),
  `aggregation`, `protection`, `privacy`, `metrics`, `result`. At stake are base models (before and after), every
  dataset, and the data of every member that contributes data afterwards; for `workloads`, every asset, since trainers
  may ask for the keys of all. Members that leave with their data have nothing at stake any more.
- **Oneself.** A member whose entry changes: nobody is given other keys or another part without its signature.
- **Entering.** Whoever joins, or gets a new signing key, accepts with that key: nobody is made a member unasked, and
  no key is listed that its holder does not have. An acceptance counts toward no quorum.

`members`, `quorum` and the consortium's name carry no veto: a veto protects what its holder brings, not the power to
keep others out or in. Consortium identity, format and kind of attestation never change.

A successor that changes nothing (to void the grants of an epoch) needs the quorum for `members`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from superswarm.consortium.manifest import Asset, Manifest
from superswarm.values import MemberId

CONSTANT = ("format", "consortium", "attestation")
POSITION = ("epoch", "predecessor")
CLAUSES = (
    "members",
    "coordinator",
    "workloads",
    "assets",
    "jobs",
    "aggregation",
    "protection",
    "privacy",
    "metrics",
    "result",
    "quorum",
)
AT_STAKE = frozenset(
    {"coordinator", "workloads", "jobs", "aggregation", "protection", "privacy", "metrics", "result"}
)
"""Clauses that decide what becomes of what a member brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """The signatures that a manifest needs, given the one before it."""

    changed: tuple[str, ...]  # clauses, in the manifest's order
    quorum: int  # signatures of current members
    voters: tuple[MemberId, ...]  # the current members; at the first epoch, the members
    must: Mapping[MemberId, tuple[str, ...]]  # who is among them in any case, and why
    accept: Mapping[MemberId, str]  # who signs with a key that is new, and why

    @property
    def vetoes(self) -> dict[MemberId, tuple[str, ...]]:
        """Who must sign for the sake of what it brings."""
        picked = {m: tuple(r for r in reasons if r.startswith(VETO)) for m, reasons in self.must.items()}
        return {member: reasons for member, reasons in picked.items() if reasons}


VETO = "owner: "


def changed_clauses(current: Manifest, new: Manifest) -> tuple[str, ...]:
    """The clauses in which two manifests differ; the consortium's name counts as `members`."""
    changed = [clause for clause in CLAUSES if getattr(current, clause) != getattr(new, clause)]
    if current.name != new.name and "members" not in changed:
        changed.insert(0, "members")
    return tuple(changed)


def requirements(current: Manifest | None, new: Manifest) -> Requirements:
    """What `new` needs as the successor of `current`; all members' signatures where it is the first epoch."""
    if current is None:
        everybody = tuple(MemberId(m.id) for m in new.members)
        return Requirements(
            changed=CLAUSES,
            quorum=len(everybody),
            voters=everybody,
            must=dict.fromkeys(everybody, ("the first epoch needs every member",)),
            accept={},
        )
    changed = changed_clauses(current, new)
    quorums = current.quorum.model_dump()
    accept = dict(_entering(current, new))
    must: dict[MemberId, tuple[str, ...]] = {}
    for member, reason in (*_owners_touched(current, new, changed), *_entries_changed(current, new)):
        if current.member(member) is not None and reason not in must.get(member, ()):
            must[member] = (*must.get(member, ()), reason)
    return Requirements(
        changed=changed,
        quorum=max((quorums[clause] for clause in changed), default=quorums["members"]),
        voters=tuple(MemberId(m.id) for m in current.members),
        must=must,
        accept=accept,
    )


def _entering(current: Manifest, new: Manifest) -> Iterable[tuple[MemberId, str]]:
    keys = {m.id: m.signing_key for m in current.members}
    for member in new.members:
        if member.id not in keys:
            yield MemberId(member.id), "joins"
        elif keys[member.id] != member.signing_key:
            yield MemberId(member.id), "gets a new signing key"


def _entries_changed(current: Manifest, new: Manifest) -> Iterable[tuple[MemberId, str]]:
    before = {m.id: m for m in current.members}
    for member in new.members:
        if member.id in before and before[member.id] != member:
            yield MemberId(member.id), "its own entry changes"


def _owners_touched(current: Manifest, new: Manifest, changed: tuple[str, ...]) -> Iterable[tuple[MemberId, str]]:
    before = {a.name: a for a in current.assets}
    after = {a.name: a for a in new.assets}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            for asset in (before.get(name), after.get(name)):
                if asset is not None and asset.owner != "public":
                    yield MemberId(asset.owner), f"{VETO}the asset {name} changes"
    touched = AT_STAKE.intersection(changed)
    if _base_models(current) != _base_models(new):
        touched |= {"jobs"}
    if not touched:
        return
    clauses = ", ".join(clause for clause in CLAUSES if clause in touched)
    verb = "touches" if len(touched) == 1 else "touch"
    for member in sorted(_stakeholders(current, new, every_asset="workloads" in touched)):
        yield member, f"{VETO}{clauses} {verb} what it brings"


def _stakeholders(current: Manifest, new: Manifest, *, every_asset: bool) -> set[MemberId]:
    """Who has something at stake: owners of the assets concerned, before and after; contributors of data, after."""
    owners = {
        asset.owner
        for manifest in (current, new)
        for asset in manifest.assets
        if every_asset or asset.kind == "dataset" or asset in _base_models(manifest)
    }
    return {MemberId(owner) for owner in owners if owner != "public"} | set(new.trainers)


def _base_models(manifest: Manifest) -> list[Asset | None]:
    """What the jobs train on, job by job."""
    return [manifest.asset(job.base_model) for job in manifest.jobs]
