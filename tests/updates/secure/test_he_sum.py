"""Encrypted updates and sums as bytes: exact for any cohort, and closed to what does not belong to the round."""

from __future__ import annotations

import io
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superswarm.crypto.he import HeContext, HePublicKey, HeSecretKey
from superswarm.crypto.he_parameters import HeParameters, derive_bfv, derive_ckks
from superswarm.crypto.he_words import add_words, pack_words, subtract_words
from superswarm.errors import Error, Malformed, Mismatch, NotFinite, Replay, Untrusted
from superswarm.updates.secure.check import CheckVector
from superswarm.updates.secure.he_sum import HeSum, Slots, SumContext, decrypt_sum, encrypt_update, encrypted_bytes
from superswarm.values import Digest, MemberId

LENGTH = 15_000
MEMBERS = [MemberId(name) for name in ("ant", "bee", "cat")]


class Party:
    """Key pair, parameters and context of one round."""

    def __init__(self, parameters: HeParameters) -> None:
        self.parameters = parameters
        self.he = HeContext(parameters)
        self.secret, self.public = self.he.generate()
        self.context = SumContext(
            roster=Digest.of(b"roster"),
            round=3,
            parameters=parameters.digest,
            pair=self.public.pair,
        )

    def update(
        self, values: Any, sender: str = "ant", key: HeSecretKey | HePublicKey | None = None, **changes: Any
    ) -> bytes:
        dst = io.BytesIO()
        context = replace(self.context, **changes)
        encrypt_update(values, self.he.encryptor(key or self.secret), context, MemberId(sender), dst)
        return dst.getvalue()

    def sum(self) -> HeSum:
        return HeSum(self.parameters, self.context)

    def decrypt(self, data: bytes, members: list[MemberId], **changes: Any) -> Any:
        return decrypt_sum(data, self.he.decryptor(self.secret), replace(self.context, **changes), members)


def written(total: HeSum) -> bytes:
    dst = io.BytesIO()
    total.write(dst)
    return dst.getvalue()


def values(seed: int = 0, length: int = LENGTH) -> Any:
    return np.random.default_rng(seed).integers(0, 4096, length, dtype=np.uint16)


@pytest.fixture(scope="module")
def party() -> Party:
    return Party(derive_bfv(length=LENGTH, cohort=3, payload_bits=12, encryption="public"))


@settings(max_examples=12, deadline=None)
@given(
    length=st.integers(1, 40_000),
    cohort=st.integers(2, 40),
    bits=st.integers(1, 20),
    holders=st.integers(0, 40),
    seed=st.integers(0, 2**32),
)
def test_sums_are_exact(length: int, cohort: int, bits: int, holders: int, seed: int) -> None:
    """Whatever the cohort, however many of it hold the key: the sum of the answers is exact."""
    encryption = "secret" if holders >= cohort else "public"
    party = Party(derive_bfv(length=length, cohort=cohort, payload_bits=bits, encryption=encryption))  # type: ignore[arg-type]
    rng, total = np.random.default_rng(seed), party.sum()
    expected, members = np.zeros(length, np.uint64), []
    for index in range(min(cohort, 4)):
        vector = rng.choice(np.array([0, 2**bits - 1], np.uint32), length)
        member = MemberId(f"m{index}")
        total.add(party.update(vector, member, party.secret if index < holders else party.public), member)
        expected += vector
        members.append(member)
    assert (party.decrypt(written(total), members) == expected).all()


def test_the_whole_cohort_at_its_largest_does_not_overflow(party: Party) -> None:
    most, total = Slots(party.parameters).most, party.sum()
    for member in MEMBERS:
        total.add(party.update(np.full(LENGTH, most, np.uint16), member, party.public), member)
    assert (party.decrypt(written(total), MEMBERS) == 3 * most).all()


def test_a_value_that_could_overflow_is_not_encrypted(party: Party) -> None:
    vector = values()
    vector[7] = Slots(party.parameters).most + 1
    with pytest.raises(Malformed):
        party.update(vector)


@pytest.mark.parametrize("wrong", [values(length=LENGTH - 1), values().astype(np.int32), values().astype(np.float64)])
def test_vectors_of_another_shape_or_type_are_not_encrypted(party: Party, wrong: Any) -> None:
    with pytest.raises(Malformed):
        party.update(wrong)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"round": 2}, Replay),
        ({"roster": Digest.of(b"of another attempt")}, Replay),
        ({"parameters": Digest.of(b"other")}, Mismatch),
        ({"pair": Digest.of(b"other")}, Mismatch),
    ],
)
def test_ciphertexts_of_another_round_key_or_parameters_are_refused(
    party: Party, changes: dict[str, Any], error: type[Error]
) -> None:
    total = party.sum()
    with pytest.raises(error):
        total.add(party.update(values(), **changes), MEMBERS[0])
    assert not total.members
    total.add(party.update(values()), MEMBERS[0])
    with pytest.raises(error):
        party.decrypt(written(total), MEMBERS[:1], **changes)


def test_an_update_in_the_name_of_another_is_refused(party: Party) -> None:
    with pytest.raises(Untrusted):
        party.sum().add(party.update(values(), "bee"), MEMBERS[0])


def test_a_second_update_is_refused(party: Party) -> None:
    total = party.sum()
    total.add(party.update(values()), MEMBERS[0])
    with pytest.raises(Replay):
        total.add(party.update(values()), MEMBERS[0])


def test_more_members_than_there_is_room_for_are_refused(party: Party) -> None:
    total = party.sum()
    for member in MEMBERS:
        total.add(party.update(values(), member), member)
    with pytest.raises(Untrusted):
        total.add(party.update(values(), "dog"), MemberId("dog"))


@pytest.mark.parametrize("key", ["secret", "public"])
def test_a_damaged_update_changes_nothing(party: Party, key: str) -> None:
    """Cut, extended, or with a coefficient out of range in its last chunk: the sum is as if it never came."""
    total, good = party.sum(), party.update(values(1), "bee", getattr(party, key))
    total.add(good, MEMBERS[1])
    before, size = written(total), encrypted_bytes(party.parameters, key)  # type: ignore[arg-type]
    bad = party.update(values(2), "ant", getattr(party, key))
    tail = 64 if key == "secret" else party.parameters.polynomial_bytes
    out_of_range = bytearray(bad)
    out_of_range[-tail - 8 : -tail] = b"\xff" * 8
    assert len(bad) > size
    for damaged in (bad[:-1], bad + b"\0", bad[:-size], b"", bad[:11], b"SSWHEUP\x02" + bad[8:], bytes(out_of_range)):
        with pytest.raises(Malformed):
            total.add(damaged, MEMBERS[0])
    assert written(total) == before
    assert (party.decrypt(before, [MEMBERS[1]]) == values(1)).all()


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_an_update_that_is_refused_comes_off_again(chunk: int) -> None:
    """The first to send second polynomials has one out of range: what is written is as if nobody had."""
    length = 40_000  # three chunks
    party = Party(derive_bfv(length=length, cohort=3, payload_bits=12, encryption="public"))
    one, two, three = (values(seed, length) for seed in (1, 2, 3))
    total, p, bad = party.sum(), party.parameters, bytearray(party.update(two, key=party.public))
    start = len(bad) - encrypted_bytes(p, "public") + chunk * 2 * p.polynomial_bytes
    bad[start + p.polynomial_bytes : start + 2 * p.polynomial_bytes] = b"\xff" * p.polynomial_bytes
    with pytest.raises(Malformed, match="below its prime"):
        total.add(bytes(bad), MEMBERS[0])
    with pytest.raises(RuntimeError, match="no updates"):
        written(total)
    good, fresh = party.update(one, "bee"), party.sum()
    for each in (total, fresh):
        each.add(good, MEMBERS[1])
    assert written(total) == written(fresh)
    total.add(party.update(three, key=party.public), MEMBERS[0])
    expected = one.astype(np.uint32) + three
    assert (party.decrypt(written(total), MEMBERS[:2]) == expected).all()


def test_words_come_off_as_they_went_on(party: Party) -> None:
    rng, p = np.random.default_rng(5), party.parameters
    one, other = (np.stack([rng.integers(0, prime, p.degree, np.uint64) for prime in p.primes]) for _ in range(2))
    one[:, :4], other[:, :4] = 0, np.array(p.primes, np.uint64)[:, None] - np.uint64(1)
    total = one.copy()
    add_words(total, other, p)
    subtract_words(total, other, p)
    assert (total == one).all()


def test_a_ciphertext_that_encrypts_nothing_is_refused(party: Party) -> None:
    """A second polynomial of zeros would carry the plaintext in the clear."""
    p = party.parameters
    bad = bytearray(party.update(values(), key=party.public))
    bad[-p.polynomial_bytes :] = pack_words(np.zeros((len(p.primes), p.degree), np.uint64), p)
    with pytest.raises(Malformed):
        party.sum().add(bytes(bad), MEMBERS[0])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_bytes_come_nothing_but_our_errors(party: Party, data: st.DataObject) -> None:
    good = bytearray(party.update(values()))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, min(len(good) - 1, 400)))] = data.draw(st.integers(0, 255))
    total = party.sum()
    try:
        total.add(bytes(good), MEMBERS[0])
    except Error:
        assert not total.members


def test_a_damaged_sum_is_refused(party: Party) -> None:
    total = party.sum()
    total.add(party.update(values()), MEMBERS[0])
    data = written(total)
    for damaged in (data[:-1], data + b"\0", data[:20], b"", party.update(values())):
        with pytest.raises(Malformed):
            party.decrypt(damaged, MEMBERS[:1])


def test_a_sum_of_other_members_than_those_that_signed_is_refused(party: Party) -> None:
    total = party.sum()
    for member in MEMBERS[:2]:
        total.add(party.update(values(), member), member)
    for signed in (MEMBERS, MEMBERS[:1], MEMBERS[1:]):
        with pytest.raises(Untrusted):
            party.decrypt(written(total), list(signed))


@pytest.mark.parametrize("key", ["public", "secret"])
def test_one_members_ciphertext_does_not_pass_as_the_sum(party: Party, key: str) -> None:
    """The aggregator relabels one update as the sum of three, or adds it three times; the check vector tells."""
    vectors = {member: values(index) for index, member in enumerate(MEMBERS)}
    check = CheckVector(b"s" * 32, party.context.round, party.context.to_bytes())
    tags = sum(check.tag(member, vector) for member, vector in vectors.items())
    ant = party.update(vectors[MEMBERS[0]], MEMBERS[0], getattr(party, key))
    honest, forged = party.sum(), party.sum()
    for member, vector in vectors.items():
        honest.add(party.update(vector, member), member)
    forged.add(ant, MEMBERS[0])
    if key == "public":
        forged._members = dict.fromkeys(MEMBERS, "public")
        stolen = vectors[MEMBERS[0]]
    else:
        for member in MEMBERS[1:]:
            forged.add(ant.replace(b"\x03ants", b"\x03" + member.encode() + b"s"), member)
        stolen = 3 * vectors[MEMBERS[0]]
    assert (party.decrypt(written(forged), MEMBERS) == stolen).all()  # the aggregator's trick works but for the check
    assert not check.accepts(party.decrypt(written(forged), MEMBERS), tags, MEMBERS)
    assert check.accepts(party.decrypt(written(honest), MEMBERS), tags, MEMBERS)


def test_nothing_that_reaches_the_aggregator_holds_the_secret_key(party: Party) -> None:
    """What it is sent and what it keeps: no part of the secret key is among it, and it cannot make a decryptor."""
    total = party.sum()
    for member in MEMBERS:
        total.add(party.update(values(), member), member)
    seen = party.parameters.to_bytes() + party.context.to_bytes() + written(total)
    polynomial = party.secret.polynomial
    assert all(polynomial[start : start + 16] not in seen for start in range(0, len(polynomial) - 16, 512))
    for claimed in (seen, party.public.to_bytes()):
        with pytest.raises(Malformed):
            HeSecretKey.parse(claimed)


def test_memory_does_not_grow_with_the_members() -> None:
    length = 60_000
    party = Party(derive_bfv(length=length, cohort=40, payload_bits=12, encryption="secret"))
    update, peaks = party.update(values(length=length)), []
    for count in (2, 32):
        total = party.sum()
        tracemalloc.start()
        for index in range(count):
            name = f"m{index:02}"
            total.add(update.replace(b"\x03ants", b"\x03" + name.encode() + b"s"), MemberId(name))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 0.2 * len(update)
    assert peaks[1] < 3 * 4 * length  # three updates of float32


def test_encrypting_holds_a_chunk_at_a_time() -> None:
    class Sink(io.RawIOBase):
        def write(self, data: Any) -> int:
            return len(data)

    peaks = []
    for length in (50_000, 400_000):
        party = Party(derive_bfv(length=length, cohort=10, payload_bits=12, encryption="secret"))
        encryptor, vector = party.he.encryptor(party.secret), values(length=length)
        tracemalloc.start()
        encrypt_update(vector, encryptor, party.context, MEMBERS[0], Sink())  # type: ignore[arg-type]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 100_000


def test_ckks_sums_real_numbers() -> None:
    parameters = derive_ckks(length=5000, cohort=3, bound=1.0, error=1e-5, encryption="public")
    party = Party(parameters)
    total = party.sum()
    vectors = [np.random.default_rng(seed).uniform(-1, 1, 5000) for seed in range(3)]
    for member, vector in zip(MEMBERS, vectors, strict=True):
        total.add(party.update(vector, member, party.public), member)
    assert np.abs(party.decrypt(written(total), MEMBERS) - sum(vectors)).max() <= 1e-5
    with pytest.raises(NotFinite):
        party.update(np.full(5000, np.nan))
