"""The demo's tables of the manifest: small enough for minutes on two cores, large enough to learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LORA = {"rank": 8, "alpha": 16.0, "target_modules": ["q_proj", "v_proj", "down_proj"]}

MADE_UP: dict[str, Any] = {
    # Few steps between averages: what one hospital learns counts a third of itself in each.
    "rounds": 6,
    "training": {
        "local_steps": 8,
        "batch_size": 4,
        "learning_rate": 0.007,
        "schedule": "cosine",
        "warmup_steps": 8,
        "max_length": 64,
    },
}
"""For the made-up hospitals: facts of a few words, to be known by heart."""

OWN_DATA: dict[str, Any] = {
    "rounds": 2,
    "training": {
        "local_steps": 20,
        "batch_size": 2,
        "learning_rate": 0.001,
        "schedule": "cosine",
        "warmup_steps": 8,
        "max_length": 128,
    },
    "evaluation": {"max_examples": 32},
}
"""For data of the user's own: enough to see the held-out loss fall in minutes, far from all there is to learn."""


def demo_tables(
    *, made_up: bool, rounds: int | None, training: Mapping[str, Any], max_examples: int | None
) -> dict[str, Any]:
    """Tables that replace those of `manifest init`; what is None keeps the demo's own value."""
    preset = MADE_UP if made_up else OWN_DATA
    job: dict[str, Any] = {"name": "adapter", "base_model": "base", "seed": 7, "lora": LORA, **preset}
    job["rounds"] = rounds or job["rounds"]
    job["training"] = {**job["training"], **training}
    if max_examples is not None:
        job["evaluation"] = {"max_examples": max_examples}
    return {
        "jobs": [job],
        "aggregation": {"rule": "fedavg", "weighting": "examples", "round_seconds": 3600},
        "metrics": {
            "release": ["train_loss", "eval_loss"],
            "granularity": "aggregate",
            "to": ["members", "operator"],
        },
    }
