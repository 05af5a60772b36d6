"""A member leaves: every place of a manifest that names it, taken out of the next epoch's draft. Decides nothing.

What cannot be left out without a decision (an owner for an asset, a base model for a job) is said, and `manifest
check` refuses the draft until somebody has decided.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from participants.drafting import to_toml
from superswarm.consortium.manifest import load_toml
from superswarm.errors import Misconfigured

Table = dict[str, Any]


def remove_members(text: str, members: Sequence[str], *, drop_assets: bool) -> tuple[str, list[str]]:
    """The draft without these members, and what changed. Keeps the comment at the top, and none below it.

    Raises Misconfigured for somebody who is no member, for the last one, and for one that owns assets, unless those
    are to be dropped.
    """
    data: Table = copy.deepcopy(load_toml(text))
    notes = [note for member in members for note in _remove(data, member, drop_assets=drop_assets)]
    head = [line for line in text.splitlines()[: _comment_lines(text)] if line]
    return "\n".join([*head, to_toml(data)]), notes


def _comment_lines(text: str) -> int:
    for number, line in enumerate(text.splitlines()):
        if line.strip() and not line.startswith("#"):
            return number
    return 0


def _remove(data: Table, member: str, *, drop_assets: bool) -> Iterator[str]:
    members = _tables(data, "members")
    left = [entry for entry in members if entry.get("id") != member]
    if len(left) == len(members):
        raise Misconfigured(f"{member} is no member in this draft")
    if not left:
        raise Misconfigured(f"{member} is the only member: a consortium has at least one")
    data["members"] = left
    yield f"{member} is no member any more"
    yield from _take_assets(data, member, drop=drop_assets)
    yield from _take_releases(data, member)
    yield from _take_result(data, member)
    yield from _fit_cohort(data)


def _take_assets(data: Table, member: str, *, drop: bool) -> Iterator[str]:
    assets = _tables(data, "assets")
    owned = [str(asset.get("name")) for asset in assets if asset.get("owner") == member]
    if owned and not drop:
        raise Misconfigured(
            f"{member} owns {', '.join(owned)}: take it out with --drop-assets, or first write another owner into "
            "this file, who agrees to it"
        )
    data["assets"] = [asset for asset in assets if asset.get("owner") != member]
    for name in owned:
        yield f"assets: {name} leaves with its owner"
    for job in _tables(data, "jobs"):
        if job.get("base_model") in owned:
            yield f"jobs: {job.get('name')} trains on {job['base_model']}, which leaves: give it another base model"


def _take_releases(data: Table, member: str) -> Iterator[str]:
    for asset in _tables(data, "assets"):
        release = asset.get("release")
        if isinstance(release, dict) and _take(release, "members", member):
            yield f"assets: {asset.get('name')} is not released to {member} any more"
            if not release["members"]:
                yield f"assets: {asset.get('name')} is now released to nobody: name a member, or take it out"


def _take_result(data: Table, member: str) -> Iterator[str]:
    result, workloads = _table(data, "result"), _table(data, "workloads")
    if _take(result, "recipients", member):
        yield f"result.recipients: without {member}"
    if _take(result, "serving", member):
        yield f"result.serving: without {member}"
        if not result["serving"] and workloads.pop("server", None) is not None:
            yield "workloads.server: taken out, since nobody serves results any more"
    if not result.get("recipients") and not result.get("serving"):
        yield "result: nobody gets the result any more: name recipients"
    contributors = sum(bool({"data", "model"} & set(m.get("contributes", ()))) for m in _tables(data, "members"))
    approvals = result.get("approvals", 0)
    if isinstance(approvals, int) and approvals > contributors > 0:
        result["approvals"] = contributors
        yield f"result.approvals: {approvals} → {contributors}, all contributors that are left"


def _fit_cohort(data: Table) -> Iterator[str]:
    aggregation = _table(data, "aggregation")
    trainers = sum("data" in m.get("contributes", ()) for m in _tables(data, "members"))
    minimum = aggregation.get("minimum_cohort")
    if trainers == 0:
        yield "members: nobody contributes data any more: a run needs somebody"
    elif isinstance(minimum, int) and minimum > trainers:
        aggregation["minimum_cohort"] = trainers
        yield f"aggregation.minimum_cohort: {minimum} → {trainers}, all that contribute data"


def _take(table: Table, key: str, member: str) -> bool:
    names = table.get(key)
    if not isinstance(names, list) or member not in names:
        return False
    table[key] = [name for name in names if name != member]
    return True


def _table(data: Mapping[str, Any], key: str) -> Table:
    found = data.get(key)
    return found if isinstance(found, dict) else {}


def _tables(data: Mapping[str, Any], key: str) -> list[Table]:
    found = data.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
