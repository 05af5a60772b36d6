"""Seals the result for its recipients, and keeps the ciphertext for the operator to hand over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coordinator.admission import Admission
from superswarm.crypto.signing import VerifyingKey
from superswarm.io.results import ResultFolder
from superswarm.updates.adapter import Adapter
from superswarm.updates.publish import publish


@dataclass(frozen=True, slots=True)
class SealedPublisher:
    """Publishes into a folder of the operator's; what lies there is sealed."""

    folder: Path

    def publish(self, adapter: Adapter, admission: Admission, rounds: int) -> bytes:
        """The container's bytes; a copy is in the folder before they are sent."""
        attempt = admission.attempt
        container = publish(
            adapter,
            manifest=attempt.manifest,
            job=admission.grant.job,
            run=attempt.run,
            rounds=rounds,
            signer=admission.signing,
        )
        self.keep(container, attempt.run, admission.signing.public)
        return container

    def keep(self, container: bytes, run: str, signer: VerifyingKey) -> None:
        """Keep the copy of a result that a trainer made and signed."""
        ResultFolder(self.folder).store(run, container, signer)
