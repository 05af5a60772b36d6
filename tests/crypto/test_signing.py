"""Hybrid signatures: both halves, this message, this purpose, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superswarm.crypto.signing import (
    ED25519_PUBLIC,
    ED25519_SIGNATURE,
    PREFIX,
    SIGNATURE_BYTES,
    SigningKey,
    VerifyingKey,
    decode_key,
)
from superswarm.errors import BadSignature, Error, Malformed

TAG = "superswarm/v1/simulated/test"
KEY, OTHER = SigningKey(bytes(range(64))), SigningKey(bytes(range(1, 65)))
PUBLIC = KEY.public
SIGNATURE = KEY.sign(TAG, b"message")


def halves(signature: bytes) -> tuple[bytes, bytes]:
    return signature[:ED25519_SIGNATURE], signature[ED25519_SIGNATURE:]


def test_it_holds() -> None:
    assert len(SIGNATURE) == SIGNATURE_BYTES
    PUBLIC.verify(TAG, b"message", SIGNATURE)


@given(st.text(max_size=20), st.binary(max_size=50))
@settings(max_examples=20)
def test_any_message_under_any_tag(tag: str, message: bytes) -> None:
    PUBLIC.verify(tag, message, KEY.sign(tag, message))


CLASSICAL, QUANTUM = halves(SIGNATURE)
OTHER_MESSAGE = halves(KEY.sign(TAG, b"another message"))
OTHER_TAG = halves(KEY.sign(TAG + "2", b"message"))
OTHER_KEY = halves(OTHER.sign(TAG, b"message"))


@pytest.mark.parametrize(
    "forged",
    [
        CLASSICAL + OTHER_MESSAGE[1],
        OTHER_MESSAGE[0] + QUANTUM,
        CLASSICAL + OTHER_TAG[1],
        OTHER_TAG[0] + QUANTUM,
        CLASSICAL + OTHER_KEY[1],
        OTHER_KEY[0] + QUANTUM,
        CLASSICAL + bytes(len(QUANTUM)),
        bytes(len(CLASSICAL)) + QUANTUM,
        QUANTUM + CLASSICAL,
        CLASSICAL,
        QUANTUM,
        SIGNATURE[:-1],
        SIGNATURE + b"\0",
        b"",
    ],
    ids=[
        "ML-DSA of another message",
        "Ed25519 of another message",
        "ML-DSA for another purpose",
        "Ed25519 for another purpose",
        "ML-DSA of another key",
        "Ed25519 of another key",
        "no ML-DSA",
        "no Ed25519",
        "halves swapped",
        "Ed25519 alone",
        "ML-DSA alone",
        "cut",
        "longer",
        "empty",
    ],
)
def test_half_a_signature_is_none(forged: bytes) -> None:
    with pytest.raises(BadSignature):
        PUBLIC.verify(TAG, b"message", forged)


def test_another_message_tag_or_key_is_refused() -> None:
    for key, tag, message in (
        (PUBLIC, TAG, b"Message"),
        (PUBLIC, TAG + "2", b"message"),
        (OTHER.public, TAG, b"message"),
    ):
        with pytest.raises(BadSignature):
            key.verify(tag, message, SIGNATURE)


def test_bytes_do_not_move_between_tag_and_message() -> None:
    signature = KEY.sign("ab", b"c")
    with pytest.raises(BadSignature):
        PUBLIC.verify("a", b"bc", signature)


def test_a_verifying_key_of_two_owners_takes_neither() -> None:
    """Whoever breaks one scheme and adds a half of his own to a member's key cannot sign for the pair."""
    mixed = VerifyingKey(PUBLIC.raw[:ED25519_PUBLIC] + OTHER.public.raw[ED25519_PUBLIC:])
    for signature in (SIGNATURE, OTHER.sign(TAG, b"message")):
        with pytest.raises(BadSignature):
            mixed.verify(TAG, b"message", signature)
    mixed.verify(TAG, b"message", CLASSICAL + OTHER_KEY[1])


@settings(max_examples=50)
@given(st.integers(0, SIGNATURE_BYTES - 1), st.integers(0, 7))
def test_any_flipped_bit_is_noticed(at: int, bit: int) -> None:
    forged = bytearray(SIGNATURE)
    forged[at] ^= 1 << bit
    with pytest.raises(BadSignature):
        PUBLIC.verify(TAG, b"message", bytes(forged))


@settings(max_examples=50)
@given(st.binary(min_size=len(PUBLIC.raw), max_size=len(PUBLIC.raw)))
def test_random_keys_raise_only_our_errors(raw: bytes) -> None:
    with pytest.raises(Error):
        VerifyingKey(raw).verify(TAG, b"message", SIGNATURE)


def test_keys_are_written_in_one_way() -> None:
    text = str(PUBLIC)
    assert VerifyingKey.parse(text) == PUBLIC
    for bad in (text[:-1], text + "\n", text[:-4], text.removeprefix(PREFIX), "x" + text, PREFIX, PREFIX + "é"):
        with pytest.raises(Malformed):
            VerifyingKey.parse(bad)


def test_base64_that_decodes_the_same_but_is_written_otherwise_is_refused() -> None:
    assert decode_key("k:", "k:AA==") == b"\0"
    with pytest.raises(Malformed):
        decode_key("k:", "k:AB==")


@given(st.text(max_size=60))
def test_random_text_raises_only_our_errors(text: str) -> None:
    for attempt in (text, PREFIX + text):
        with pytest.raises(Malformed):
            VerifyingKey.parse(attempt)


def test_private_keys_are_never_shown() -> None:
    for shown in (repr(KEY), str(KEY), f"{KEY}"):
        assert KEY.seeds.hex() not in shown
        assert repr(KEY.seeds)[2:20] not in shown
    with pytest.raises(Malformed):
        SigningKey(bytes(63))


def test_keys_are_fresh() -> None:
    one, two = SigningKey.generate(), SigningKey.generate()
    assert one.seeds != two.seeds
    assert one.seeds[:32] != one.seeds[32:]
    one.public.verify(TAG, b"", one.sign(TAG, b""))
