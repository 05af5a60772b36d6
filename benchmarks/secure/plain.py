"""Sums that hide nothing from the aggregator: float32 by numpy, the mean as superswarm takes it, and that sealed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.secure.draws import Draws, Truth, Vector
from benchmarks.secure.gauge import Gauge
from benchmarks.secure.link import Other, take
from superswarm.crypto.channel import SECRET_BYTES, Channel, open_broadcast, seal_broadcast
from superswarm.updates.adapter import Adapter, AdapterSpec, decode_adapter, encode_adapter
from superswarm.updates.aggregate import StreamingMean
from superswarm.values import Digest
from superswarm.wire import Header, Parcel

AGGREGATOR: Final = "aggregator"
RUN: Final = "benchmark"
NOWHERE: Final = Digest.of(b"benchmark")


def spec_of(parameters: int) -> AdapterSpec:
    return AdapterSpec((("layers.0.lora", (parameters,)),))


class PlainAggregator:
    """Adds float32 vectors with numpy."""

    def __init__(self) -> None:
        self.gauge, self.count = Gauge(), 0
        self.gauge.start()

    def begin(self, parameters: int) -> None:
        self.total = np.zeros(parameters, np.float32)

    def answer(self, body: Path) -> None:
        update = np.frombuffer(take(body), np.float32)
        with self.gauge.time("sum"):
            self.total += update
        self.count += 1

    def total_to(self, file: Path) -> None:
        with self.gauge.time("recover"):
            mean = self.total / np.float32(self.count)
        file.write_bytes(mean.data)

    def report(self) -> dict[str, Any]:
        return self.gauge.report()


class MeanAggregator(PlainAggregator):
    """Adds them with `StreamingMean`, in float64, every value checked."""

    def begin(self, parameters: int) -> None:
        self.spec = spec_of(parameters)
        self.mean = StreamingMean(self.spec)

    def answer(self, body: Path) -> None:
        received = take(body)
        with self.gauge.time("sum"):
            self.mean.add(decode_adapter(received, self.spec), 1)

    def total_to(self, file: Path) -> None:
        with self.gauge.time("recover"):
            raw = encode_adapter(self.mean.result())
        file.write_bytes(raw)


class AttestedAggregator(MeanAggregator):
    """The same, of updates that come sealed in each trainer's channel."""

    def begin(self, parameters: int, secrets_of: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().begin(parameters)
        self.channels = [_channel(pair, AGGREGATOR, f"member-{i}") for i, pair in enumerate(secrets_of)]

    def answer_sealed(self, member: int, head: bytes, body: Path) -> None:
        parcel = Parcel(head, take(body))
        with self.gauge.time("open"):
            _, raw = self.channels[member].open(parcel, "train-done", 1)
        del parcel
        if raw is None:
            raise RuntimeError("an update without a body")
        with self.gauge.time("sum"):
            self.mean.add(decode_adapter(raw, self.spec), 1)

    def total_to(self, file: Path) -> None:
        super().total_to(file)
        with self.gauge.time("recover"):
            sealed = seal_broadcast(file.read_bytes(), self.key, _broadcast())
        file.write_bytes(sealed)

    def broadcast(self, key: bytes) -> None:
        self.key = key


class PlainMembers:
    """Members that send their vectors as they are: raw, or as an adapter's file."""

    sealed = False

    def __init__(self, draws: Draws, members: int, bodies: Path, *, adapters: bool) -> None:
        self.draws, self.members, self.bodies, self.adapters = draws, members, bodies, adapters
        self.gauge, self.truth = Gauge(), Truth(draws.parameters)
        self.up = self.down = 0

    def play(self, aggregator: Other) -> Vector:
        """One round; the mean."""
        aggregator.call("begin", self.draws.parameters)
        for member, update in self._updates():
            with self.gauge.growth("client"), self.gauge.time("encode", str(member)):
                raw = self._encoded(update)
            self.up = len(raw)
            (self.bodies / "update").write_bytes(raw)
            aggregator.call("answer", self.bodies / "update")
        aggregator.call("total_to", self.bodies / "total")
        raw = take(self.bodies / "total")
        self.down = len(raw)
        return self._decoded(raw)

    def _updates(self) -> Iterator[tuple[int, Vector]]:
        for member in range(self.members):
            update = self.draws.of(member)
            self.truth.add(update)
            yield member, update

    def _encoded(self, update: Vector) -> bytes:
        return encode_adapter(self._adapter(update)) if self.adapters else update.tobytes()

    def _adapter(self, update: Vector) -> Adapter:
        return {"layers.0.lora": update}

    def _decoded(self, raw: bytes) -> Vector:
        if not self.adapters:
            return np.frombuffer(raw, np.float32)
        return decode_adapter(raw, spec_of(self.draws.parameters))["layers.0.lora"]


class AttestedMembers(PlainMembers):
    """Members that seal an adapter's file to the aggregator, in the channel that a handshake made."""

    def play(self, aggregator: Other) -> Vector:
        pairs = tuple(
            (secrets.token_bytes(SECRET_BYTES), secrets.token_bytes(SECRET_BYTES)) for _ in range(self.members)
        )
        aggregator.call("begin", self.draws.parameters, pairs)
        for member, update in self._updates():
            channel = _channel(pairs[member], f"member-{member}", AGGREGATOR)
            with self.gauge.growth("client"):
                with self.gauge.time("encode", str(member)):
                    raw = self._encoded(update)
                with self.gauge.time("seal", str(member)):
                    parcel = channel.seal("train-done", 1, b"", raw)
            self.up = len(parcel.head) + len(parcel.body)
            (self.bodies / "update").write_bytes(parcel.body)
            aggregator.call("answer_sealed", member, parcel.head, self.bodies / "update")
        return self._broadcast(aggregator)

    def _broadcast(self, aggregator: Other) -> Vector:
        key = secrets.token_bytes(SECRET_BYTES)
        aggregator.call("broadcast", key)
        aggregator.call("total_to", self.bodies / "total")
        sealed = take(self.bodies / "total")
        self.down = len(sealed)
        with self.gauge.growth("check"), self.gauge.time("check"):
            return self._decoded(open_broadcast(sealed, key, _broadcast()))


def _channel(pair: tuple[bytes, bytes], me: str, peer: str) -> Channel:
    return Channel(secrets=pair, transcript=NOWHERE, manifest=NOWHERE, run=RUN, me=me, peer=peer, last_round=1)


def _broadcast() -> Header:
    return Header(manifest=NOWHERE, run=RUN, round=1, sender=AGGREGATOR, receiver="", kind="train", sequence=0)
