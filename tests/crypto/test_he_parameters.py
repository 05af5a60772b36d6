"""Parameters of homomorphic encryption: a table of what is derived, and that it holds what it promises."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superswarm.crypto.he_parameters import (
    MODULUS_BITS,
    HeParameters,
    derive_bfv,
    derive_ckks,
    is_prime,
    noise_bound,
    plain_prime,
)
from superswarm.errors import Malformed

# cohort, payload bits, encryption: values a slot, bits of the primes, bits of the plaintext modulus
TABLE = [
    (3, 12, "secret", 4, (32, 32), 57),
    (3, 12, "public", 4, (35, 35), 57),
    (10, 12, "secret", 3, (57,), 49),
    (10, 12, "public", 3, (31, 32), 49),
    (16, 12, "secret", 3, (58,), 49),
    (16, 12, "public", 3, (32, 32), 49),
    (50, 12, "secret", 3, (33, 33), 55),
    (50, 12, "public", 3, (35, 35), 55),
    (100, 8, "secret", 3, (58,), 46),
    (1000, 20, "secret", 1, (46,), 31),
    (1000, 20, "public", 1, (48,), 31),
]


@pytest.mark.parametrize(("cohort", "bits", "encryption", "packed", "primes", "modulus"), TABLE)
def test_table(cohort: int, bits: int, encryption: str, packed: int, primes: tuple[int, ...], modulus: int) -> None:
    p = derive_bfv(length=5_000_000, cohort=cohort, payload_bits=bits, encryption=encryption)  # type: ignore[arg-type]
    assert (p.degree, p.packed) == (4096, packed)
    assert tuple(prime.bit_length() for prime in p.primes) == primes
    assert p.plain_modulus.bit_length() == modulus


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**7), st.integers(2, 1024), st.integers(1, 24), st.sampled_from(["secret", "public"]))
def test_noise_and_fields_have_room(length: int, cohort: int, bits: int, encryption: str) -> None:
    p = derive_bfv(length=length, cohort=cohort, payload_bits=bits, encryption=encryption)  # type: ignore[arg-type]
    modulus = math.prod(p.primes)
    assert cohort * (2**bits - 1) < 2**p.field_bits  # no field carries into the next
    assert 2 ** (p.packed * p.field_bits) <= p.plain_modulus < 2**60
    assert 2 * p.plain_modulus * noise_bound(p.degree, cohort, encryption) <= modulus  # type: ignore[arg-type]
    assert modulus.bit_length() <= MODULUS_BITS[p.degree]
    assert all(is_prime(q) and q % (2 * p.degree) == 1 and q < 2**60 for q in (*p.primes, p.plain_modulus))
    assert len(set(p.primes)) == len(p.primes)
    assert len(p.primes) == 1 or p.plain_modulus > max(p.primes)  # or SEAL would put the last prime aside
    assert p.chunk * p.chunks >= length > p.chunk * (p.chunks - 1)
    assert HeParameters.parse(p.to_bytes()) == p


def test_no_more_bits_than_needed() -> None:
    p = derive_bfv(length=10**6, cohort=16, payload_bits=12, encryption="secret")
    least = 2 * p.plain_modulus * noise_bound(p.degree, 16, "secret")
    assert math.prod(p.primes) < 4 * least


@pytest.mark.parametrize(
    "wrong", [{"length": 0}, {"cohort": 1}, {"cohort": 2000}, {"payload_bits": 0}, {"payload_bits": 33}]
)
def test_sizes_that_cannot_be(wrong: dict[str, int]) -> None:
    sizes = {"length": 10, "cohort": 3, "payload_bits": 12} | wrong
    with pytest.raises(Malformed):
        derive_bfv(**sizes, encryption="secret")


def test_overflow_is_refused_in_advance() -> None:
    """No parameters hold the sum, so none are derived: nothing wraps later."""
    assert derive_bfv(length=10, cohort=1024, payload_bits=32, encryption="public").packed == 1
    with pytest.raises(Malformed):
        derive_ckks(length=10, cohort=1024, bound=1e12, error=1e-6, encryption="public")


@pytest.mark.parametrize("encryption", ["secret", "public"])
def test_ckks_scale_follows_the_wanted_error(encryption: str) -> None:
    coarse, fine = (
        derive_ckks(length=1000, cohort=10, bound=1.0, error=error, encryption=encryption)  # type: ignore[arg-type]
        for error in (1e-3, 1e-6)
    )
    assert fine.scale_bits - coarse.scale_bits == 10
    assert len(fine.primes) == len(coarse.primes) == 1


@pytest.mark.parametrize(("bound", "error"), [(1.0, 0.0), (0.0, 1e-3), (float("nan"), 1e-3), (float("inf"), 1e-3)])
def test_ckks_errors_that_cannot_be(bound: float, error: float) -> None:
    with pytest.raises(Malformed):
        derive_ckks(length=10, cohort=3, bound=bound, error=error, encryption="secret")


@given(st.binary(max_size=200))
def test_parse_takes_only_what_is_written(data: bytes) -> None:
    with suppress(Malformed):
        assert HeParameters.parse(data).to_bytes() == data


def test_primes() -> None:
    assert [n for n in range(60) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59]
    assert not is_prime(3215031751)  # a strong pseudoprime to the bases 2, 3, 5 and 7
    assert plain_prime(16, 4096) == 65537
