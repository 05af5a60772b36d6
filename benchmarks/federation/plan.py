"""One job, as both deployments are told of it: who learns what, from which adapter, for how many rounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from participants.learners import Learner
from superswarm.updates.adapter import Adapter, AdapterSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done. With `model` empty it is a transfer: `tensors` arrays of `mebibytes` together, no model."""

    rounds: int
    members: Mapping[str, tuple[str, str]]  # name → training and held-out split
    initial: str  # a safetensors file: the adapter before round 1
    job: Mapping[str, Any]  # the manifest's
    model: str = ""  # a folder of safetensors
    mebibytes: int = 0
    tensors: int = 0
    threads: int = 1

    @classmethod
    def read(cls, file: Path) -> Self:
        return cls(**json.loads(file.read_text()))

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)))

    def learner(self, member: str) -> Learner:
        """What trains for this member in plain Flower."""
        if not self.model:
            return Idle(self.mebibytes, self.tensors, list(self.members).index(member))
        from participants.learner import FinetuneLearner

        train, test = self.members[member]
        finetuner = plain_finetuner(self.job, Path(self.model), Path(train), Path(test), self.threads)
        return FinetuneLearner(finetuner, int(self.job["training"]["local_steps"]))


def plain_finetuner(job: Mapping[str, Any], model: Path, train: Path, test: Path, threads: int) -> Any:
    """The same fine-tuning, on a model that nobody checks."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from participants.examples import read_examples
    from participants.finetune import Finetuner
    from participants.loading import LoadedBase
    from superswarm.consortium.manifest import Job
    from superswarm.values import Digest

    torch.set_num_threads(threads)
    base = AutoModelForCausalLM.from_pretrained(model, dtype="auto", local_files_only=True)
    base.requires_grad_(False)  # noqa: FBT003 - torch's own way
    base.eval()  # type: ignore[no-untyped-call]
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    loaded = LoadedBase(base, tokenizer, torch.device("cpu"), Digest(bytes(32)))
    return Finetuner(Job.model_validate(job), loaded, read_examples(train), read_examples(test), threads=threads)


@dataclass(frozen=True, slots=True)
class Idle:
    """Learns nothing, but sends an adapter of this size: each member another one, or Flower would store it once."""

    mebibytes: int
    tensors: int
    number: int

    @property
    def examples(self) -> int:
        return 100 + self.number

    @property
    def spec(self) -> AdapterSpec:
        size = (self.mebibytes << 20) // 4 // self.tensors
        return AdapterSpec(tuple((f"layers.{n:04}.lora", (16, size // 16)) for n in range(self.tensors)))

    def initial(self) -> Adapter:
        flat = np.random.default_rng(7).standard_normal(self.spec.parameters, np.float32)
        return self.spec.views(flat)

    def train(self, adapter: Adapter, round_: int) -> tuple[Adapter, float]:
        return {name: values + np.float32(1 + self.number) for name, values in adapter.items()}, 0.0

    def evaluate(self, adapter: Adapter) -> float:
        return float(next(iter(adapter.values()))[0, 0])
