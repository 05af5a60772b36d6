"""Sealed assets, several jobs and released results in the manifest: what fits together, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from superswarm.consortium.approval import succeed
from superswarm.consortium.grant import SignedGrant, approve_grant, sign_grant
from superswarm.errors import BadSignature, Malformed, NoGrant, OwnerVeto
from superswarm.values import MemberId
from tests import consortia
from tests.consortia import approved, grant, job, manifest, member, sign_all, successor

ALL = ["alice", "bob", "carol"]
TERMS = {"members": ALL, "not_after": "2027-01-31", "times": 3}
SERVER = {"platforms": ["simulated"], "measurements": [consortia.measurement("server")]}


def asset(name: str, owner: str, kind: str = "model", **release: Any) -> dict[str, Any]:
    plain = {"name": name, "kind": kind, "owner": owner, "digest": consortia.digest(name), "source": "s"}
    return plain | {"release": TERMS | release}


def workloads(**more: Any) -> dict[str, Any]:
    return consortia.manifest_data()["workloads"] | more


def test_a_trainer_needs_the_jobs_model_and_its_own_data() -> None:
    agreed = manifest(
        assets=[
            asset("base", "alice"),
            asset("other", "bob"),
            asset("records", "bob", "dataset", members=["bob"]),
            asset("notes", "carol", "dataset", members=["carol"]),
        ],
        jobs=[job(), job(name="second", base_model="other")],
    )
    first, second = agreed.jobs
    assert [a.name for a in agreed.sealed_for("bob", first)] == ["base", "records"]
    assert [a.name for a in agreed.sealed_for("bob", second)] == ["other", "records"]
    assert [a.name for a in agreed.sealed_for("alice", first)] == ["base"]
    assert manifest().sealed_for("alice", manifest().jobs[0]) == ()


def test_the_last_day_of_a_release_is_whole_and_in_utc() -> None:
    release = manifest(assets=[asset("base", "alice")]).assets[0].release
    assert release is not None
    assert release.ends == 1_801_439_999  # 2027-01-31T23:59:59Z


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"assets": [asset("base", "public")]}, "asset base is sealed, so a member must own it"),
        ({"assets": [asset("base", "alice", members=[*ALL, "dave"])]}, "released to dave, who is not a member"),
        ({"assets": [asset("base", "alice", members=["alice", "bob"])]}, "carol trains the job adapter, but the key"),
        ({"assets": [asset("base", "alice", not_after="2027-02-30")]}, "not_after"),
        ({"assets": [asset("base", "alice", not_after="20270131")]}, "not_after"),
        ({"assets": [asset("base", "alice", times=0)]}, "times"),
        ({"assets": [asset("base", "alice", roles=["aggregator"])]}, "roles"),
        (
            {"assets": [asset("base", "alice"), asset("d", "bob", "dataset", roles=["server"])]},
            "no server needs",
        ),
        ({"jobs": [job(), job()]}, "2 jobs have the name adapter"),
        ({"jobs": [job(base_model="nothing")]}, "base_model of the job adapter is nothing"),
        ({"jobs": []}, "jobs"),
        ({"result": {}}, "nobody gets the result"),
        (
            {"result": {"serving": ["bob"]}, "workloads": workloads(server=SERVER)},
            "serving needs result.approvals",
        ),
        ({"result": {"serving": ["bob"], "approvals": 2}}, "result.serving and workloads.server go together"),
        ({"workloads": workloads(server=SERVER)}, "result.serving and workloads.server go together"),
        (
            {"result": {"recipients": ["bob"], "approvals": 4}},
            "approvals is over the 3 members",
        ),
        ({"result": {"serving": ["dave"], "approvals": 1}, "workloads": workloads(server=SERVER)}, "names dave"),
    ],
)
def test_what_does_not_fit_together_is_named(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(Malformed, match=fault):
        manifest(**changes)


def test_a_trainer_is_no_member_that_only_hosts() -> None:
    with pytest.raises(Malformed, match="released to the trainer of dave, who contributes no data"):
        manifest(
            *(member(name, consortia.DATA) for name in ALL),
            member("dave", "hosting"),
            assets=[asset("base", "alice", members=[*ALL, "dave"])],
        )


def test_contributors_bring_data_or_a_model() -> None:
    agreed = manifest(member("alice", "data"), member("bob", "model"), member("carol", "hosting"), member("dave"))
    assert agreed.contributors == ("alice", "bob")


def test_terms_of_release_are_changed_by_their_owner_only() -> None:
    current = approved(assets=[asset("base", "alice")])
    looser = successor(current, assets=[asset("base", "alice", times=9)])
    with pytest.raises(OwnerVeto, match="alice must sign: owner: the asset base changes"):
        succeed(current, sign_all(looser, current, by=["bob", "carol"]))


def test_a_grant_names_a_job_of_the_manifest() -> None:
    current = approved(jobs=[job(), job(name="second")])
    granted = consortia.approved_grant(current, job="second")
    assert granted.job.name == "second"
    with pytest.raises(NoGrant, match="job third, which the manifest does not have"):
        consortia.approved_grant(current, job="third")


def test_a_grant_for_one_job_is_none_for_another() -> None:
    """The job is part of what members sign."""
    current = approved(jobs=[job(), job(name="second")])
    honest = grant(current, job="adapter")
    signatures = {MemberId(name): sign_grant(consortia.signing_key(name), honest, current.domain) for name in ALL}
    moved = replace(honest, job="second")
    with pytest.raises(BadSignature):
        approve_grant(SignedGrant(moved, signatures), current)
