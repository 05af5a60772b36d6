"""Results that contributors release: k approvals give the key to the one recipient that they name, k - 1 never do."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.consortium.approval import ApprovedManifest, succeed
from superswarm.crypto.shamir import Share, combine, split
from superswarm.crypto.signing import SigningKey
from superswarm.crypto.stream import Chunks, seal_bytes
from superswarm.errors import (
    BadSignature,
    CannotOpen,
    Error,
    Malformed,
    NotApproved,
    OtherManifest,
    OtherRecipient,
    OtherResult,
    Untrusted,
    WrongShare,
)
from superswarm.updates.approvals import Recipient, ResultApproval, SignedApproval
from superswarm.updates.card import CARD, CONFIG, WEIGHTS
from superswarm.updates.container import MAGIC, ResultHead, ResultHeader, check_signature, read_head, sign_stream
from superswarm.updates.publish import addressees, publish, result_header
from superswarm.updates.release import (
    HeldShare,
    RecipientKey,
    hold_share,
    member_recipient,
    open_released,
    release,
    require_shared_out,
)
from superswarm.updates.slots import HpkeSlot, ShareSlot
from superswarm.values import Digest, MemberId
from tests import consortia

ALICE, BOB, CAROL, DAN, ERIN = (MemberId(name) for name in ("alice", "bob", "carol", "dan", "erin"))
CONTRIBUTORS = (ALICE, BOB, CAROL, DAN)
SIGNER = consortia.signing_key("aggregator session")
ADAPTER = {"w": np.arange(8, dtype=np.float32)}
ENTRY = Digest.of(b"an entry of a log")
AT = 1_800_000_000
K = 3


def members() -> list[dict[str, Any]]:
    """Three with data, Dan with the model; Erin and Alice receive."""
    data = [consortia.member(name, consortia.DATA) for name in ("alice", "bob", "carol")]
    return [*data, consortia.member("dan", "model"), consortia.member("erin", "hosting")]


def consortium(approvals: int = K, **changes: Any) -> ApprovedManifest:
    result = {"recipients": ["erin", "alice"], "approvals": approvals}
    return consortia.approved(*members(), **({"result": result} | changes))


def published(manifest: ApprovedManifest, run: str = "run-1") -> bytes:
    return publish(ADAPTER, manifest=manifest, job=manifest.manifest.jobs[0], run=run, rounds=2, signer=SIGNER)


MANIFEST = consortium()
RESULT = published(MANIFEST)


def head_of(raw: bytes) -> tuple[ResultHead, Digest]:
    src = io.BytesIO(raw)
    head = read_head(src)
    return head, check_signature(src, head, SIGNER.public)


def held(member: MemberId, raw: bytes = RESULT, manifest: ApprovedManifest = MANIFEST) -> HeldShare:
    return hold_share(io.BytesIO(raw), manifest, member, consortia.kem_key(member), expected_signer=SIGNER.public)


def approval(
    member: MemberId, to: MemberId = ERIN, raw: bytes = RESULT, manifest: ApprovedManifest = MANIFEST
) -> SignedApproval:
    recipient = member_recipient(manifest, to)
    return held(member, raw, manifest).approve(recipient, consortia.signing_key(member), entry=ENTRY, at=AT)


APPROVALS = [approval(member) for member in CONTRIBUTORS]


def key_of(
    approvals: Iterable[SignedApproval],
    to: MemberId = ERIN,
    raw: bytes = RESULT,
    manifest: ApprovedManifest = MANIFEST,
) -> bytes:
    head, digest = head_of(raw)
    return release(head, digest, manifest, list(approvals), Recipient(to), consortia.kem_key(to))


def altered(signed: SignedApproval, key: SigningKey | None = None, **changes: Any) -> SignedApproval:
    """An approval with other fields, signed anew by whoever is named, or with its old signature."""
    changed = ResultApproval.model_validate({**signed.approval.model_dump(mode="json"), **changes})
    signature = (
        signed.signature if key is None else key.sign(f"{MANIFEST.domain}/result-approval", changed.signed_bytes())
    )
    return SignedApproval(changed, signature)


# --- who gets it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", CONTRIBUTORS)
def test_any_k_contributors_release_it(absent: MemberId) -> None:
    some = [signed for signed in APPROVALS if signed.approval.contributor != absent]
    opened = open_released(
        io.BytesIO(RESULT),
        MANIFEST,
        some,
        Recipient(ERIN),
        consortia.kem_key(ERIN),
        expected_signer=SIGNER.public,
    )
    assert [name for name, _, _ in opened.files] == [WEIGHTS, CONFIG, CARD]


def test_all_of_them_do_too() -> None:
    assert key_of(APPROVALS) == key_of(APPROVALS[:K])


@pytest.mark.parametrize("count", range(K))
def test_fewer_never_do(count: int) -> None:
    with pytest.raises(NotApproved, match=f"{count} contributors approve, and the manifest asks for 3"):
        key_of(APPROVALS[:count])


def test_k_minus_one_shares_and_a_guess_are_not_the_key() -> None:
    """What two colluders get without a third: another key, or none. Tests of Shamir show that it says nothing."""
    known = [held(member).share for member in CONTRIBUTORS[: K - 1]]
    guessed = split(bytes(32), K, 4)[2]
    with pytest.raises((CannotOpen, Malformed)):
        Chunks(combine([*known, guessed], K, 32), head_of(RESULT)[0].prologue)


def test_one_contributor_twice_is_one_approval() -> None:
    again = approval(ALICE)
    for twice in ([APPROVALS[0], APPROVALS[0], APPROVALS[1]], [APPROVALS[0], again, APPROVALS[1]]):
        with pytest.raises(NotApproved, match="alice approves twice"):
            key_of(twice)


def test_a_recipient_cannot_forge_approvals() -> None:
    """Erin signs for Bob with her own key, or takes his signature under other words."""
    erin = consortia.signing_key(ERIN)
    for forged in (altered(APPROVALS[1], erin), altered(APPROVALS[1], time=AT + 1), altered(APPROVALS[1], index=3)):
        with pytest.raises(BadSignature, match="the signature of bob"):
            key_of([APPROVALS[0], forged, APPROVALS[2]])


def test_who_contributes_nothing_approves_nothing() -> None:
    mine = altered(APPROVALS[1], consortia.signing_key(ERIN), contributor="erin")
    with pytest.raises(NotApproved, match="erin approves, but contributes neither"):
        key_of([APPROVALS[0], mine, APPROVALS[2]])


def test_an_approval_for_another_recipient_is_refused() -> None:
    """Alice, a recipient too, has two approvals of her own and takes the third from what was given to Erin."""
    mine = [approval(member, to=ALICE) for member in (ALICE, BOB)]
    with pytest.raises(OtherRecipient, match="carol is for erin, not for alice"):
        key_of([*mine, APPROVALS[2]], to=ALICE)
    renamed = altered(APPROVALS[2], recipient="alice")
    with pytest.raises(BadSignature):
        key_of([*mine, renamed], to=ALICE)


def test_a_share_for_another_recipient_does_not_open_even_if_its_sender_signs_so() -> None:
    """A relay of shares: what was sealed to Erin is no use to Alice under any words."""
    mine = [approval(member, to=ALICE) for member in (ALICE, BOB)]
    resigned = altered(APPROVALS[2], consortia.signing_key(CAROL), recipient="alice")
    with pytest.raises(CannotOpen):
        key_of([*mine, resigned], to=ALICE)


def test_an_approval_for_another_result_is_refused() -> None:
    """Of the same run, and of another run: the other result's approvals do not open this one."""
    for run in ("run-1", "run-2"):
        other = approval(CAROL, raw=published(MANIFEST, run))
        with pytest.raises(OtherResult, match="carol is for another result"):
            key_of([*APPROVALS[:2], other])
        head, digest = head_of(RESULT)
        moved = altered(
            other,
            consortia.signing_key(CAROL),
            run=head.header.run,
            container=head.header.container,
            result=str(digest),
        )
        with pytest.raises(CannotOpen):
            key_of([*APPROVALS[:2], moved])


def test_an_approval_of_another_epoch_is_refused() -> None:
    """The consortium goes on; what was approved under one epoch says nothing about a result of the next."""
    successor = succeed(MANIFEST, consortia.sign_all(consortia.successor(MANIFEST, name="Renamed"), MANIFEST))
    later = published(successor)
    with pytest.raises(OtherManifest, match="alice was given under epoch 1"):
        key_of(APPROVALS, raw=later, manifest=successor)
    with pytest.raises(OtherManifest, match="made under epoch 2"):
        key_of(APPROVALS, raw=later)


def test_who_is_no_recipient_gets_nothing_whatever_is_approved() -> None:
    with pytest.raises(OtherRecipient, match="bob is no recipient"):
        member_recipient(MANIFEST, BOB)
    with pytest.raises(OtherRecipient, match="bob is no recipient"):
        key_of(APPROVALS, to=BOB)
    head, digest = head_of(RESULT)
    with pytest.raises(OtherRecipient, match="erin serves no results"):
        release(head, digest, MANIFEST, APPROVALS, Recipient(ERIN, ENTRY), consortia.kem_key(ERIN))


def test_only_judged_recipients_are_sealed_to() -> None:
    with pytest.raises(TypeError):
        RecipientKey(
            to=Recipient(BOB), kem=consortia.kem_key(BOB).public, manifest=MANIFEST.digest, run=None, proof=None
        )
    with pytest.raises((TypeError, ValueError)):
        replace(held(ALICE), contributor=BOB)
    other = consortium(2)
    with pytest.raises(OtherManifest):
        held(ALICE).approve(member_recipient(other, ERIN), consortia.signing_key(ALICE), entry=ENTRY, at=AT)


# --- shares --------------------------------------------------------------------------------------------------------


def test_a_wrong_share_is_named() -> None:
    """Bob holds a share, and seals another value in its place."""
    mine = held(BOB)
    object.__setattr__(mine, "share", Share(mine.share.index, bytes(66)))
    wrong = mine.approve(member_recipient(MANIFEST, ERIN), consortia.signing_key(BOB), entry=ENTRY, at=AT)
    with pytest.raises(WrongShare, match="the share of bob"):
        key_of([APPROVALS[0], wrong, APPROVALS[2]])


def test_another_contributors_share_is_not_ones_own() -> None:
    """Bob hands in what Carol's slot gave: one share, so that two colluders do not count as three."""
    mine = held(BOB)
    object.__setattr__(mine, "share", held(CAROL).share)
    wrong = mine.approve(member_recipient(MANIFEST, ERIN), consortia.signing_key(BOB), entry=ENTRY, at=AT)
    with pytest.raises(WrongShare, match="bob approves with the share 3, and holds 2"):
        key_of([APPROVALS[0], wrong])
    lied = altered(wrong, consortia.signing_key(BOB), index=2)
    with pytest.raises(CannotOpen):
        key_of([APPROVALS[0], lied])


def test_what_is_sealed_in_place_of_a_share_is_named() -> None:
    approved = APPROVALS[1].approval
    sealed = consortia.kem_key(ERIN).public.seal(b"nothing", info=approved.share_info(MANIFEST.domain))
    wrong = altered(APPROVALS[1], consortia.signing_key(BOB), sealed=base64.b64encode(sealed).decode())
    with pytest.raises(WrongShare, match="what bob sealed is no share"):
        key_of([APPROVALS[0], wrong, APPROVALS[2]])


def test_a_share_slot_opens_for_its_contributor_only() -> None:
    head, _ = head_of(RESULT)
    slot, context = head.header.share_of(BOB), head.header.context
    assert context.open_share(slot, consortia.kem_key(BOB)).index == 2
    with pytest.raises(CannotOpen):
        context.open_share(slot, consortia.kem_key(CAROL))
    for changed in (slot.model_copy(update={"contributor": "carol"}), slot.model_copy(update={"index": 3})):
        with pytest.raises(CannotOpen):
            context.open_share(changed, consortia.kem_key(BOB))
    changes: list[dict[str, Any]] = [
        {"run": "run-2"}, {"container": bytes(32)}, {"manifest": ENTRY}, {"approvals": 2}, {"shares": 5},
        {"attestation": "real"},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(CannotOpen):
            replace(context, **change).open_share(slot, consortia.kem_key(BOB))
    with pytest.raises(CannotOpen, match="'erin' holds no share"):
        held(ERIN)


def test_an_aggregator_that_seals_another_share_than_it_commits_to_is_noticed() -> None:
    head, _ = head_of(RESULT)
    context, slot = head.header.context, head.header.share_of(BOB)
    shares = [(member, consortia.kem_key(BOB).public) for member in CONTRIBUTORS]
    other = context.share_out(bytes(32), shares)[1]
    with pytest.raises(WrongShare):
        context.open_share(slot.model_copy(update={"sealed": other.sealed}), consortia.kem_key(BOB))


def test_an_aggregator_that_shares_out_another_key_is_noticed() -> None:
    """All shares are as committed, and give a key; the ciphertext is under another."""
    job = MANIFEST.manifest.jobs[0]
    header = result_header(MANIFEST, job=job, run="run-1", rounds=2, signer=SIGNER.public, key=bytes(32))
    stream = io.BytesIO(seal_bytes(b"", b"\1" * 32, header=header.to_json()))
    raw = MAGIC + sign_stream(stream, header, SIGNER) + stream.getvalue()
    approvals = [approval(member, raw=raw) for member in CONTRIBUTORS]
    with pytest.raises(CannotOpen):
        key_of(approvals, raw=raw)


def test_nobody_opens_it_by_key_alone() -> None:
    header = head_of(RESULT)[0].header
    assert header.recipients == ()
    assert [slot.contributor for slot in header.shares] == list(CONTRIBUTORS)
    with pytest.raises(CannotOpen, match="3 contributors must approve"):
        header.open_key(ERIN, consortia.kem_key(ERIN))


def test_a_contributor_approves_only_what_the_vouched_aggregator_signed() -> None:
    other = consortia.public_key("another session")
    with pytest.raises(Untrusted) as caught:
        hold_share(io.BytesIO(RESULT), MANIFEST, ALICE, consortia.kem_key(ALICE), expected_signer=other)
    assert caught.type is Untrusted
    broken = RESULT[:-1] + bytes([RESULT[-1] ^ 1])
    with pytest.raises(BadSignature):
        held(ALICE, broken)


def test_a_result_is_shared_out_as_its_manifest_says_or_is_refused() -> None:
    """An aggregator that lowers k, leaves contributors out, or asks nobody."""
    header = head_of(RESULT)[0].header
    require_shared_out(header, MANIFEST)
    for change in ({"approvals": 2}, {"key_slots": header.key_slots[:3]}, {"key_slots": header.key_slots[::-1]}):
        with pytest.raises(NotApproved, match="as the manifest says"):
            require_shared_out(header.model_copy(update=change), MANIFEST)
    with pytest.raises(OtherManifest, match="contradicts"):
        require_shared_out(header.model_copy(update={"epoch": 2}), MANIFEST)
    direct = consortium(0)
    with pytest.raises(NotApproved, match="asks for no approvals"):
        require_shared_out(head_of(published(direct))[0].header, direct)


def test_without_approvals_recipients_open_it_as_before() -> None:
    header = head_of(published(consortium(0)))[0].header
    assert (header.approvals, header.shares, header.recipients) == (0, (), (ERIN, ALICE))
    assert len(header.open_key(ERIN, consortia.kem_key(ERIN))) == 32


def test_a_lone_contributor_approves_alone() -> None:
    manifest = consortia.approved(
        consortia.member("alice", consortia.DATA),
        consortia.member("bob", "hosting"),
        result={"recipients": ["bob"], "approvals": 1},
    )
    raw = published(manifest)
    assert len(key_of([approval(ALICE, BOB, raw, manifest)], BOB, raw, manifest)) == 32


def test_who_keeps_the_sealed_result() -> None:
    assert addressees(consortium(0).manifest) == (ERIN, ALICE)
    assert addressees(MANIFEST.manifest) == (ERIN, ALICE, BOB, CAROL, DAN)


# --- files ---------------------------------------------------------------------------------------------------------


def test_an_approval_travels_as_it_is() -> None:
    for signed in APPROVALS:
        assert SignedApproval.parse(signed.to_bytes()) == signed


def test_slots_that_contradict_the_header_are_refused() -> None:
    header = result_header(
        MANIFEST, job=MANIFEST.manifest.jobs[0], run="run-1", rounds=2, signer=SIGNER.public, key=bytes(32)
    )
    hpke = {"kind": "hpke", "recipient": "erin", "sealed": "AAAA"}

    def parse(change: Callable[[dict[str, Any]], Any]) -> None:
        data = json.loads(header.to_json())
        change(data)
        ResultHeader.parse(json.dumps(data, separators=(",", ":"), sort_keys=True).encode())

    parse(lambda data: data)
    parse(lambda data: data["key_slots"].append({"kind": "later"}))
    faults: list[Callable[[dict[str, Any]], Any]] = [
        lambda data: data.update(approvals=0),
        lambda data: data.update(approvals=5),
        lambda data: data.update(approvals=-1),
        lambda data: data.pop("approvals"),
        lambda data: data["key_slots"].append(hpke),
        lambda data: data["key_slots"].reverse(),
        lambda data: data["key_slots"][1].update(contributor="alice"),
        lambda data: data["key_slots"][1].update(index=1),
        lambda data: data["key_slots"][1].update(index=0),
        lambda data: data["key_slots"][1].pop("commitment"),
        lambda data: data["key_slots"][1].update(recipient="erin"),
    ]
    for fault in faults:
        with pytest.raises(Malformed):
            parse(fault)
    assert all(isinstance(slot, ShareSlot) and not isinstance(slot, HpkeSlot) for slot in header.key_slots)


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_our_errors(raw: bytes) -> None:
    with pytest.raises(Error):
        SignedApproval.parse(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20), lambda inner: st.lists(inner)
)


@given(st.sampled_from(sorted(ResultApproval.model_fields)), JSON)
def test_any_field_may_be_anything_and_only_our_errors_come_out(field: str, value: object) -> None:
    """A file that parses is refused by the verifier, unless it says what it said before."""
    data = json.loads(APPROVALS[1].to_bytes())
    same = data["approval"][field] == value
    data["approval"][field] = value
    try:
        signed = SignedApproval.parse(json.dumps(data).encode())
        key_of([APPROVALS[0], signed, APPROVALS[2]])
    except Error:
        return
    assert same


def test_faulty_files() -> None:
    good = json.loads(APPROVALS[0].to_bytes())
    faults: list[dict[str, Any]] = [
        good | {"signature": 1}, good | {"signature": "AA"}, good | {"approval": []}, good | {"format": "other"},
        good | {"more": 1}, {**good, "approval": good["approval"] | {"more": 1}},
    ]  # fmt: skip
    for fault in faults:
        with pytest.raises(Malformed):
            SignedApproval.parse(json.dumps(fault).encode())


def test_secrets_are_not_printed() -> None:
    shown = repr(held(ALICE))
    assert "alice" in shown
    assert held(ALICE).share.value.hex() not in shown
    assert "value" not in shown
