"""Workloads: the code that may hold plaintext, and where it may run."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from superswarm.consortium.clause import Clause, MeasurementText
from superswarm.consortium.policy import PlatformPolicies


class Platform(StrEnum):
    """Where a workload may run. A manifest is wholly simulated or wholly real."""

    SIMULATED = "simulated"
    TDX = "tdx"
    SEV_SNP = "sev-snp"
    AZURE_VTPM = "azure-vtpm"


class Workload(Clause):
    """Code that may hold plaintext, and the platforms on which it may run."""

    platforms: Annotated[
        tuple[Annotated[Platform, Field(strict=False)], ...], Field(strict=False, min_length=1, max_length=8)
    ]
    measurements: Annotated[tuple[MeasurementText, ...], Field(strict=False, min_length=1, max_length=256)]
    policy: PlatformPolicies | None = None  # what is asked of real hardware, for each real platform; else None


class Workloads(Clause):
    trainer: Workload
    aggregator: Workload
    server: Workload | None = None  # serves a finished adapter; only where result.serving names somebody

    def named(self) -> Iterator[tuple[str, Workload]]:
        """Every workload that the manifest has, with its name."""
        yield "trainer", self.trainer
        yield "aggregator", self.aggregator
        if self.server is not None:
            yield "server", self.server
