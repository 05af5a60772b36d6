"""Claim: aggregation holds three updates' bytes however many members there are: the one being added, and its sum.

    python -m benchmarks.aggregation

Also compares the ways to sum that were considered: float64, compensated float32 (Neumaier 1974), plain float32.
"""

from __future__ import annotations

import argparse
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import best_of, record
from superswarm.updates.adapter import AdapterSpec, decode_adapter, encode_adapter
from superswarm.updates.aggregate import StreamingMean

Vector: TypeAlias = NDArray[np.float32]
PARAMETERS = 16 * 1024**2  # 64 MiB
BLOCK = 1 << 16


def main() -> None:
    rng = np.random.default_rng(7)
    updates = [(rng.standard_t(3, PARAMETERS) * 0.01).astype(np.float32) for _ in range(4)]
    memory_and_time(updates)
    ways_to_sum(updates)
    bytes_of_adapters(updates[0])


def memory_and_time(updates: list[Vector]) -> None:
    """Peak memory (sum and result) over one update's, and CPU time of one addition over that of one copy."""
    spec = AdapterSpec.of({"w": updates[0]})
    copy = np.ones_like(updates[0])
    for members in (2, 8, 32, 128):
        tracemalloc.start()
        mean = add_all(spec, updates, members)
        mean.result()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        added, copied = best_of(5, partial(mean.add, {"w": updates[0]}, 100.0), partial(np.copyto, copy, updates[1]))
        record(
            "aggregation-memory-time",
            members=members,
            peak_over_update=round(peak / spec.nbytes, 3),
            add_over_copy=round(added / copied, 2),
        )


def add_all(spec: AdapterSpec, updates: list[Vector], members: int) -> StreamingMean:
    mean = StreamingMean(spec)
    for member in range(members):
        mean.add({"w": updates[member % len(updates)]}, 100.0 + member)
    return mean


def ways_to_sum(updates: list[Vector]) -> None:
    """Error, memory and time of each way to sum 16 updates."""
    weights = [float(w) for w in np.random.default_rng(1).integers(50, 5000, 16)]
    exact = np.zeros(PARAMETERS, np.longdouble)
    for i, weight in enumerate(weights):
        exact += np.longdouble(weight) * updates[i % 4]
    exact /= np.longdouble(sum(weights))
    ways: list[tuple[str, int, Callable[[list[Vector], list[float]], Vector]]] = [
        ("float64", 2, sum64),
        ("compensated float32", 2, neumaier),
        ("plain float32", 1, running),
    ]
    chosen = [updates[i % 4] for i in range(16)]
    times = best_of(2, *(partial(way, chosen, weights) for _, _, way in ways))
    for (name, memory, way), seconds in zip(ways, times, strict=True):
        error = np.abs(way(chosen, weights) - exact)
        record(
            "aggregation-ways-to-sum",
            way=name,
            state_over_update=memory,
            time_over_float64=round(seconds / times[0], 2),
            worst_relative_error=float((error / np.maximum(np.abs(exact), 1e-30)).max()),
            rms_relative_error=float(np.sqrt((error**2).mean() / (exact**2).mean())),
        )


def _blocks() -> list[slice]:
    return [slice(at, min(at + BLOCK, PARAMETERS)) for at in range(0, PARAMETERS, BLOCK)]


def sum64(updates: list[Vector], weights: list[float]) -> Vector:
    mean = StreamingMean(AdapterSpec.of({"w": updates[0]}))
    for update, weight in zip(updates, weights, strict=True):
        mean.add({"w": update}, weight)
    return mean.result()["w"]


def neumaier(updates: list[Vector], weights: list[float]) -> Vector:
    total, lost = np.zeros(PARAMETERS, np.float32), np.zeros(PARAMETERS, np.float32)
    for update, weight in zip(updates, weights, strict=True):
        for part in _blocks():
            term = update[part] * np.float32(weight)
            new = total[part] + term
            lost[part] += np.where(
                np.abs(total[part]) >= np.abs(term), (total[part] - new) + term, (term - new) + total[part]
            )
            total[part] = new
    return (total + lost) / np.float32(sum(weights))


def running(updates: list[Vector], weights: list[float]) -> Vector:
    mean, so_far = np.zeros(PARAMETERS, np.float32), 0.0
    for update, weight in zip(updates, weights, strict=True):
        so_far += weight
        for part in _blocks():
            mean[part] += (update[part] - mean[part]) * np.float32(weight / so_far)
    return mean


def bytes_of_adapters(update: Vector) -> None:
    """Encoding and decoding 64 MiB in 256 tensors, against one copy of the bytes."""
    adapter = {f"layers.{i}.lora": part for i, part in enumerate(update.reshape(256, 16, -1))}
    spec, raw = AdapterSpec.of(adapter), encode_adapter(adapter)
    copied, encoded, decoded = best_of(
        5, lambda: bytearray(raw), lambda: encode_adapter(adapter), lambda: decode_adapter(raw, spec)
    )
    record(
        "adapter-bytes",
        mebibytes=len(raw) >> 20,
        encode_over_copy=round(encoded / copied, 2),
        decode_over_copy=round(decoded / copied, 2),
    )


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
