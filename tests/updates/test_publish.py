"""The result container: for its recipients, from its aggregator, whole, and nothing else."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superswarm.bundle import File, pack_files
from superswarm.consortium.approval import ApprovedManifest
from superswarm.crypto.signing import SIGNATURE_BYTES, SigningKey
from superswarm.crypto.stream import FIXED, Prologue, encrypt_stream
from superswarm.errors import BadSignature, CannotOpen, Error, Malformed, TooLarge, Untrusted
from superswarm.updates.adapter import AdapterSpec, decode_adapter, encode_adapter
from superswarm.updates.card import CARD, CONFIG, WEIGHTS
from superswarm.updates.container import MAGIC, STREAM_AT, HpkeSlot, OtherSlot, ResultHeader, read_head, sign_stream
from superswarm.updates.publish import open_container, publish, result_header
from superswarm.values import MemberId
from tests import consortia

ALICE, BOB, CAROL = (MemberId(name) for name in ("alice", "bob", "carol"))
SIGNER = consortia.signing_key("aggregator session")
OTHER_SIGNER = consortia.signing_key("another session")
ADAPTER = {
    f"base_model.model.layers.{i}.q_proj.lora_{x}.weight": np.full(shape, i + 0.5, np.float32)
    for i in range(2)
    for x, shape in (("A", (4, 16)), ("B", (16, 4)))
}
MANIFEST = consortia.approved(result={"recipients": ["alice", "bob"]})
JOB = MANIFEST.manifest.jobs[0]
RESULT = publish(ADAPTER, manifest=MANIFEST, job=JOB, run="run-1", rounds=2, signer=SIGNER)
HEAD = read_head(io.BytesIO(RESULT))


def files_of(raw: bytes, member: MemberId = ALICE, *, signer: SigningKey | None = SIGNER) -> dict[str, bytes]:
    opened = open_container(
        io.BytesIO(raw), consortia.kem_key(member), member, expected_signer=signer.public if signer else None
    )
    return {name: b"".join(content) for name, _, content in opened.files}


def resigned(raw: bytes, signer: SigningKey, header: ResultHeader | None = None) -> bytes:
    """What somebody with a signing key of their own makes of a stream."""
    src = io.BytesIO(raw)
    src.seek(STREAM_AT)
    return MAGIC + sign_stream(src, header or HEAD.header, signer) + raw[STREAM_AT:]


def rebuilt(change: Callable[[dict[str, Any]], None], files: dict[str, bytes] | None = None) -> bytes:
    """A container that the true aggregator made and signed, with another header or other files."""
    key = bytes(32)
    header = result_header(MANIFEST, job=JOB, run="run-1", rounds=2, signer=SIGNER.public, key=key)
    data = json.loads(header.to_json())
    change(data)
    raw = ResultHeader.model_validate(data).to_json()
    plain = b"".join(pack_files([File.of(name, [body]) for name, body in (files or {CARD: b"hello"}).items()]))
    return sealed_plain(plain, key, raw)


def sealed_plain(plain: bytes, key: bytes, header: bytes) -> bytes:
    stream = io.BytesIO()
    encrypt_stream(io.BytesIO(plain), stream, key, header=header)
    return resigned(MAGIC + bytes(SIGNATURE_BYTES) + stream.getvalue(), SIGNER)


@pytest.mark.parametrize("member", [ALICE, BOB])
def test_every_recipient_opens_the_same_folder(member: MemberId) -> None:
    files = files_of(RESULT, member)
    assert list(files) == [WEIGHTS, CONFIG, CARD]
    assert files[WEIGHTS] == encode_adapter(ADAPTER)
    decoded = decode_adapter(files[WEIGHTS], AdapterSpec.of(ADAPTER))
    assert all(np.array_equal(decoded[name], ADAPTER[name]) for name in ADAPTER)


def test_the_config_is_what_the_manifest_says() -> None:
    config = json.loads(files_of(RESULT)[CONFIG])
    lora = JOB.lora
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (lora.rank, lora.alpha, lora.dropout)
    assert config["target_modules"] == sorted(lora.target_modules)
    assert config["base_model_name_or_path"] == "hub/base"


def test_the_card_says_where_it_comes_from_and_that_simulation_protects_nothing() -> None:
    card = files_of(RESULT)[CARD].decode()
    for said in (str(MANIFEST.digest), "run-1", "2 of 2 rounds", "hub/base", "protects nothing"):
        assert said in card


def test_texts_of_the_manifest_are_no_markup_in_the_card() -> None:
    named = consortia.approved(name="[click](http://x) | <b>")
    card = files_of(publish(ADAPTER, manifest=named, job=JOB, run="run-1", rounds=1, signer=SIGNER))[CARD].decode()
    assert "](http" not in card
    assert "<b>" not in card


def test_the_public_header() -> None:
    header = HEAD.header
    assert header.manifest == str(MANIFEST.digest)
    assert header.consortium == MANIFEST.manifest.consortium
    assert (header.run, header.rounds, header.recipients) == ("run-1", 2, (ALICE, BOB))
    assert header.signer == str(SIGNER.public)


def test_nothing_readable_is_in_it() -> None:
    for secret in (b"lora_A", b"safetensors", b"peft", b"q_proj", np.full(4, 1.5, np.float32).tobytes()):
        assert secret not in RESULT


def test_two_publications_share_no_key() -> None:
    again = publish(ADAPTER, manifest=MANIFEST, job=JOB, run="run-1", rounds=2, signer=SIGNER)
    other = read_head(io.BytesIO(again))
    keys = {head.header.open_key(ALICE, consortia.kem_key(ALICE)) for head in (HEAD, other)}
    assert len(keys) == 2
    assert other.header.container != HEAD.header.container


# --- who may open, and whose it is --------------------------------------------------------------------------------


def test_a_member_that_is_no_recipient_cannot_open() -> None:
    with pytest.raises(CannotOpen):
        files_of(RESULT, CAROL)


def test_another_members_key_does_not_open() -> None:
    with pytest.raises(CannotOpen):
        open_container(io.BytesIO(RESULT), consortia.kem_key(BOB), ALICE, expected_signer=SIGNER.public)


def test_another_aggregator_than_expected_is_refused() -> None:
    with pytest.raises(Untrusted) as caught:
        files_of(RESULT, signer=OTHER_SIGNER)
    assert caught.type is Untrusted


def test_a_signature_by_another_key_is_refused() -> None:
    with pytest.raises(BadSignature):
        files_of(resigned(RESULT, OTHER_SIGNER))
    with pytest.raises(BadSignature):
        files_of(resigned(RESULT, OTHER_SIGNER), signer=None)


def test_a_recipient_cannot_make_another_result_under_the_same_key() -> None:
    """Bob knows the content key, so to Alice only the aggregator's signature tells his adapter from the true one."""
    key = HEAD.header.open_key(BOB, consortia.kem_key(BOB))
    stream = io.BytesIO()
    plain = b"".join(pack_files([File.of(WEIGHTS, [encode_adapter({"poisoned": np.ones(3, np.float32)})])]))
    encrypt_stream(io.BytesIO(plain), stream, key, header=HEAD.prologue.header)
    forged = RESULT[:STREAM_AT] + stream.getvalue()
    assert HEAD.header.open_key(ALICE, consortia.kem_key(ALICE)) == key
    for signer in (SIGNER, None):
        with pytest.raises(BadSignature):
            files_of(forged, signer=signer)


@settings(max_examples=60)
@given(st.data())
def test_any_flipped_bit_is_noticed(data: st.DataObject) -> None:
    raw = bytearray(RESULT)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((BadSignature, Malformed, CannotOpen)):
        files_of(bytes(raw), signer=None)


@pytest.mark.parametrize("size", [0, 7, 100, STREAM_AT, STREAM_AT + 50, len(RESULT) - 1])
def test_cut_short(size: int) -> None:
    with pytest.raises((Malformed, BadSignature)):
        files_of(RESULT[:size])


def test_a_slot_of_another_container_run_or_manifest_does_not_open() -> None:
    """A relay that splices slots: the key's context names container, run, manifest and recipient."""
    slot = HEAD.header.key_slots[0]
    for change in ({"run": "run-2"}, {"container": "0" * 64}, {"manifest": consortia.digest("x")}):
        spliced = HEAD.header.model_copy(update={**change, "key_slots": (slot,)})
        with pytest.raises(CannotOpen):
            spliced.open_key(ALICE, consortia.kem_key(ALICE))
    renamed = HEAD.header.model_copy(update={"key_slots": (HpkeSlot(recipient=BOB, sealed=slot.sealed),)})  # type: ignore[union-attr]
    with pytest.raises(CannotOpen):
        renamed.open_key(BOB, consortia.kem_key(ALICE))
    real = HEAD.header.model_copy(update={"attestation": "real"})
    with pytest.raises(CannotOpen):
        real.open_key(ALICE, consortia.kem_key(ALICE))


# --- room for later ------------------------------------------------------------------------------------------------


def test_slots_of_unknown_kinds_are_skipped() -> None:
    shamir = {"kind": "shamir", "threshold": 2, "shares": [{"member": "bob", "sealed": "AAAA"}]}

    def add(data: dict[str, Any]) -> None:
        data["key_slots"].insert(0, shamir)

    raw = rebuilt(add)
    header = read_head(io.BytesIO(raw)).header
    assert isinstance(header.key_slots[0], OtherSlot)
    assert header.recipients == (ALICE, BOB)
    assert files_of(raw) == {CARD: b"hello"}


def test_unknown_fields_and_faulty_slots_are_refused() -> None:
    def parse(change: Callable[[dict[str, Any]], None]) -> None:
        data = json.loads(HEAD.prologue.header)
        change(data)
        ResultHeader.parse(json.dumps(data, separators=(",", ":"), sort_keys=True).encode())

    parse(lambda data: data)  # what is unchanged parses
    faults: list[Callable[[dict[str, Any]], Any]] = [
        lambda data: data.update(comment="x"),
        lambda data: data.update(format="superswarm-result/2"),
        lambda data: data.update(rounds=0),
        lambda data: data.update(run="../up"),
        lambda data: data.update(signer="nobody"),
        lambda data: data["key_slots"][0].update(hint="x"),
        lambda data: data["key_slots"][0].pop("sealed"),
        lambda data: data["key_slots"].append({"kind": "odd", "value": float("nan")}),
        lambda data: data["key_slots"].append({"kind": "odd", "value": 2**60}),
        lambda data: data["key_slots"].append({"kind": "odd", "value": "\ud800"}),
        lambda data: data["key_slots"].append("hpke"),
    ]
    for fault in faults:
        with pytest.raises(Malformed):
            parse(fault)


def test_a_header_that_is_not_canonical_is_refused() -> None:
    with pytest.raises(Malformed):
        ResultHeader.parse(HEAD.prologue.header + b" ")


# --- inside --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../up.json",
        "/etc/x.json",
        "a/b.json",
        ".hidden.json",
        "model.py",
        "weights.bin",
        "x.pkl",
        "",
        "json",
        "a\0.json",
    ],
)
def test_names_with_paths_or_code_are_refused(name: str) -> None:
    with pytest.raises(Malformed):
        files_of(rebuilt(lambda _: None, {CARD: b"hello", name: b"x"}))


def test_more_files_than_a_result_has_are_refused() -> None:
    with pytest.raises(Malformed):
        files_of(rebuilt(lambda _: None, {f"f{i}.md": b"" for i in range(65)}))


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_our_errors(raw: bytes) -> None:
    head = MAGIC + bytes(SIGNATURE_BYTES)
    header = FIXED.pack(b"SSWSTRM\x01", bytes(32), bytes(32), len(raw)) + raw
    for attempt in (raw, head + raw, head + header):
        with pytest.raises(Error):
            files_of(attempt)


def test_a_gigabyte_of_header_claimed() -> None:
    with pytest.raises(TooLarge):
        files_of(MAGIC + bytes(SIGNATURE_BYTES) + FIXED.pack(b"SSWSTRM\x01", bytes(32), bytes(32), 2**30))


def test_a_stream_under_another_key_than_the_slots_is_refused() -> None:
    header = result_header(MANIFEST, job=JOB, run="run-1", rounds=2, signer=SIGNER.public, key=bytes(32))
    with pytest.raises(CannotOpen):
        files_of(sealed_plain(b"", b"\1" * 32, header.to_json()))


def test_real_and_simulated_signatures_are_kept_apart() -> None:
    def real(data: dict[str, Any]) -> None:
        data["attestation"] = "real"

    with pytest.raises(BadSignature):  # signed for a simulated manifest, shown as a real one
        files_of(rebuilt(real))


def test_prologue_and_base64_are_as_documented() -> None:
    assert RESULT[STREAM_AT:].startswith(HEAD.prologue.to_bytes())
    assert isinstance(HEAD.prologue, Prologue)
    slot = HEAD.header.key_slots[0]
    assert isinstance(slot, HpkeSlot)
    assert len(base64.b64decode(slot.sealed)) == 32 + 1136


def approved_for(count: int) -> ApprovedManifest:
    members = [consortia.member(f"m{i}", consortia.DATA) for i in range(count)]
    return consortia.approved(*members, result={"recipients": [f"m{i}" for i in range(count)]})


def test_many_recipients() -> None:
    raw = publish(ADAPTER, manifest=approved_for(12), job=JOB, run="r", rounds=1, signer=SIGNER)
    assert files_of(raw, MemberId("m11")).keys() == {WEIGHTS, CONFIG, CARD}
