"""Ask many peers at once and take their answers as they come, up to a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from coordinator.mailroom import Mailroom, Outgoing
from superswarm.attestation.messages import Refused
from superswarm.errors import Unavailable
from superswarm.wire import Parcel

SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.05  # seconds between two looks into the mailroom


class PeerRefused(Unavailable):
    """A peer answered with a fixed word instead. The word is not authenticated: it is news and no proof."""

    def __init__(self, refusal: str) -> None:
        super().__init__(f"refused with {refusal}")
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Timing:
    """How the aggregator waits: a monotonic clock and a way to sleep, both in seconds."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def exchange(
    mailroom: Mailroom,
    outgoing: Sequence[Outgoing],
    seconds: float,
    each: Callable[[int, Parcel | None], None],
    *,
    timing: Timing,
    meanwhile: Callable[[], None] = lambda: None,
) -> frozenset[int]:
    """Post all, call `each(peer, answer)` as answers come (None: the relay reports a failure), and stop at the
    deadline. `meanwhile` runs between two looks. Returns the peers that did not answer in time.

    Answers are handed over one by one and not kept, so that memory does not grow with the number of peers.
    """
    if not outgoing:
        return frozenset()
    deadline = timing.monotonic() + seconds
    waiting = dict(zip(mailroom.post_all(outgoing, ttl=seconds), (o.peer for o in outgoing), strict=True))
    for turn in count():
        deliveries = mailroom.collect(list(waiting))
        deliveries.reverse()
        arrived = bool(deliveries)
        while deliveries:
            delivery = deliveries.pop()
            each(waiting.pop(delivery.ticket), delivery.parcel)
            del delivery
        if not waiting or timing.monotonic() >= deadline:
            break
        meanwhile()
        if not arrived:
            timing.sleep(min(LONGEST_PAUSE, SHORTEST_PAUSE * 1.3 ** min(turn, 20)))
    return frozenset(waiting.values())


def accepted(parcel: Parcel | None) -> Parcel:
    """The answer; Unavailable where the relay failed, or where the peer refused with a fixed word."""
    if parcel is None:
        raise Unavailable("the relay reports a failure")
    refusal = Refused.read(parcel.head)
    if refusal is not None:
        raise PeerRefused(refusal.code)
    return parcel
