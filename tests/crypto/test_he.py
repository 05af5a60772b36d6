"""Homomorphic sums: exact in BFV, within the wanted error in CKKS; words of peers are checked."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superswarm.crypto.he import Encrypted, HeContext, HePublicKey, HeSecretKey
from superswarm.crypto.he_parameters import HeParameters, derive_bfv, derive_ckks, noise_bound
from superswarm.crypto.he_words import add_words, pack_words, unpack_words
from superswarm.errors import Malformed, Mismatch

SECRET = derive_bfv(length=20_000, cohort=10, payload_bits=12, encryption="secret")
PUBLIC = derive_bfv(length=20_000, cohort=10, payload_bits=12, encryption="public")


@pytest.fixture(scope="module", params=[SECRET, PUBLIC], ids=["secret", "public"])
def context(request: pytest.FixtureRequest) -> HeContext:
    return HeContext(request.param)


def add_all(p: HeParameters, parts: list[Encrypted], seeded: bool):
    first, second = np.zeros((len(p.primes), p.degree), np.uint64), np.zeros((len(p.primes), p.degree), np.uint64)
    for part in parts:
        add_words(first, unpack_words(part.first, p), p)
        if not seeded:
            add_words(second, unpack_words(part.second, p), p)
    return first, [part.second for part in parts] if seeded else [], None if seeded else second


def test_sum_of_the_whole_cohort_is_exact(context: HeContext) -> None:
    p = context.parameters
    secret, public = context.generate()
    encryptor = context.encryptor(secret if p.encryption == "secret" else public)
    most = (2 ** (p.packed * p.field_bits) - 1) // p.cohort
    values = [np.full(p.degree, most, np.uint64) for _ in range(p.cohort)]  # the largest that a sum may hold
    sealed = [encryptor.encrypt(v) for v in values]
    total = context.decryptor(secret).decrypt(*add_all(p, sealed, p.encryption == "secret"))
    assert (total == most * p.cohort).all()


def test_holders_of_both_keys_add_up() -> None:
    """Some members encrypt under the secret key, others under the public one; the sum is one."""
    context = HeContext(PUBLIC)
    secret, public = context.generate()
    one = context.encryptor(secret).encrypt(np.arange(PUBLIC.degree, dtype=np.uint64))
    two = context.encryptor(public).encrypt(np.full(PUBLIC.degree, 7, np.uint64))
    first = unpack_words(one.first, PUBLIC)
    add_words(first, unpack_words(two.first, PUBLIC), PUBLIC)
    total = context.decryptor(secret).decrypt(first, [one.second], unpack_words(two.second, PUBLIC))
    assert (total == np.arange(PUBLIC.degree) + 7).all()


def test_noise_stays_under_its_bound() -> None:
    """Measured by SEAL itself: what is left of the noise budget after the whole cohort was added."""
    seal = HeContext(PUBLIC).seal
    context = HeContext(PUBLIC)
    generator = seal.KeyGenerator(context.context)
    public, total = seal.PublicKey(), seal.Ciphertext()
    generator.create_public_key(public)
    encryptor, plaintext = seal.Encryptor(context.context, public), seal.Plaintext("1x^5")
    encryptor.encrypt(plaintext, total)
    for _ in range(PUBLIC.cohort - 1):
        part = seal.Ciphertext()
        encryptor.encrypt(plaintext, part)
        seal.Evaluator(context.context).add_inplace(total, part)
    left = seal.Decryptor(context.context, generator.secret_key()).invariant_noise_budget(total)
    assert 1 <= left <= 4  # room, but no waste
    assert noise_bound(PUBLIC.degree, PUBLIC.cohort, "public") > noise_bound(PUBLIC.degree, PUBLIC.cohort, "secret")


def test_same_values_never_give_the_same_ciphertext(context: HeContext) -> None:
    secret, _ = context.generate()
    encryptor = context.encryptor(secret)
    one, two = (encryptor.encrypt(np.ones(10, np.uint64)) for _ in range(2))
    assert one.first != two.first
    assert one.second != two.second


def test_another_key_decrypts_nothing(context: HeContext) -> None:
    (secret, _), (other, _) = context.generate(), context.generate()
    sealed = context.encryptor(secret).encrypt(np.ones(context.parameters.degree, np.uint64))
    total = context.decryptor(other).decrypt(unpack_words(sealed.first, context.parameters), [sealed.second], None)
    assert np.count_nonzero(total == 1) < 10


def test_keys_travel_as_bytes(context: HeContext) -> None:
    secret, public = context.generate()
    assert HeSecretKey.parse(secret.to_bytes()) == secret
    assert HePublicKey.parse(public.to_bytes()) == public
    assert secret.pair == public.pair
    sealed = context.encryptor(HeSecretKey.parse(secret.to_bytes())).encrypt(np.ones(3, np.uint64))
    decryptor = HeContext(context.parameters).decryptor(HeSecretKey.parse(secret.to_bytes()))
    first = unpack_words(sealed.first, context.parameters)
    assert decryptor.decrypt(first, [sealed.second], None)[:4].tolist() == [1, 1, 1, 0]


def test_a_secret_key_is_not_printed(context: HeContext) -> None:
    secret, _ = context.generate()
    assert "polynomial" not in repr(secret)
    assert repr(secret.polynomial[:8])[2:-1] not in repr(secret)


def test_keys_of_other_parameters_are_refused() -> None:
    secret, public = HeContext(PUBLIC).generate()
    for key in (secret, public):
        with pytest.raises(Mismatch):
            HeContext(SECRET).encryptor(key)
    with pytest.raises(Mismatch):
        HeContext(SECRET).decryptor(secret)


def test_no_public_key_where_its_noise_has_no_room() -> None:
    context = HeContext(SECRET)
    with pytest.raises(Mismatch):
        context.encryptor(context.generate()[1])


def test_keys_that_are_none_are_refused(context: HeContext) -> None:
    secret, public = context.generate()
    digest = context.parameters.digest
    with pytest.raises(Malformed):
        context.decryptor(HeSecretKey(digest, secret.pair, secret.polynomial[:-1]))
    with pytest.raises(Malformed):
        context.decryptor(HeSecretKey(digest, secret.pair, b"\xff" * len(secret.polynomial)))
    with pytest.raises(Malformed):
        HeSecretKey.parse(public.to_bytes())
    with pytest.raises(Malformed):
        HePublicKey.parse(secret.to_bytes())


def test_a_seed_of_another_size_is_refused(context: HeContext) -> None:
    secret, _ = context.generate()
    nothing = np.zeros((len(context.parameters.primes), context.parameters.degree), np.uint64)
    with pytest.raises(Malformed):
        context.decryptor(secret).decrypt(nothing, [b"short"], None)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([SECRET, PUBLIC]))
def test_words_survive_packing(seed: int, p: HeParameters) -> None:
    rng = np.random.default_rng(seed)
    words = np.stack([rng.integers(0, prime, p.degree, np.uint64) for prime in p.primes])
    packed = pack_words(words, p)
    assert len(packed) == p.polynomial_bytes
    assert (unpack_words(packed, p) == words).all()


def test_a_coefficient_that_is_not_below_its_prime_is_refused() -> None:
    words = np.zeros((len(PUBLIC.primes), PUBLIC.degree), np.uint64)
    words[1, 77] = PUBLIC.primes[1]
    with pytest.raises(Malformed):
        unpack_words(pack_words(words, PUBLIC), PUBLIC)


def test_adding_words_reduces() -> None:
    rng = np.random.default_rng(3)
    one, two = (np.stack([rng.integers(0, q, PUBLIC.degree, np.uint64) for q in PUBLIC.primes]) for _ in range(2))
    expected = (one + two) % np.array(PUBLIC.primes, np.uint64)[:, None]
    add_words(one, two, PUBLIC)
    assert (one == expected).all()


@pytest.mark.parametrize("encryption", ["secret", "public"])
@pytest.mark.parametrize("error", [1e-3, 1e-6])
def test_ckks_meets_the_wanted_error(encryption: str, error: float) -> None:
    p = derive_ckks(length=2048, cohort=10, bound=1.0, error=error, encryption=encryption)  # type: ignore[arg-type]
    context, rng = HeContext(p), np.random.default_rng(1)
    secret, public = context.generate()
    encryptor = context.encryptor(secret if encryption == "secret" else public)
    values = [rng.uniform(-1, 1, p.chunk) for _ in range(p.cohort)]
    sealed = [encryptor.encrypt(v) for v in values]
    total = context.decryptor(secret).decrypt(*add_all(p, sealed, encryption == "secret"))
    off = np.abs(total - sum(values)).max()
    assert off <= error
    assert off > error / 1000  # parameters are no larger than they need to be


def test_nothing_light_imports_tenseal() -> None:
    code = "import sys, superswarm.crypto.he, superswarm.cli; sys.exit(bool({'tenseal', 'pyarrow'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
