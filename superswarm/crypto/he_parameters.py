"""Parameters of homomorphic encryption for sums: the smallest that a cohort, a payload and an error allow.

A sum multiplies nothing, so the modulus needs no level, no relinearisation and no special prime: it must only keep
cohort × noise below what one unit of plaintext is worth. Pure arithmetic, without the library that encrypts.

Noise. An error coefficient is centred binomial over 42 coins (SEAL 4, σ² = 10.5, never above 21). Encryption under
the secret key adds one, and a rounding of at most 1. Encryption under the public key adds e·u + e₁ + e₂·s, u and s
ternary. Over a cohort c of degree N that is sub-Gaussian with variance 10.5·c·(2N + 1), given Σu of squared norm at
most c·N, half as much again as it has on average. 14 standard deviations are passed with a probability under 2**-140
a coefficient.

Primes. With a plaintext modulus above each single prime SEAL keeps all of them for the data; packing fills the
plaintext modulus, so this is always so where there are two.

Security. `MODULUS_BITS` are the limits for ternary secrets and 128 bits against quantum computers of the
Homomorphic Encryption Standard (2018, table 2); SEAL enforces the classical ones, which are higher.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, Self, TypeAlias

from superswarm.errors import Malformed
from superswarm.values import LIMITS, Digest
from superswarm.wire import pack, unpack_list

Scheme: TypeAlias = Literal["bfv", "ckks"]
Encryption: TypeAlias = Literal["secret", "public"]
"""Which key members encrypt under: the secret one, if all of them hold it, else some only the public one."""

LABEL: Final = "superswarm/v1/he-parameters"
MODULUS_BITS: Final = {4096: 101, 8192: 202, 16384: 411}
PRIME_BITS: Final = 60  # SEAL's most for one prime, and for the plaintext modulus
LEAST_PRIME_BITS: Final = 30  # under it no prime is close enough below a power of two
VARIANCE: Final = 10.5
MOST_ERROR: Final = 21
DEVIATIONS: Final = 14.0
WITNESSES: Final = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
LONGEST: Final = 2**31  # values of one vector


@dataclass(frozen=True, slots=True, kw_only=True)
class HeParameters:
    """What all members of a sum and the aggregator must share, to the bit. Public."""

    scheme: Scheme
    encryption: Encryption  # what the noise is bounded for: under the secret key it is far smaller
    degree: int  # of the polynomial ring, a power of two
    primes: tuple[int, ...]  # their product is the coefficient modulus
    plain_modulus: int  # bfv: a prime that is 1 modulo 2·degree; ckks: 0
    scale_bits: int  # ckks: the logarithm of the scale; bfv: 0
    field_bits: int  # bfv: of one packed value, wide enough for the sum; ckks: 0
    packed: int  # values in one slot; ckks: 1
    length: int  # values of the vector
    cohort: int  # ciphertexts that may be added

    @property
    def words(self) -> int:
        """Coefficients of one polynomial, one for each prime."""
        return self.degree * len(self.primes)

    @property
    def polynomial_bytes(self) -> int:
        """Of one polynomial on the wire: each coefficient takes the bits of its prime."""
        return self.degree // 8 * sum(prime.bit_length() for prime in self.primes)

    @property
    def chunk(self) -> int:
        """Values that one ciphertext holds."""
        return self.packed * (self.degree if self.scheme == "bfv" else self.degree // 2)

    @property
    def chunks(self) -> int:
        return -(-self.length // self.chunk)

    @property
    def digest(self) -> Digest:
        return Digest.of(self.to_bytes())

    def to_bytes(self) -> bytes:
        shape = (self.plain_modulus, self.scale_bits, self.field_bits, self.packed, self.length, self.cohort)
        return pack(LABEL, self.scheme, self.encryption, self.degree, *shape, *self.primes)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Invert `to_bytes`. Proves nothing: compare with what `derive_bfv` or `derive_ckks` gives."""
        match unpack_list(data, limit=4096):
            case [
                str(label),
                "bfv" | "ckks" as scheme,
                "secret" | "public" as encryption,
                int(degree),
                *rest,
            ] if label == LABEL and len(rest) > 6:
                numbers = [number for number in rest if isinstance(number, int)]
                if len(numbers) != len(rest):
                    raise Malformed("a parameter of homomorphic encryption is no integer")
                modulus, scale, field, packed, length, cohort, *primes = numbers
                return cls(
                    scheme=scheme,
                    encryption=encryption,
                    degree=degree,
                    primes=tuple(primes),
                    plain_modulus=modulus,
                    scale_bits=scale,
                    field_bits=field,
                    packed=packed,
                    length=length,
                    cohort=cohort,
                )
            case _:
                raise Malformed("not parameters of homomorphic encryption")


def derive_bfv(*, length: int, cohort: int, payload_bits: int, encryption: Encryption) -> HeParameters:
    """Parameters under which sums of `cohort` vectors of integers below 2**payload_bits are exact.

    Of all degrees and packings that are secure, those with the fewest bits on the wire. Raises Malformed where there
    are none.
    """
    _require_sizes(length, cohort)
    if not 1 <= payload_bits <= 32:
        raise Malformed("a payload has 1 to 32 bits")
    field_bits = (cohort * (2**payload_bits - 1)).bit_length()  # no sum carries into its neighbour
    found = list(_bfv_candidates(length, cohort, field_bits, encryption))
    if not found:
        raise Malformed(f"no parameters hold the sum of {cohort} payloads of {payload_bits} bits")
    return min(found, key=lambda p: (p.chunks * p.polynomial_bytes, p.degree))


def derive_ckks(*, length: int, cohort: int, bound: float, error: float, encryption: Encryption) -> HeParameters:
    """Parameters under which each of the summed values is off by at most `error`, if no addend exceeds `bound`.

    The error is that of decryption, on the sum; passing it has a probability under 2**-40 a value. Raises Malformed
    where no parameters allow it.
    """
    _require_sizes(length, cohort)
    if not (0 < error < bound * cohort < float("inf")):
        raise Malformed("the wanted error is above 0 and below the largest sum")
    found = list(_ckks_candidates(length, cohort, bound, error, encryption))
    if not found:
        raise Malformed(f"no parameters hold a sum of {cohort} values up to {bound:g} with an error of {error:g}")
    return min(found, key=lambda p: (p.chunks * p.polynomial_bytes, p.degree))


def noise_bound(degree: int, cohort: int, encryption: Encryption) -> float:
    """What no coefficient's noise exceeds in a sum of `cohort` fresh ciphertexts (see above)."""
    if encryption == "secret":
        return float(cohort * (MOST_ERROR + 1))
    return DEVIATIONS * math.sqrt(VARIANCE * cohort * (2 * degree + 1)) + cohort


def _bfv_candidates(length: int, cohort: int, field_bits: int, encryption: Encryption) -> Iterator[HeParameters]:
    for degree in MODULUS_BITS:
        for packed in range(1, (PRIME_BITS - 1) // field_bits + 1):
            modulus = plain_prime(packed * field_bits, degree)
            least = 2 * modulus * math.ceil(noise_bound(degree, cohort, encryption))
            primes = coefficient_primes(least, degree)
            if primes:
                yield HeParameters(
                    scheme="bfv",
                    encryption=encryption,
                    degree=degree,
                    primes=primes,
                    plain_modulus=modulus,
                    scale_bits=0,
                    field_bits=field_bits,
                    packed=packed,
                    length=length,
                    cohort=cohort,
                )


def _ckks_candidates(
    length: int, cohort: int, bound: float, error: float, encryption: Encryption
) -> Iterator[HeParameters]:
    for degree in MODULUS_BITS:
        noise = slot_noise(degree, cohort, encryption)
        scale_bits = max(1, math.ceil(math.log2(noise / error)))
        if scale_bits >= 2 * PRIME_BITS or bound * cohort > error * 2.0**48:  # a float64 has 53 bits
            continue
        least = 2 * math.ceil(2.0**scale_bits * bound * cohort + noise)
        primes = coefficient_primes(least, degree)
        if len(primes) == 1:  # of several, SEAL would put one aside for multiplications
            yield HeParameters(
                scheme="ckks",
                encryption=encryption,
                degree=degree,
                primes=primes,
                plain_modulus=0,
                scale_bits=scale_bits,
                field_bits=0,
                packed=1,
                length=length,
                cohort=cohort,
            )


def slot_noise(degree: int, cohort: int, encryption: Encryption) -> float:
    """What the noise in one CKKS slot of a sum does not exceed, in units of 1/scale.

    A slot is the polynomial at a root of unity. Under the secret key that is sub-Gaussian with variance
    (10.5 + 1/4)·c·N, 1/4 for the rounding of the encoder. Under the public key the products e(ζ)·u(ζ) and
    e₂(ζ)·s(ζ) are of two such factors, 8 standard deviations of each.
    """
    fresh = 8 * math.sqrt((VARIANCE + 0.25) * cohort * degree)
    if encryption == "secret":
        return fresh
    return fresh + 2 * 8 * 8 * math.sqrt(VARIANCE * degree) * math.sqrt(cohort * degree)


def _require_sizes(length: int, cohort: int) -> None:
    if not 1 <= length <= LONGEST:
        raise Malformed(f"a vector has 1 to {LONGEST} values")
    if not 2 <= cohort <= LIMITS.members:
        raise Malformed(f"a sum has 2 to {LIMITS.members} addends")


def coefficient_primes(least: int, degree: int) -> tuple[int, ...]:
    """The fewest primes, as small as can be, whose product is at least `least`; none if that is not secure."""
    bits = max(least.bit_length(), LEAST_PRIME_BITS)
    while bits <= MODULUS_BITS[degree]:
        count = -(-bits // PRIME_BITS)
        widths = [(bits + index) // count for index in range(count)]
        primes = [_prime_below(width, degree, widths[:index].count(width)) for index, width in enumerate(widths)]
        if math.prod(primes) >= least:
            return tuple(primes)
        bits += 1
    return ()


@lru_cache(maxsize=256)
def _prime_below(bits: int, degree: int, skip: int) -> int:
    """The largest prime below 2**bits that is 1 modulo 2·degree, but for `skip` larger ones."""
    candidate = (1 << bits) + 1
    for _ in range(skip + 1):
        candidate -= 2 * degree
        while not is_prime(candidate):
            candidate -= 2 * degree
    return candidate


@lru_cache(maxsize=256)
def plain_prime(bits: int, degree: int) -> int:
    """The smallest prime from 2**bits that is 1 modulo 2·degree, so that slots exist (batching)."""
    step = 2 * degree
    candidate = -(-(1 << bits) // step) * step + 1
    while not is_prime(candidate):
        candidate += step
    return candidate


def is_prime(number: int) -> bool:
    """Miller-Rabin with the first twelve primes, which is exact below 2**64 (Sorenson, Webster, 2015)."""
    if number < 2:
        return False
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(number == w or (number % w and _passes(number, w, odd, twos)) for w in WITNESSES)


def _passes(number: int, witness: int, odd: int, twos: int) -> bool:
    power = pow(witness, odd, number)
    if power in (1, number - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False
