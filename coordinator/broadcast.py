"""The global adapter on its way to the trainers: nothing, the last sum, or all of it, each form encrypted once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final

from coordinator.admission import Session
from coordinator.secure_round import MadeSum
from superswarm.crypto.channel import seal_broadcast
from superswarm.updates.adapter import Adapter
from superswarm.updates.messages import Order
from superswarm.values import Digest
from superswarm.wire import Header

CONTENT_KEY_BYTES: Final = 32


@dataclass(slots=True)
class GlobalAdapter:
    """The global adapter after some completed rounds, as values; as bytes, with the server optimiser's state.

    `made` is the secure sum that the last of these rounds made of the adapter before. Where sums are encrypted this
    side has only the `known` digest: values and bytes are empty.
    """

    rounds: int
    adapter: Adapter = field(repr=False)
    raw: bytes = field(repr=False)
    made: MadeSum | None = field(default=None, repr=False)
    known: Digest | None = None
    digest: Digest = field(init=False)

    def __post_init__(self) -> None:
        self.digest = self.known or Digest.of(self.raw)


class Broadcast:
    """One round's orders. Trainers that take the same form share one ciphertext, which the relay stores once."""

    def __init__(self, state: GlobalAdapter, context: Header) -> None:
        self._state, self._context = state, context
        self._sealed: dict[bool, tuple[bytes, bytes]] = {}  # by whether it is the sum: content key, ciphertext

    def order(self, session: Session, holds: bytes, letters: tuple[bytes, ...]) -> tuple[Order, bytes]:
        """The order for a trainer that holds the adapter of this digest, and the body that goes with it."""
        state = self._state
        if holds == state.digest.raw:
            return Order(content_key=b"", digest=state.digest.raw, letters=letters), b""
        if state.known is not None:
            raise RuntimeError("an adapter that only trainers have cannot be broadcast")
        made = state.made if state.made is not None and session.keys.digest in state.made.takers else None
        key, body = self._form(made)
        total = made.total if made is not None else b""
        return Order(content_key=key, digest=state.digest.raw, letters=letters, total=total), body

    def _form(self, made: MadeSum | None) -> tuple[bytes, bytes]:
        """The sum, or the adapter, under a key of its own."""
        is_sum = made is not None
        if is_sum not in self._sealed:
            key = secrets.token_bytes(CONTENT_KEY_BYTES)
            plain = made.body if made is not None else self._state.raw
            self._sealed[is_sum] = key, seal_broadcast(plain, key, self._context)
        return self._sealed[is_sum]
