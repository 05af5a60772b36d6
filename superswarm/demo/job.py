"""The demo's tables of the manifest: small enough for minutes on two cores, large enough to learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROUNDS = 2


def demo_tables(*, rounds: int | None, training: Mapping[str, Any], max_examples: int | None) -> dict[str, Any]:
    """Tables that replace those of `manifest init`; what is None keeps the demo's own value."""
    job: dict[str, Any] = {
        "base_model": "base",
        "rounds": rounds or ROUNDS,
        "seed": 7,
        "lora": {
            "rank": 16,
            "alpha": 32.0,
            "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        },
        "training": {"local_steps": 20, "batch_size": 8, "learning_rate": 0.002, "max_length": 64, **training},
    }
    if max_examples is not None:
        job["evaluation"] = {"max_examples": max_examples}
    return {
        "job": job,
        "aggregation": {"rule": "fedavg", "weighting": "examples", "round_seconds": 3600},
        "metrics": {
            "release": ["train_loss", "eval_loss"],
            "granularity": "aggregate",
            "to": ["members", "operator"],
        },
    }
