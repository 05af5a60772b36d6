"""The operator's record of attempts."""

from __future__ import annotations

from pathlib import Path

from coordinator.attempts import Attempts, StartedRun


def test_attempts_count_up_and_keep_flowers_64_bit_numbers(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    assert attempts.next("first") == 1
    started = StartedRun("first", attempts.next("first"), 2**64 - 1, simulated=True)
    attempts.add(started)
    assert Attempts(tmp_path).all() == [started]
    assert attempts.next("first") == 2
    assert attempts.next("second") == 1
