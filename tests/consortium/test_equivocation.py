"""Two signatures on rival epochs: refused by one's own tool, and provable by others."""

from __future__ import annotations

import dataclasses

import pytest

from superswarm.consortium.approval import SignedManifest, sign_manifest
from superswarm.consortium.equivocation import Equivocation, SigningRecord, find_equivocation
from superswarm.errors import BadSignature, Error, Fork, Malformed
from superswarm.values import Digest
from tests.consortia import DATA, approved, digest, manifest, member, quorums, sign_all, signing_key, successor


def test_who_signs_two_successors_of_one_epoch_is_found_out() -> None:
    current = approved()
    one = sign_all(successor(current, name="One"), current, by=["alice", "bob"])
    other = sign_all(successor(current, name="Other"), current, by=["bob", "carol"])
    (proof,) = find_equivocation(one, other)
    assert proof.member == "bob"
    Equivocation.parse(proof.to_bytes()).verify(current)


def test_a_new_key_does_not_hide_the_old_ones_signatures() -> None:
    current = approved()
    entries = [member("alice", DATA, key="alice/2"), *current.manifest.to_data()["members"][1:]]
    one = sign_all(successor(current, members=entries), current, by=["alice", "bob"])
    other = sign_all(successor(current, name="Other"), current, by=["alice", "carol"])
    (proof,) = find_equivocation(one, other)
    assert (proof.member, proof.key) == ("alice", signing_key("alice").public)
    proof.verify(current)


def test_two_acceptances_of_rivals_are_found_out() -> None:
    current = approved()
    entries = [*current.manifest.to_data()["members"], member("dave", DATA)]
    one, other = (
        sign_all(successor(current, members=entries, quorum=quorums(3), name=name), current, by=["dave"])
        for name in ("One", "Other")
    )
    assert [proof.member for proof in find_equivocation(one, other)] == ["dave"]


def test_the_same_epoch_twice_or_two_epochs_are_no_equivocation() -> None:
    current = approved()
    one = sign_all(successor(current), current)
    assert find_equivocation(one, one) == ()
    assert find_equivocation(sign_all(manifest()), one) == ()
    assert find_equivocation(sign_all(manifest()), sign_all(manifest(consortium="f" * 32))) == ()


def test_nobody_is_accused_by_signatures_that_do_not_hold() -> None:
    current = approved()
    one = sign_all(successor(current, name="One"), current)
    other = successor(current, name="Other")
    assert find_equivocation(one, SignedManifest(other, one.signatures)) == ()
    assert (
        find_equivocation(one, sign_all(other, current, keys=dict.fromkeys(("alice", "bob", "carol"), "eve"))) == ()
    )


def test_a_proof_about_another_key_or_consortium_proves_nothing() -> None:
    """The accuser writes two rivals in which it gives "alice" a key of its own."""
    current = approved()
    entries = [member("alice", DATA, key="mallory"), *current.manifest.to_data()["members"][1:]]
    one, other = (successor(current, members=entries, name=name) for name in ("One", "Other"))
    forged = [
        SignedManifest(rival, {entries[0]["id"]: sign_manifest(signing_key("mallory"), rival)})
        for rival in (one, other)
    ]
    (proof,) = find_equivocation(*forged)
    with pytest.raises(BadSignature, match="not that of alice"):
        proof.verify(current)
    with pytest.raises(BadSignature):
        dataclasses.replace(proof, key=signing_key("alice").public).verify(current)
    with pytest.raises(Malformed, match="another consortium"):
        proof.verify(approved(consortium="f" * 32))
    with pytest.raises(Malformed, match="same epoch"):
        dataclasses.replace(proof, second=proof.first).verify(current)


@pytest.mark.parametrize("which", ["first", "second"])
def test_one_signature_is_no_fraud(which: str) -> None:
    current = approved()
    one, other = (sign_all(successor(current, name=name), current) for name in ("One", "Other"))
    proof = find_equivocation(one, other)[0]
    proof.verify(current)
    signatures = {"first": proof.first_signature, "second": proof.second_signature}
    (remaining,) = [signature for name, signature in signatures.items() if name != which]
    with pytest.raises(BadSignature):
        dataclasses.replace(proof, **{f"{which}_signature": remaining}).verify(current)


def test_the_record_permits_one_manifest_an_epoch() -> None:
    current = approved()
    one, other = successor(current, name="One"), successor(current, name="Other")
    record = SigningRecord({}).permit(manifest()).permit(one)
    assert record.permit(one) == record
    with pytest.raises(Fork, match="has signed"):
        record.permit(other)
    with pytest.raises(Fork):
        SigningRecord.parse(record.to_bytes()).permit(other)
    record.permit(manifest(consortium="f" * 32))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"format":"superswarm-signing-record/1","signed":{}}',
        b'{"format":"superswarm-signing-record/1","signed":[{}]}',
        b'{"format":"superswarm-signing-record/1","signed":[7]}',
    ],
)
def test_a_damaged_record_is_not_an_empty_one(raw: bytes) -> None:
    with pytest.raises(Error):
        SigningRecord.parse(raw)


def test_a_record_that_names_an_epoch_twice_is_refused() -> None:
    row = f'{{"consortium":"a","epoch":1,"manifest":"{digest("x")}"}}'
    with pytest.raises(Malformed, match="twice"):
        SigningRecord.parse(f'{{"format":"superswarm-signing-record/1","signed":[{row},{row}]}}'.encode())
    assert Digest.parse(digest("x"))
