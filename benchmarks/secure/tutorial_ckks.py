"""CKKS 8192 [60, 40, 40, 60]: the setting of TenSEAL's tutorials, which most federated code takes over.

Timed on vectors of at most a million values. For longer ones, seconds and bytes are those times the number of
millions, and the result says so; memory is not extrapolated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.secure.draws import Draws, Truth, Vector
from benchmarks.secure.gauge import Gauge
from benchmarks.secure.link import Other, take

DEGREE: Final = 8192
PRIMES: Final = (60, 40, 40, 60)
SCALE: Final = 2.0**40
LONGEST: Final = 1_000_000
DISTINCT: Final = 3  # members that encrypt; the aggregator adds theirs in turn until it has added all


def make_context() -> Any:
    """A context with its secret key, for one thread."""
    import tenseal as ts

    context = ts.context(ts.SCHEME_TYPE.CKKS, DEGREE, -1, list(PRIMES), n_threads=1)
    context.global_scale = SCALE
    return context


def encrypt(context: Any, update: Vector) -> bytes:
    """What a client sends."""
    import tenseal as ts

    return bytes(ts.ckks_vector(context, update.tolist()).serialize())


class CkksAggregator:
    """Adds ciphertexts, with the public context only."""

    def __init__(self) -> None:
        import tenseal as ts

        self.seal, self.gauge, self.total = ts, Gauge(), None
        self.gauge.start()

    def begin(self, public: bytes) -> None:
        self.context = self.seal.context_from(public, n_threads=1)

    def answer(self, body: Path) -> None:
        received = take(body)
        with self.gauge.time("sum"):
            one = self.seal.ckks_vector_from(self.context, received)
            self.total = one if self.total is None else self.total + one

    def total_to(self, file: Path) -> None:
        if self.total is None:
            raise RuntimeError("the sum of no updates")
        with self.gauge.time("write"):
            raw = self.total.serialize()
        file.write_bytes(raw)

    def report(self) -> dict[str, Any]:
        return self.gauge.report()


class CkksMembers:
    """Members that share one secret key."""

    def __init__(self, draws: Draws, members: int, bodies: Path) -> None:
        self.draws, self.members, self.bodies = draws, members, bodies
        self.gauge, self.truth = Gauge(), Truth(draws.parameters)
        self.up = self.down = 0

    def play(self, aggregator: Other) -> Vector:
        """One round; the mean."""
        context = make_context()
        aggregator.call("begin", context.serialize(save_secret_key=False))
        sent: list[bytes] = []
        for member in range(self.members):
            update = self.draws.of(member % DISTINCT)
            self.truth.add(update)
            if member < DISTINCT:
                with self.gauge.growth("client"), self.gauge.time("encrypt", str(member)):
                    sent.append(encrypt(context, update))
            (self.bodies / "update").write_bytes(sent[member % DISTINCT])
            aggregator.call("answer", self.bodies / "update")
        self.up = len(sent[0])
        aggregator.call("total_to", self.bodies / "total")
        return self._decrypt(context, take(self.bodies / "total"))

    def _decrypt(self, context: Any, raw: bytes) -> Vector:
        import tenseal as ts

        self.down = len(raw)
        with self.gauge.growth("decrypt"), self.gauge.time("decrypt"):
            total = ts.ckks_vector_from(context, raw).decrypt()
        return (np.array(total) / self.members).astype(np.float32)
