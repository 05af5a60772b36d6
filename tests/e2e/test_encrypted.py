"""Encrypted sums over the real SuperLink, with programs as processes: the aggregator never has the adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from safetensors.numpy import load_file

from superswarm.demo.stage import stage
from tests.e2e.deployment import NAMES, OPERATOR, Deployment, deploy, interrupt

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
    home = encrypted.stage.home(OPERATOR)
    config = dict(encrypted.config) | {
        "superexec_secret": "relay/superexec.secret",
        "platform_credentials": "platform",
        "state": "aggregator",
    }
    (home / "aggregator.toml").write_text(tomli_w.dumps(config))
    (home / "grant.json").write_bytes(encrypted.grant("encrypted").to_bytes())
    aggregator = encrypted.stage.start(OPERATOR, "aggregator", "up", "--config", "aggregator.toml")
    aggregator.wait_until("ready", 120)
    words = ("run", "start", "grant.json", "--manifest", encrypted.config["manifest"], "--state", "relay", "--wait")
    assert "completed" in encrypted.stage.run(OPERATOR, *words)
    interrupt(aggregator)
    assert aggregator.child.wait(20) == 130

    (sealed,) = (encrypted.stage.home("alice") / "results").glob("*.result")
    encrypted.stage.run("alice", "result", "open", sealed, "--keys", "alice.keys", "--out", tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(np.isfinite(value).all() for value in tensors.values())
    assert all(value.any() for name, value in tensors.items() if "lora_B" in name), "it was trained"
    for name in NAMES:
        encoded = [entry for entry in encrypted.events(encrypted.trainers[name]) if entry.get("event") == "encoded"]
        assert [entry["fields"]["round"] for entry in encoded] == [1, 2]
    (kept,) = (home / "aggregator" / "results").glob("*.result")
    assert kept.read_bytes() == sealed.read_bytes()
