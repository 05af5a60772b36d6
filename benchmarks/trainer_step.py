"""Claim: a trainer's step takes at most 1.02 times a bare transformers+peft loop of the same settings.

    python -m benchmarks.trainer_step [--model FOLDER|GGUF] [--threads 1] [--repeats 7]

Both loops train the same LoRA layers on deep copies of one loaded model, on the same batches in the same order with
fused AdamW and gradient clipping. The bare loop is the usual one: padded batches, an attention mask, and labels for
transformers' own loss. They take turns, so that what else runs on the machine slows both; the medians are compared.
The two kinds of data are the extremes: `questions` learns a few tokens of each sequence, `texts` nearly all of them.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from benchmarks.record import record
from participants.datasets import Tokens, round_batches
from participants.examples import Example
from participants.finetune import Finetuner, learning_rate
from participants.loading import LoadedBase, load_base
from participants.models import demo_model, model_digest
from superswarm.consortium.manifest import Job

STEPS = 3  # a turn
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WORDS = ("ward", "nurse", "bed", "chart", "dose", "clinic", "fever", "scan", "record", "visit", "pulse", "clean")


def dataset(kind: str) -> list[Example]:
    """64 made-up records: short answers to a question, or long texts after one word."""
    text = [[WORDS[(i * 7 + j * (1 + i % 5)) % len(WORDS)] for j in range(20 + i % 60)] for i in range(64)]
    if kind == "questions":
        return [Example(f"What is kept {' '.join(words[:20])}?", " ".join(words[:3])) for words in text]
    return [Example(words[0], " ".join(words)) for words in text]


def job() -> Job:
    return Job.model_validate(
        {
            "name": "base",
            "base_model": "base",
            "rounds": 1000,
            "seed": 1,
            "lora": {"rank": 8, "alpha": 16, "target_modules": list(TARGETS)},
            "training": {"local_steps": STEPS, "batch_size": 4, "learning_rate": 1e-4, "max_length": 128},
        }
    )


class BareLoop:
    """What one would write without superswarm."""

    def __init__(self, plan: Job, base: LoadedBase, data: Sequence[Tokens]) -> None:
        self.plan, self.data, self.base = plan, data, base
        targets = list(plan.lora.target_modules)
        self.model: Any = get_peft_model(
            copy.deepcopy(base.model),
            LoraConfig(r=plan.lora.rank, lora_alpha=int(plan.lora.alpha), target_modules=targets),
        )
        self.model.train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=0.0, weight_decay=0.0, fused=True)

    def turn(self, number: int) -> None:
        training = self.plan.training
        batches = round_batches(
            self.data, seed=self.plan.seed, round_=number, batches=STEPS, size=training.batch_size
        )
        for step, batch in enumerate(batches):
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate(training, (number - 1) * STEPS + step, self.plan.rounds * STEPS)
            loss = self.model(**self._collate(batch)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, training.max_gradient_norm)
            self.optimiser.step()
            self.optimiser.zero_grad()
            loss.item()

    def _collate(self, batch: Sequence[Tokens]) -> dict[str, torch.Tensor]:
        width = max(len(item.ids) for item in batch)
        ids = torch.full((len(batch), width), self.base.tokenizer.eos_token_id)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, item in enumerate(batch):
            length = len(item.ids)
            ids[row, :length] = torch.tensor(item.ids)
            mask[row, :length] = 1
            labels[row, item.start : length] = torch.tensor(item.ids[item.start :])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None, help="default: SmolLM2-135M of the demo")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    path = options.model or demo_model()
    base = load_base(path, model_digest(path), device="cpu")
    for kind in ("questions", "texts"):
        measure(kind, base, options.threads, options.repeats)


def measure(kind: str, base: LoadedBase, threads: int, repeats: int) -> None:
    examples = dataset(kind)
    own = dataclasses.replace(base, model=copy.deepcopy(base.model))
    tuner = Finetuner(job(), own, examples, examples, threads=threads)
    data = tuner.train_tokens
    bare = BareLoop(job(), base, data)
    adapter = tuner.initial()

    def ours(number: int) -> None:
        nonlocal adapter
        adapter, _ = tuner.train(adapter, number)

    seconds: dict[str, list[float]] = {"superswarm": [], "bare": []}
    for number in range(1, repeats + 2):
        for name, turn in (("superswarm", ours), ("bare", bare.turn)):
            seconds[name].append(_cpu_seconds(turn, number) / STEPS)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first turn warms up
    record(
        "trainer-step",
        data=kind,
        model=str(base.digest),
        dtype=str(base.model.dtype),
        threads=threads,
        batch=job().training.batch_size,
        mean_tokens=round(statistics.mean(len(item.ids) for item in data), 1),
        mean_learnt=round(statistics.mean(item.learnt for item in data), 1),
        superswarm_cpu_seconds=round(medians["superswarm"], 4),
        bare_cpu_seconds=round(medians["bare"], 4),
        ratio=round(medians["superswarm"] / medians["bare"], 4),
        limit=1.02,
        torch=torch.__version__,
    )


def _cpu_seconds(turn: Callable[[int], None], number: int) -> float:
    started = time.process_time()
    turn(number)
    return time.process_time() - started


if __name__ == "__main__":
    main()
