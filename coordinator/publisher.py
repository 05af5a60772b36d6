"""Seals the result for its recipients, and keeps the ciphertext for the operator to hand over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coordinator.admission import Admission
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
        ResultFolder(self.folder).store(attempt.run, container, admission.signing.public)
        return container
