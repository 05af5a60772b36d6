"""Over the real SuperLink, with programs as processes: encrypted sums, on two sealed base models of two owners.

One manifest has a job on each model, and one deployment serves a run of each: starting it is what takes the time.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from superswarm.demo.stage import Stage, stage
from tests import consortia
from tests.e2e.deployment import NAMES, OPERATOR, TRAINING, Deployment, deploy
from tests.tiny import TARGETS, Family, tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
ENCRYPTED: dict[str, Any] = {
    "protection": {
        "mode": "he",
        "encoding": {"clip_norm": 1.0, "max_weight": 8},
        "homomorphic": {"key_holders": 3, "threshold": 2, "colluders": 0, "dropouts": 1},
    },
    "aggregation": {"rule": "fedavg", "weighting": "examples", "minimum_cohort": 2, "round_seconds": 60},
}
OWNERS: dict[Family, str] = {"gpt2": "alice", "llama": "bob"}
"""Models, and who owns them. LoRA is on layers that the other does not have. Runs are called after their model."""


@dataclass
class Runs:
    """One run of each job, in the order of `OWNERS`."""

    deployment: Deployment
    adapters: Path  # opened, by model
    sealed: list[Path] = field(default_factory=list)
    released: list[list[list[str]]] = field(default_factory=list)  # after each run, to whom each owner's broker did


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("encrypted")
    with stage(folder / "stage", lambda _: None) as on:
        for model, owner in OWNERS.items():
            tiny_model(on.home(owner) / "model", family=model)
        with ThreadPoolExecutor() as pool:
            assets = list(pool.map(lambda model: seal(on, model), OWNERS))
        places = [f"{model}={on.home(owner) / 'sealed'}" for model, owner in OWNERS.items()]
        deployment = deploy(on, places, assets=assets, jobs=[job(model) for model in OWNERS], **ENCRYPTED)
        for model, owner in OWNERS.items():
            on.run(owner, "broker", "offer", model, "--manifest", deployment.config["manifest"], "--yes")
        done = Runs(deployment, folder / "adapters")
        for model in OWNERS:
            done.sealed.append(deployment.run_by_commands(model, done.adapters / model, job=job(model)["name"]))
            done.released.append([released(on, owner) for owner in OWNERS.values()])
        yield done


def seal(on: Stage, model: Family) -> dict[str, Any]:
    """Seal a model and give its key to its owner's broker; its entry in the manifest."""
    owner = OWNERS[model]
    words = ("--kind", "model", "--owner", owner, "--out", "sealed", "--key", "key", "--demo")
    on.run(owner, "asset", "seal", "./model", *words)
    members = [word for name in NAMES for word in ("--release-to", name)]
    terms = ("--source", f"{owner}'s own", *members, "--until", "2030-12-31", "--times", "1", "--out", "card.toml")
    on.run(owner, "asset", "card", "sealed", "--name", model, *terms)
    on.run(owner, "broker", "add", "key")
    (entry,) = tomllib.loads((on.home(owner) / "card.toml").read_text())["assets"]
    return entry


def job(model: Family) -> dict[str, Any]:
    lora = {"rank": 2, "alpha": 4.0, "target_modules": list(TARGETS[model])}
    return consortia.job(name=f"{model}-adapter", base_model=model, lora=lora, training=TRAINING)


def released(on: Stage, owner: str) -> list[str]:
    """To whose trainers the owner's broker has released its model's key."""
    entries = map(json.loads, on.run(owner, "broker", "log", "--json").splitlines())
    return sorted(entry["member"] for entry in entries if entry["event"] == "release")


def events(runs: Runs, name: str, event: str) -> list[dict[str, Any]]:
    entries = runs.deployment.events(runs.deployment.trainers[name])
    return [entry["fields"] for entry in entries if entry.get("event") == event]


def test_an_encrypted_run_over_the_real_relay(runs: Runs) -> None:
    """The aggregator never has the adapter: it keeps what a trainer sealed."""
    for model in OWNERS:
        tensors = load_file(runs.adapters / model / "adapter_model.safetensors")
        assert all(np.isfinite(value).all() for value in tensors.values())
        assert all(value.any() for name, value in tensors.items() if "lora_B" in name), "it was trained"
    for name in NAMES:
        assert [fields["round"] for fields in events(runs, name, "encoded")] == [1, 2] * len(OWNERS)
    kept = (runs.deployment.stage.home(OPERATOR) / "aggregator" / "results").glob("*.result")
    assert {file.name: file.read_bytes() for file in kept} == {file.name: file.read_bytes() for file in runs.sealed}


def test_each_run_gets_the_key_of_its_jobs_model_only(runs: Runs) -> None:
    nobody, everybody = [], list(NAMES)
    assert runs.released == [[everybody, nobody], [everybody, everybody]]
    for name in NAMES:
        assert events(runs, name, "loaded") == [{"job": f"{model}-adapter", "sealed": 1} for model in OWNERS]


def test_each_adapter_fits_its_jobs_model_only(runs: Runs) -> None:
    for model, other in (OWNERS, reversed(OWNERS)):
        adapted = load(runs, model, adapter=model)
        assert adapted.peft_config["default"].base_model_name_or_path == f"{OWNERS[model]}'s own"
        with pytest.raises(ValueError, match="Target modules"):
            load(runs, model, adapter=other)


def load(runs: Runs, model: Family, *, adapter: Family) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(runs.deployment.stage.home(OWNERS[model]) / "model")
    return PeftModel.from_pretrained(base, str(runs.adapters / adapter))
