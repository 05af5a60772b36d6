"""The global adapter that a trainer holds, and the ways in which it comes to hold the next one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from superswarm.updates.adapter import Adapter, decode_adapter, encode_adapter
from superswarm.updates.optimizer import ServerOptimizer
from superswarm.updates.secure.total import CheckedSum
from superswarm.values import Digest


@dataclass(slots=True)
class Held:
    """The newest global adapter of a run, and after how many completed rounds."""

    run: str
    rounds: int
    whole: Adapter = field(repr=False)  # with the server optimiser's state
    adapter: Adapter = field(repr=False)  # its part that is trained
    digest: Digest

    @classmethod
    def initial(cls, run: str, adapter: Adapter, optimizer: ServerOptimizer) -> Self:
        """What every member of a new run begins with."""
        whole = optimizer.start(adapter)
        return cls(run, 0, whole, adapter, Digest.of(encode_adapter(whole)))

    @classmethod
    def given(cls, run: str, rounds: int, raw: bytes, optimizer: ServerOptimizer) -> Self:
        """What the aggregator broadcast. Raises what `decode_adapter` raises."""
        whole = decode_adapter(raw, optimizer.held)
        return cls(run, rounds, whole, optimizer.adapter(whole), Digest.of(raw))

    def after(self, checked: CheckedSum, optimizer: ServerOptimizer) -> Self:
        """What a round's checked sum makes of this."""
        whole = optimizer.step(self.whole, optimizer.spec.views(checked.mean))
        digest = Digest.of(encode_adapter(whole))
        return type(self)(self.run, checked.round, whole, optimizer.adapter(whole), digest)
