"""Each rule of approval, and the attack that it stops."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

import superswarm
from superswarm.consortium.approval import (
    ApprovedManifest,
    SignedManifest,
    approve,
    chain_to_bytes,
    parse_chain,
    sign_manifest,
    standing,
    succeed,
)
from superswarm.consortium.manifest import Manifest
from superswarm.consortium.rules import CLAUSES, CONSTANT, POSITION, requirements
from superswarm.crypto.signing import ED25519_SIGNATURE
from superswarm.errors import BadSignature, Fork, Malformed, NotApproved, OwnerVeto
from superswarm.values import Digest, MemberId
from tests.consortia import (
    DATA,
    TDX_POLICY,
    approved,
    digest,
    job,
    manifest,
    measurement,
    member,
    quorums,
    sign_all,
    signing_key,
    successor,
)

ALICE, BOB, CAROL, DAVE = (MemberId(name) for name in ("alice", "bob", "carol", "dave"))


def owned(name: str, owner: str, kind: str = "model") -> dict[str, str]:
    return {"name": name, "kind": kind, "owner": owner, "digest": digest(name), "source": "somewhere"}


def hospital_consortium() -> ApprovedManifest:
    """alice and bob bring data, carol owns the base model, dave only hosts; quorum 3 of 4."""
    return approved(
        member("alice", DATA),
        member("bob", DATA),
        member("carol", "model"),
        member("dave", "hosting"),
        assets=[owned("base", "carol")],
    )


def test_the_first_epoch_needs_every_member() -> None:
    first = manifest()
    assert approve([sign_all(first)]).signers == (ALICE, BOB, CAROL)
    with pytest.raises(NotApproved, match="carol must sign"):
        approve([sign_all(first, by=["alice", "bob"])])


def test_no_manifest_is_not_approved() -> None:
    with pytest.raises(NotApproved):
        approve([])


def test_the_first_epoch_shown_must_be_epoch_1() -> None:
    current = approved()
    with pytest.raises(Fork, match="begins with epoch 1"):
        approve([sign_all(successor(current), current)])


def test_a_pinned_digest_must_be_in_the_chain() -> None:
    current = approved()
    following = successor(current, name="Renamed")
    chain = [sign_all(manifest()), sign_all(following, current)]
    assert approve(chain, pinned=current.digest).digest == following.digest
    assert approve(chain, pinned=following.digest).history == (current.digest, following.digest)
    with pytest.raises(Fork, match="pinned"):
        approve(chain[:1], pinned=following.digest)
    with pytest.raises(Fork, match="pinned"):
        approve([sign_all(manifest(name="Another"))], pinned=current.digest)


@pytest.mark.parametrize("half", ["ed25519", "mldsa"])
def test_half_a_hybrid_signature_is_refused(half: str) -> None:
    first, rival = manifest(), manifest(name="Another")
    good, other = sign_manifest(signing_key("bob"), first), sign_manifest(signing_key("bob"), rival)
    mixed = {
        "ed25519": good[:ED25519_SIGNATURE] + other[ED25519_SIGNATURE:],
        "mldsa": other[:ED25519_SIGNATURE] + good[ED25519_SIGNATURE:],
    }[half]
    signed = sign_all(first)
    with pytest.raises(BadSignature, match="bob"):
        approve([dataclasses.replace(signed, signatures={**signed.signatures, BOB: mixed})])


def test_a_stranger_may_not_sign_even_where_enough_members_did() -> None:
    first = manifest()
    signed = sign_all(first)
    signatures = {**signed.signatures, MemberId("mallory"): sign_manifest(signing_key("mallory"), first)}
    with pytest.raises(BadSignature, match="mallory signs"):
        approve([dataclasses.replace(signed, signatures=signatures)])


def test_a_signature_on_one_epoch_does_not_serve_another() -> None:
    current = approved()
    first = sign_all(manifest())
    with pytest.raises(BadSignature):
        succeed(current, SignedManifest(successor(current, name="Renamed"), first.signatures))


def test_a_signature_on_a_simulated_manifest_does_not_serve_a_real_one() -> None:
    simulated = manifest()
    real = manifest(*(member(name, DATA, simulated=False) for name in ("alice", "bob", "carol")), attestation="real")
    assert simulated.digest != real.digest
    with pytest.raises(BadSignature):
        approve([SignedManifest(real, sign_all(simulated).signatures)])


def test_rival_successors_need_majorities_that_overlap() -> None:
    current = hospital_consortium()
    one, other = successor(current, name="One"), successor(current, name="Other")
    succeed(current, sign_all(one, current, by=["alice", "bob", "carol"]))
    with pytest.raises(NotApproved, match="1 members signed"):
        succeed(current, sign_all(other, current, by=["dave"]))


def test_a_successor_that_names_another_predecessor_is_a_fork() -> None:
    current = approved()
    rival = approved(name="Another")
    with pytest.raises(Fork, match="predecessor"):
        succeed(current, sign_all(successor(rival), current))


def test_an_epoch_may_not_be_skipped_or_come_twice() -> None:
    current = approved()
    data = successor(current).to_data()
    for epoch in (3, 7):
        with pytest.raises(Fork, match=f"epoch {epoch} cannot follow"):
            succeed(current, sign_all(Manifest.from_data(data | {"epoch": epoch}), current))
    signed = sign_all(successor(current), current)
    with pytest.raises(Fork, match="epoch 2 cannot follow epoch 2"):
        succeed(succeed(current, signed), signed)


@pytest.mark.parametrize(("name", "value"), [("consortium", "f" * 32), ("attestation", "real")])
def test_what_never_changes_may_not_change_even_if_all_sign(name: str, value: str) -> None:
    current = approved()
    data = successor(current).to_data()
    if name == "attestation":
        for party in [*data["members"], data["coordinator"]]:
            del party["development_authority"]
        for workload in data["workloads"].values():
            workload |= {"platforms": ["tdx"], "policy": {"tdx": TDX_POLICY}}
    with pytest.raises(NotApproved, match="never changes"):
        succeed(current, sign_all(Manifest.from_data(data | {name: value}), current))


def test_the_quorum_is_that_of_the_current_epoch_and_not_the_one_proposed() -> None:
    current = approved(quorum=quorums(3))
    lower = successor(current, quorum=quorums(2))
    with pytest.raises(NotApproved, match="changing quorum needs 3"):
        succeed(current, sign_all(lower, current, by=["alice", "bob"]))
    assert succeed(current, sign_all(lower, current)).manifest.quorum.run == 2


def test_the_highest_quorum_of_all_changed_clauses_counts() -> None:
    current = approved(
        *(member(name, "hosting") for name in ("alice", "bob", "carol", "dave")),
        member("erin", DATA),
        quorum=quorums(3, members=5, quorum=5, assets=4),
    )
    both = successor(current, assets=[owned("base", "public"), owned("more", "public")], metrics={"release": []})
    with pytest.raises(NotApproved, match="assets, metrics needs 4"):
        succeed(current, sign_all(both, current, by=["alice", "bob", "erin"]))
    succeed(current, sign_all(both, current, by=["alice", "bob", "carol", "erin"]))


def test_a_successor_that_changes_nothing_still_needs_the_members_quorum() -> None:
    """Otherwise nobody's signature would be needed to void every grant of an epoch."""
    current = approved()
    again = successor(current)
    with pytest.raises(NotApproved, match="changing nothing needs 2"):
        succeed(current, SignedManifest(again))
    assert succeed(current, sign_all(again, current, by=["alice", "bob"])).manifest.epoch == 2


def test_members_may_not_be_diluted_by_fewer_than_any_other_quorum() -> None:
    """Five of five vouch for the aggregator; three may not add members until five are a minority's word."""
    with pytest.raises(Malformed, match=r"quorum\.members is 3: it must be at least quorum\.aggregator, 5"):
        approved(*(member(f"m{i}", DATA) for i in range(5)), quorum=quorums(3, aggregator=5, quorum=5))


def test_who_joins_must_accept_with_the_key_that_is_listed() -> None:
    current = approved()
    bigger = successor(
        current, members=[*current.manifest.to_data()["members"], member("dave", DATA)], quorum=quorums(3)
    )
    full = sign_all(bigger, current)
    assert succeed(current, full).verifying_key("dave") == signing_key("dave").public
    with pytest.raises(NotApproved, match="dave joins"):
        succeed(current, dataclasses.replace(full, acceptances={}))
    with pytest.raises(BadSignature, match="dave"):
        succeed(current, dataclasses.replace(full, acceptances={DAVE: sign_manifest(signing_key("eve"), bigger)}))


def test_who_joins_has_no_vote_yet() -> None:
    current = approved()
    bigger = successor(
        current, members=[*current.manifest.to_data()["members"], member("dave", DATA)], quorum=quorums(3)
    )
    with pytest.raises(NotApproved, match="1 members signed"):
        succeed(current, sign_all(bigger, current, by=["alice", "dave"]))
    signed = sign_all(bigger, current)
    voting = {**signed.signatures, DAVE: sign_manifest(signing_key("dave"), bigger)}
    with pytest.raises(BadSignature, match="dave signs"):
        succeed(current, dataclasses.replace(signed, signatures=voting))


def test_a_new_key_needs_the_old_key_and_the_new_one() -> None:
    current = approved()
    entries = current.manifest.to_data()["members"]
    entries[0] = member("alice", DATA, key="alice/2")
    rekeyed = successor(current, members=entries)
    full = sign_all(rekeyed, current)
    assert succeed(current, full).verifying_key("alice") == signing_key("alice/2").public
    with pytest.raises(NotApproved, match="alice gets a new signing key"):
        succeed(current, dataclasses.replace(full, acceptances={}))
    with pytest.raises(NotApproved, match="alice must sign: its own entry changes"):
        succeed(current, SignedManifest(rekeyed, {k: v for k, v in full.signatures.items() if k != ALICE}))
    by_new_key = {**full.signatures, ALICE: full.acceptances[ALICE]}
    with pytest.raises(BadSignature, match="alice"):
        succeed(current, dataclasses.replace(full, signatures=by_new_key))


def test_nobody_is_given_another_part_without_its_signature() -> None:
    current = approved()
    entries = current.manifest.to_data()["members"]
    entries[1] = member("bob", DATA, "hosting")
    with pytest.raises(NotApproved, match="bob must sign: its own entry changes"):
        succeed(current, sign_all(successor(current, members=entries), current, by=["alice", "carol"]))


def test_an_acceptance_that_nobody_asked_for_is_refused() -> None:
    current = approved()
    renamed = successor(current, name="Renamed")
    extra = {ALICE: sign_manifest(signing_key("alice"), renamed)}
    with pytest.raises(BadSignature, match="neither joins"):
        succeed(current, dataclasses.replace(sign_all(renamed, current), acceptances=extra))


HANDLING = {
    "coordinator": {"name": "Another operator", "development_authority": digest("authority operator")},
    "workloads": {
        role: {"platforms": ["simulated"], "measurements": [measurement("patched")]}
        for role in ("trainer", "aggregator")
    },
    "jobs": [job(rounds=90)],
    "aggregation": {"rule": "fedavg", "weighting": "equal", "minimum_cohort": 1, "round_seconds": 600},
    "metrics": {"release": ["train_loss"], "granularity": "member", "to": ["operator"]},
    "result": {"recipients": ["dave"]},
}


@pytest.mark.parametrize("clause", HANDLING)
@pytest.mark.parametrize("owner", ["alice", "bob", "carol"])
def test_who_has_something_at_stake_has_a_veto(clause: str, owner: str) -> None:
    """alice and bob by their data, carol by the base model; dave, who only hosts, has none."""
    current = hospital_consortium()
    changed = successor(current, **{clause: HANDLING[clause]})
    others = {"alice", "bob", "carol", "dave"} - {owner}
    with pytest.raises(OwnerVeto, match=f"{owner} must sign: owner: {clause}"):
        succeed(current, sign_all(changed, current, by=others))
    succeed(current, sign_all(changed, current, by=["alice", "bob", "carol"]))


def test_the_clauses_that_cannot_differ_yet_are_vetoed_too() -> None:
    """`protection` and `privacy` have one value each so far; the rule must be there when they get more."""
    current = hospital_consortium().manifest
    for clause in ("protection", "privacy"):
        new = current.model_copy(update={clause: None})
        assert set(requirements(current, new).vetoes) == {ALICE, BOB, CAROL}


def test_an_asset_is_not_changed_removed_or_handed_over_without_its_owner() -> None:
    current = approved(
        member("alice", DATA), member("bob"), member("carol"), assets=[owned("base", "public"), owned("spare", "bob")]
    )
    base, spare = current.manifest.to_data()["assets"]
    for assets in ([base, spare | {"digest": digest("other")}], [base], [base, spare | {"owner": "public"}]):
        changed = successor(current, assets=assets)
        with pytest.raises(OwnerVeto, match="bob must sign: owner: the asset spare changes"):
            succeed(current, sign_all(changed, current, by=["alice", "carol"]))
        succeed(current, sign_all(changed, current, by=["alice", "bob"]))


def test_nobody_is_made_an_owner_unasked() -> None:
    current = approved(member("alice", DATA), member("bob"), member("carol"))
    base = current.manifest.to_data()["assets"]
    for assets in ([*base, owned("claimed", "carol")], [base[0] | {"owner": "carol"}]):
        with pytest.raises(OwnerVeto, match="carol must sign"):
            succeed(current, sign_all(successor(current, assets=assets), current, by=["alice", "bob"]))


def test_a_public_base_model_is_not_swapped_behind_the_backs_of_those_who_train_on_it() -> None:
    """Only the asset's digest changes, not `job`; a malicious base model makes an adapter remember data."""
    current = approved(member("alice", DATA), member("bob"), member("carol"))
    poisoned = successor(current, assets=[owned("base", "public") | {"digest": digest("poisoned")}])
    with pytest.raises(OwnerVeto, match="alice must sign: owner: job"):
        succeed(current, sign_all(poisoned, current, by=["bob", "carol"]))


def test_an_owner_is_not_sent_away_together_with_its_asset() -> None:
    current = hospital_consortium()
    entries = [m for m in current.manifest.to_data()["members"] if m["id"] != "carol"]
    without = successor(current, members=entries, assets=[owned("base", "dave")], quorum=quorums(2))
    with pytest.raises(OwnerVeto, match="carol must sign"):
        succeed(current, sign_all(without, current, by=["alice", "bob", "dave"]))


def test_a_contributor_of_data_that_vetoes_can_be_left_out() -> None:
    """Its veto protects its data, not its place: the others go on without both."""
    current = hospital_consortium()
    entries = [m for m in current.manifest.to_data()["members"] if m["id"] != "bob"]
    without = successor(current, members=entries, quorum=quorums(2), metrics={"release": []})
    assert succeed(current, sign_all(without, current, by=["alice", "carol", "dave"])).manifest.trainers == (ALICE,)


def test_an_owner_of_an_unused_model_vetoes_code_but_not_the_job() -> None:
    current = approved(
        member("alice", DATA), member("bob"), member("carol"), assets=[owned("base", "public"), owned("spare", "bob")]
    )
    succeed(current, sign_all(successor(current, jobs=HANDLING["jobs"]), current, by=["alice", "carol"]))
    patched = successor(current, workloads=HANDLING["workloads"])
    with pytest.raises(OwnerVeto, match="bob must sign"):
        succeed(current, sign_all(patched, current, by=["alice", "carol"]))


@pytest.mark.parametrize(("before", "after"), [("mine", "other"), ("other", "mine")])
def test_a_job_is_not_moved_off_or_onto_a_model_without_its_owner(before: str, after: str) -> None:
    """The asset itself stays as it is; carol brings nothing but the model."""
    current = approved(
        member("alice", DATA),
        member("bob", DATA),
        member("carol", "model"),
        assets=[owned("mine", "carol"), owned("other", "public")],
        jobs=[job(base_model=before)],
    )
    moved = successor(current, jobs=[job(base_model=after)])
    with pytest.raises(OwnerVeto, match="carol must sign: owner: job"):
        succeed(current, sign_all(moved, current, by=["alice", "bob"]))
    succeed(current, sign_all(moved, current))


def test_the_owner_of_a_dataset_has_something_at_stake_without_training_itself() -> None:
    current = approved(
        member("alice", DATA),
        member("bob"),
        member("carol"),
        assets=[owned("base", "public"), owned("records", "bob", "dataset")],
    )
    changed = successor(current, metrics={"release": []})
    with pytest.raises(OwnerVeto, match="bob must sign: owner: metrics"):
        succeed(current, sign_all(changed, current, by=["alice", "carol"]))


def test_the_consortiums_name_changes_by_the_quorum_for_members() -> None:
    current = approved(*(member(f"m{i}", DATA) for i in range(4)), quorum=quorums(3, members=4, quorum=4))
    renamed = successor(current, name="Renamed", quorum=current.manifest.to_data()["quorum"])
    with pytest.raises(NotApproved, match="changing members needs 4"):
        succeed(current, sign_all(renamed, current, by=["m0", "m1", "m2"]))


def test_standing_says_who_is_missing() -> None:
    current = hospital_consortium()
    changed = successor(current, metrics={"release": []})
    found = standing(current, sign_all(changed, current, by=["dave"]))
    assert set(found.missing) == {ALICE, BOB, CAROL}
    assert (found.signers, found.short, found.complete) == ((DAVE,), 2, False)
    assert standing(current, sign_all(changed, current)).complete


def test_signed_manifests_and_chains_survive_the_journey() -> None:
    current = approved()
    first = sign_all(manifest())
    second = sign_all(successor(current, name="Renamed"), current)
    assert SignedManifest.parse(second.to_bytes()) == second
    assert parse_chain(chain_to_bytes([first, second])) == (first, second)
    assert parse_chain(first.to_bytes()) == (first,)


def test_keys_of_strangers_are_not_given_out() -> None:
    with pytest.raises(NotApproved):
        approved().verifying_key("mallory")
    with pytest.raises(NotApproved):
        approved().encryption_key("mallory")


def test_every_field_of_a_manifest_has_a_rule() -> None:
    """A clause that is added and forgotten here could be changed by anybody."""
    assert set(Manifest.model_fields) == {*CLAUSES, *CONSTANT, *POSITION, "name"}


def test_a_thousand_members_are_approved_in_seconds() -> None:
    many = manifest(*(member(f"m{i}", DATA) for i in range(1000)))
    tag, message = f"{many.domain}/manifest", many.digest.raw
    signatures = {MemberId(m.id): signing_key(m.id).sign(tag, message) for m in many.members}
    raw = SignedManifest(many, signatures).to_bytes()
    assert len(approve(parse_chain(raw)).signers) == 1000


def test_the_digest_that_is_signed_covers_domain_and_bytes() -> None:
    one = manifest()
    assert one.digest == Digest.of(b"superswarm/v1/simulated\0" + one.to_json())


def test_only_approval_makes_the_types_that_prove_it() -> None:
    """No other module of the shipped packages constructs them."""
    makers = {"ApprovedManifest": "approval.py", "ApprovedGrant": "grant.py"}
    root = Path(superswarm.__file__).parent.parent
    for package in ("superswarm", "participants", "coordinator"):
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    assert makers.get(name, path.name) == path.name, f"{path} makes {name}"
