"""Encrypted sums over the real SuperLink, with programs as processes: the aggregator never has the adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from superswarm.demo.stage import stage
from tests.e2e.deployment import NAMES, OPERATOR, Deployment, deploy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
ENCRYPTED: dict[str, Any] = {
    "protection": {
        "mode": "he",
        "encoding": {"clip_norm": 1.0, "max_weight": 8},
        "homomorphic": {"key_holders": 3, "threshold": 2, "colluders": 0, "dropouts": 1},
    },
    "aggregation": {"rule": "fedavg", "weighting": "examples", "minimum_cohort": 2, "round_seconds": 60},
}


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with stage(tmp_path_factory.mktemp("encrypted") / "stage", lambda _: None) as on:
        yield deploy(on, **ENCRYPTED)


def test_an_encrypted_run_over_the_real_relay(encrypted: Deployment, tmp_path: Path) -> None:
    sealed = encrypted.run_by_commands("encrypted", tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(np.isfinite(value).all() for value in tensors.values())
    assert all(value.any() for name, value in tensors.items() if "lora_B" in name), "it was trained"
    for name in NAMES:
        encoded = [entry for entry in encrypted.events(encrypted.trainers[name]) if entry.get("event") == "encoded"]
        assert [entry["fields"]["round"] for entry in encoded] == [1, 2]
    (kept,) = (encrypted.stage.home(OPERATOR) / "aggregator" / "results").glob("*.result")
    assert kept.read_bytes() == sealed.read_bytes()
