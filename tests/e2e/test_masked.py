"""Masked sums over the real SuperLink, with programs as processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from coordinator.mailroom import Delivery
from superswarm.demo.stage import stage
from tests.e2e.deployment import NAMES, Deployment, deploy
from tests.e2e.test_deployment import Attack, Cheating

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
MASKED: dict[str, Any] = {
    "protection": {
        "mode": "masked",
        "encoding": {"clip_norm": 1.0, "max_weight": 8},
        "masking": {"threshold": 2, "colluders": 0, "dropouts": 1},
    },
    "aggregation": {"rule": "fedavg", "weighting": "examples", "minimum_cohort": 2, "round_seconds": 60},
}


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with stage(tmp_path_factory.mktemp("masked") / "stage", lambda _: None) as on:
        yield deploy(on, **MASKED)


def test_a_masked_run_over_the_real_relay(masked: Deployment, tmp_path: Path) -> None:
    masked.run_by_commands("masked", tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(np.isfinite(value).all() for value in tensors.values())
    assert all(value.any() for name, value in tensors.items() if "lora_B" in name), "it was trained"
    for name in NAMES:
        encoded = [entry for entry in masked.events(masked.trainers[name]) if entry.get("event") == "encoded"]
        assert [entry["fields"]["round"] for entry in encoded] == [1, 2]


@pytest.mark.parametrize("kind", ["masked", "unmasked"])
def test_a_member_whose_answer_is_lost_on_the_way(masked: Deployment, kind: str) -> None:
    """One trainer's masked update, or its shares, never reach the aggregator: the sum is of the others, or of all."""
    attack, lost = Attack(masked), list[int]()
    asked = {"masked": "deal", "unmasked": "agreed"}[kind]

    def reply(step: str, delivery: Delivery) -> Delivery | None:
        if step == asked and not lost:
            lost.append(1)
            return replace(delivery, parcel=None)
        return delivery

    attack.run(f"lost-{kind}", lambda mailroom: Cheating(mailroom, reply=reply))
    assert attack.outcome[0] == "completed"
    assert len(attack.left_out()) == 1
    first = attack.diary.of("round closed")[0]
    assert first["members"] == (2 if kind == "masked" else 3)
    assert all(np.isfinite(value).all() for value in attack.result.values())
