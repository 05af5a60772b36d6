"""Claim: encrypted updates take 2 to 6 bytes a parameter and a fraction of the time of CKKS 8192 [60,40,40,60].

    python -m benchmarks.he_sums [--parameters 1000000] [--runs 3] [--members 10]

The baseline is the setting that tutorials use, on 1 M values a vector whatever `--parameters` says; times are CPU
seconds of one thread for each million of parameters, the best of interleaved runs, and ratios are to that baseline.
A client encrypts and serialises; the aggregator reads and adds one update; a key holder decrypts the sum.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tenseal as ts

from benchmarks.record import best_of, record
from superswarm.crypto.he import HeContext
from superswarm.crypto.he_parameters import Encryption, HeParameters, derive_bfv, derive_ckks
from superswarm.updates.secure.he_sum import HeSum, SumContext, decrypt_sum, encrypt_update
from superswarm.values import Digest, MemberId

MILLION = 1_000_000
PAYLOAD = 12  # bits
CASES: tuple[tuple[str, int, Encryption], ...] = (
    ("bfv", 3, "secret"),
    ("bfv", 3, "public"),
    ("bfv", 10, "secret"),
    ("bfv", 10, "public"),
    ("bfv", 16, "secret"),
    ("bfv", 16, "public"),
    ("bfv", 50, "public"),
    ("ckks", 10, "secret"),
    ("ckks", 10, "public"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parameters", type=int, default=MILLION)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--members", type=int, help="only the settings with so many members")
    given = parser.parse_args()
    for scheme, members, encryption in CASES:
        if given.members not in (None, members):
            continue
        case = Case(scheme, members, encryption, given.parameters)
        baseline = Baseline()
        steps = case.steps()
        times = best_of(given.runs, *(step for step, _ in steps), *baseline.steps())
        report(case, baseline, [t / size * MILLION for t, (_, size) in zip(times, steps, strict=False)], times[3:])


class Baseline:
    """CKKS 8192 [60,40,40,60] by TenSEAL, as its tutorials set it up, on 1 M values."""

    def __init__(self) -> None:
        self.context = ts.context(ts.SCHEME_TYPE.CKKS, 8192, -1, [60, 40, 40, 60], n_threads=1)
        self.context.global_scale = 2**40
        self.values = (np.random.default_rng(0).standard_normal(MILLION) * 1e-3).tolist()
        self.sealed = self.encrypt()
        self.total = ts.ckks_vector_from(self.context, self.sealed)

    def encrypt(self) -> bytes:
        return bytes(ts.ckks_vector(self.context, self.values).serialize())

    def add(self) -> None:
        self.total += ts.ckks_vector_from(self.context, self.sealed)

    def decrypt(self) -> None:
        self.total.decrypt()

    def steps(self) -> list[Callable[[], Any]]:
        return [self.encrypt, self.add, self.decrypt]


class Case:
    """One setting of ours, with one update encrypted and one sum of all members written."""

    def __init__(self, scheme: str, members: int, encryption: Encryption, length: int) -> None:
        self.scheme, self.members, self.encryption, self.length = scheme, members, encryption, length
        self.parameters = derived(scheme, members, encryption, length)
        self.he = HeContext(self.parameters)
        secret, public = self.he.generate()
        key = secret if encryption == "secret" else public
        self.encryptor, self.decryptor = self.he.encryptor(key), self.he.decryptor(secret)
        self.context = SumContext(
            roster=Digest.of(b"benchmark"), round=1, parameters=self.parameters.digest, pair=public.pair
        )
        values = np.random.default_rng(0).integers(0, 2**PAYLOAD, length, dtype=np.uint16)
        self.values = values if scheme == "bfv" else values.astype(np.float64)
        self.names = [MemberId(f"m{i:03}") for i in range(members)]
        self.update = self.encrypt()
        total = HeSum(self.parameters, self.context)
        for name in self.names:
            total.add(self.encrypt(name), name)  # fresh noise for each, which parameters count on
        dst = io.BytesIO()
        total.write(dst)
        self.total = dst.getvalue()

    def encrypt(self, name: str = "m000") -> bytes:
        dst = io.BytesIO()
        encrypt_update(self.values, self.encryptor, self.context, MemberId(name), dst)
        return dst.getvalue()

    def decrypt(self) -> Any:
        return decrypt_sum(self.total, self.decryptor, self.context, self.names)

    def steps(self) -> list[tuple[Callable[[], Any], int]]:
        add = partial(add_to_new, self.parameters, self.context, self.update)
        return [(self.encrypt, self.length), (add, self.length), (self.decrypt, self.length)]

    @property
    def error(self) -> float:
        """Of the decrypted sum, against the exact one."""
        return float(np.abs(self.decrypt().astype(np.float64) - self.members * self.values.astype(np.float64)).max())


def add_to_new(parameters: HeParameters, context: SumContext, update: bytes) -> None:
    """Take one update into a sum, checks included; making the empty sum counts, too."""
    HeSum(parameters, context).add(update, MemberId("m000"))


def derived(scheme: str, members: int, encryption: Encryption, length: int) -> HeParameters:
    if scheme == "bfv":
        return derive_bfv(length=length, cohort=members, payload_bits=PAYLOAD, encryption=encryption)
    return derive_ckks(length=length, cohort=members, bound=2.0**PAYLOAD, error=0.25, encryption=encryption)


def report(case: Case, baseline: Baseline, ours: list[float], theirs: list[float]) -> None:
    p = case.parameters
    record(
        "he-sums",
        scheme=case.scheme,
        members=case.members,
        key="secret" if case.encryption == "secret" else "public",
        parameters=case.length,
        degree=p.degree,
        prime_bits=[prime.bit_length() for prime in p.primes],
        values_a_slot=p.packed,
        up_bytes_a_parameter=round(len(case.update) / case.length, 2),
        down_bytes_a_parameter=round(len(case.total) / case.length, 2),
        baseline_bytes_a_parameter=round(len(baseline.sealed) / MILLION, 1),
        encrypt_seconds=round(ours[0], 3),
        add_seconds=round(ours[1], 4),
        decrypt_seconds=round(ours[2], 3),
        baseline_seconds=[round(t, 3) for t in theirs],
        encrypt_over_baseline=round(ours[0] / theirs[0], 3),
        add_over_baseline=round(ours[1] / theirs[1], 3),
        decrypt_over_baseline=round(ours[2] / theirs[2], 3),
        largest_error=case.error,
    )


if __name__ == "__main__":
    main()
