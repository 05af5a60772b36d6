"""What a run of either deployment took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. `job`: from the command that starts the run to the adapter in the hands of whom it is for."""

    job: float
    rounds: Mapping[int, float]  # each from its beginning to the next one's; the last one is left out
    handshake: float = 0.0  # from the aggregator's first message to the last trainer's admission
    aggregator_bytes: int = 0  # its resident peak


def between(begun: Mapping[int, float]) -> dict[int, float]:
    """How long each round took, from the times at which rounds began."""
    return {number: begun[number + 1] - at for number, at in begun.items() if number + 1 in begun}
