"""The newest global adapter that a trainer holds, and what becomes of it where the aggregator never sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.grant import ApprovedGrant
from superswarm.crypto.signing import SigningKey
from superswarm.errors import Untrusted
from superswarm.updates.adapter import Adapter, decode_adapter, encode_adapter
from superswarm.updates.optimizer import ServerOptimizer
from superswarm.updates.publish import publish
from superswarm.updates.secure.total import CheckedSum
from superswarm.values import Digest


@dataclass(slots=True)
class Held:
    """The newest global adapter that this trainer has, and after how many completed rounds."""

    run: str
    rounds: int
    whole: Adapter = field(repr=False)  # with the server optimiser's state
    adapter: Adapter = field(repr=False)  # its part that is trained
    digest: Digest

    @classmethod
    def initial(cls, run: str, adapter: Adapter, optimizer: ServerOptimizer) -> Self:
        """What every member of a new run begins with."""
        return cls.of(run, 0, optimizer.start(adapter), optimizer)

    @classmethod
    def given(cls, run: str, rounds: int, raw: bytes, optimizer: ServerOptimizer) -> Self:
        """What somebody else held. Raises what `decode_adapter` raises."""
        return cls.of(run, rounds, decode_adapter(raw, optimizer.held), optimizer)

    @classmethod
    def of(cls, run: str, rounds: int, whole: Adapter, optimizer: ServerOptimizer) -> Self:
        return cls(run, rounds, whole, optimizer.adapter(whole), Digest.of(encode_adapter(whole)))

    def after(self, checked: CheckedSum, optimizer: ServerOptimizer) -> Held:
        """The next adapter, from this one and the checked sum of the round that began from it."""
        if checked.round != self.rounds + 1:
            raise Untrusted("a sum for an adapter that this trainer does not hold")
        whole = optimizer.step(self.whole, optimizer.spec.views(checked.mean))
        return Held.of(self.run, checked.round, whole, optimizer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """A trainer's adapter in a run whose aggregator learns nothing of it: the `Holding` of encrypted rounds."""

    manifest: ApprovedManifest
    grant: ApprovedGrant
    optimizer: Callable[[], ServerOptimizer]
    held: Callable[[], Held]
    keep: Callable[[Held], None]

    @property
    def last(self) -> int:
        """Rounds of the run."""
        return min(self.grant.job.rounds, self.grant.grant.rounds)

    def step(self, checked: CheckedSum) -> Digest:
        return self._keep(self.held().after(checked, self.optimizer()))

    def give(self) -> tuple[int, bytes]:
        return self.held().rounds, encode_adapter(self.held().whole)

    def adopt(self, rounds: int, raw: bytes) -> Digest:
        if not self.held().rounds <= rounds <= self.last:
            raise Untrusted("an older adapter than this trainer holds, or of more rounds than the run has")
        return self._keep(Held.given(self.held().run, rounds, raw, self.optimizer()))

    def publish(self, signer: SigningKey) -> bytes:
        held = self.held()
        if held.rounds != self.last:
            raise Untrusted(f"a result is asked for after {held.rounds} of {self.last} rounds")
        return publish(
            held.adapter, manifest=self.manifest, job=self.grant.job, run=held.run, rounds=held.rounds, signer=signer
        )

    def _keep(self, held: Held) -> Digest:
        self.keep(held)
        return held.digest
