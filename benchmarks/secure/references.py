"""What figures are ratios of, measured beside what they are for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks.secure.draws import Draws
from benchmarks.secure.gauge import trim
from benchmarks.secure.link import process
from benchmarks.secure.tutorial_ckks import LONGEST, encrypt, make_context

BLOCK: Final = 1 << 17  # bytes at a time, which stay in the processor's cache
TIMES: Final = 3
SLOW_TIMES: Final = 1  # of what takes seconds


def numpy_sum(parameters: int, members: int, bodies: Path) -> float:
    """CPU seconds of adding so many float32 vectors, each read from a file just before, as updates are.

    In a fresh process, as the aggregator's is: memory that is touched for the first time costs as much as a vector.
    """
    with process(Adder) as adder:
        return float(adder.call("add", parameters, members, bodies / "reference"))


class Adder:
    """What `numpy_sum` starts."""

    def add(self, parameters: int, members: int, file: Path) -> float:
        file.write_bytes(np.random.default_rng(0).standard_normal(parameters, np.float32).data)
        trim()
        total, spent = np.zeros(parameters, np.float32), 0.0
        for _ in range(members):
            update = np.frombuffer(file.read_bytes(), np.float32)
            began = time.process_time()
            total += update
            spent += time.process_time() - began
        file.unlink()
        return spent


def aes_ctr_pass(size: int) -> float:
    """CPU seconds of making `size` bytes of one AES-256-CTR stream, into memory that stays in the cache."""
    zeros, out = memoryview(bytes(BLOCK)), memoryview(bytearray(BLOCK))

    def once() -> None:
        encryptor = Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor()
        for start in range(0, size, BLOCK):
            part = min(BLOCK, size - start)
            encryptor.update_into(zeros[:part], out[:part])

    return _best(once, TIMES)


def tutorial_client(parameters: int, seed: int) -> float:
    """CPU seconds for each parameter of a client under CKKS 8192 [60, 40, 40, 60], on at most a million."""
    size = min(parameters, LONGEST)
    update, context = Draws(size, seed).of(0), make_context()
    return _best(lambda: encrypt(context, update), SLOW_TIMES) / size


def _best(function: Callable[[], object], times: int) -> float:
    """The shortest of a few runs: what else runs on the machine only ever adds."""
    found = []
    for _ in range(times):
        began = time.process_time()
        function()
        found.append(time.process_time() - began)
    return min(found)
