"""Hybrid HPKE: for this key, under this context, unaltered, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superswarm.crypto.hpke import MLKEM_PUBLIC, OVERHEAD, PREFIX, KemKey, KemPublicKey
from superswarm.errors import CannotOpen, Error, Malformed

KEY, OTHER = KemKey(bytes(range(96))), KemKey(bytes(range(1, 97)))
PUBLIC = KEY.public
INFO = b"context"
SEALED = PUBLIC.seal(b"secret", info=INFO)


@settings(max_examples=30)
@given(st.binary(max_size=200), st.binary(max_size=50))
def test_round_trip(plaintext: bytes, info: bytes) -> None:
    sealed = PUBLIC.seal(plaintext, info=info)
    assert len(sealed) == len(plaintext) + OVERHEAD
    assert KEY.open(sealed, info=info) == plaintext


def test_sealing_twice_gives_other_bytes() -> None:
    assert PUBLIC.seal(b"secret", info=INFO) != SEALED


@pytest.mark.parametrize("info", [b"", b"Context", b"context\0", b"contex"])
def test_another_context_does_not_open(info: bytes) -> None:
    with pytest.raises(CannotOpen):
        KEY.open(SEALED, info=info)


def test_another_key_does_not_open() -> None:
    with pytest.raises(CannotOpen):
        OTHER.open(SEALED, info=INFO)


def test_both_halves_of_the_key_are_needed() -> None:
    """Whoever has only the ML-KEM or only the X25519 secret opens nothing."""
    for halved in (KEY.seeds[:64] + OTHER.seeds[64:], OTHER.seeds[:64] + KEY.seeds[64:]):
        with pytest.raises(CannotOpen):
            KemKey(halved).open(SEALED, info=INFO)


@settings(max_examples=60)
@given(st.integers(0, len(SEALED) - 1), st.integers(0, 7))
def test_any_flipped_bit_is_noticed(at: int, bit: int) -> None:
    altered = bytearray(SEALED)
    altered[at] ^= 1 << bit
    with pytest.raises(CannotOpen):
        KEY.open(bytes(altered), info=INFO)


@pytest.mark.parametrize("size", [0, 1, 31, 1087, 1088, 1119, 1120, OVERHEAD - 1, OVERHEAD, len(SEALED) - 1])
def test_cut_short(size: int) -> None:
    with pytest.raises(CannotOpen):
        KEY.open(SEALED[:size], info=INFO)


def test_points_of_small_order_are_refused() -> None:
    """A KEM key or an encapsulation whose X25519 part forces a known secret."""
    for point in (bytes(32), b"\1" + bytes(31)):
        with pytest.raises(Malformed):
            KemPublicKey(PUBLIC.raw[:MLKEM_PUBLIC] + point).seal(b"secret", info=INFO)
        for forged in (SEALED[:1088] + point + SEALED[1120:], point + SEALED[32:]):
            with pytest.raises(CannotOpen):
                KEY.open(forged, info=INFO)


@settings(max_examples=50)
@given(st.binary(max_size=1300))
def test_random_bytes_raise_only_our_errors(raw: bytes) -> None:
    with pytest.raises(CannotOpen):
        KEY.open(raw, info=INFO)


@settings(max_examples=50)
@given(st.binary(min_size=len(PUBLIC.raw), max_size=len(PUBLIC.raw)))
def test_random_keys_raise_only_our_errors(raw: bytes) -> None:
    try:
        KemPublicKey(raw).seal(b"secret", info=INFO)
    except Error as error:
        assert type(error) is Malformed  # noqa: PT017 - a random key may also be a valid one


def test_an_mlkem_key_out_of_range_is_refused() -> None:
    """FIPS 203, section 7.2: coefficients of a key are below q."""
    with pytest.raises(Malformed):
        KemPublicKey(b"\xff" * MLKEM_PUBLIC + PUBLIC.raw[MLKEM_PUBLIC:]).seal(b"secret", info=INFO)


def test_keys_are_written_in_one_way() -> None:
    text = str(PUBLIC)
    assert KemPublicKey.parse(text) == PUBLIC
    for bad in (text[:-1], text + "=", text + "\n", text.removeprefix(PREFIX), "x" + text, PREFIX):
        with pytest.raises(Malformed):
            KemPublicKey.parse(bad)
    for size in (0, len(PUBLIC.raw) - 1, len(PUBLIC.raw) + 1):
        with pytest.raises(Malformed):
            KemPublicKey(bytes(size))


def test_private_keys_are_never_shown() -> None:
    for shown in (repr(KEY), str(KEY)):
        assert KEY.seeds.hex() not in shown
        assert repr(KEY.seeds)[2:20] not in shown
    with pytest.raises(Malformed):
        KemKey(bytes(95))


def test_keys_are_fresh() -> None:
    one, two = KemKey.generate(), KemKey.generate()
    assert one.seeds != two.seeds
    assert two.open(two.public.seal(b"x", info=b""), info=b"") == b"x"
