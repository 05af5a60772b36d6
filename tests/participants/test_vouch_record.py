"""A node vouches for one aggregator a run attempt, whatever happens to its process in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from participants.vouch_record import DurableVouchRecord
from superswarm.errors import Malformed, SecondAggregator
from superswarm.values import Digest

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "vouches.json"


def test_the_same_aggregator_may_ask_again(file: Path) -> None:
    for _ in range(2):
        DurableVouchRecord(file).claim("run", 1, ONE)


def test_another_one_is_refused_after_a_restart_too(file: Path) -> None:
    DurableVouchRecord(file).claim("run", 1, ONE)
    with pytest.raises(SecondAggregator):
        DurableVouchRecord(file).claim("run", 1, TWO)
    DurableVouchRecord(file).claim("other-run", 1, TWO)


def test_an_earlier_attempt_is_over(file: Path) -> None:
    record = DurableVouchRecord(file)
    record.claim("run", 2, ONE)
    for session in (ONE, TWO):
        with pytest.raises(SecondAggregator):
            record.claim("run", 1, session)
    record.claim("run", 3, TWO)


def test_of_many_at_once_one_wins(file: Path) -> None:
    def claim(number: int) -> bool:
        try:
            DurableVouchRecord(file).claim("run", 1, Digest.of(bytes([number])))
        except SecondAggregator:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(16))) == 1


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format":"superswarm-vouches/1","runs":{"run":[1]}}'])
def test_a_damaged_record_stops_the_node(file: Path, content: bytes) -> None:
    """Starting anew from nothing would forget what was vouched for."""
    file.write_bytes(content)
    with pytest.raises(Malformed):
        DurableVouchRecord(file).claim("run", 1, ONE)
