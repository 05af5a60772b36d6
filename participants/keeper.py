"""What becomes of a trainer's adapter in a run whose aggregator never sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from participants.holding import Held
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.grant import ApprovedGrant
from superswarm.crypto.signing import SigningKey
from superswarm.errors import Untrusted
from superswarm.updates.adapter import encode_adapter
from superswarm.updates.optimizer import ServerOptimizer
from superswarm.updates.publish import publish
from superswarm.updates.secure.total import CheckedSum
from superswarm.values import Digest


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
        held = self.held()
        if checked.round != held.rounds + 1:
            raise Untrusted("a sum for an adapter that this trainer does not hold")
        return self._keep(held.after(checked, self.optimizer()))

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
