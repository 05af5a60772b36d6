"""What the federation is held against: each hospital's adapter trained alone, and the base model itself.

Runs as processes of their own, in which plaintext of one party at a time is in memory: these commands play the
researcher who compares, and are part of no deployment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from superswarm.consortium.approval import approve, parse_chain
from superswarm.io.files import read_bytes, write_bytes
from superswarm.io.progress import progress
from superswarm.updates.adapter import decode_adapter, encode_adapter
from superswarm.values import LIMITS, Digest

if TYPE_CHECKING:
    from participants.finetune import Finetuner
    from superswarm.consortium.manifest import Job

BASE = "base model"


def load(consortium: Path, model: Path, train: Path, test: Path, threads: int) -> tuple[Finetuner, Job]:
    """A fine-tuner for the consortium's job on one member's data, with no federation around it."""
    from participants.examples import read_examples
    from participants.finetune import Finetuner
    from participants.loading import load_base

    manifest = approve(parse_chain(read_bytes(consortium, limit=LIMITS.chain_bytes))).manifest
    job = manifest.jobs[0]
    asset = manifest.asset(job.base_model)
    if asset is None:
        raise RuntimeError("an approved manifest names its base model")
    base = load_base(model, Digest.parse(asset.digest), precision=job.training.precision)
    return Finetuner(job, base, read_examples(train), read_examples(test), threads=threads), job


def train_alone(finetuner: Finetuner, job: Job, out: Path) -> None:
    """Train on one member's data for as many steps as the federation gave it, and write the adapter."""
    adapter = finetuner.initial()
    with progress("alone", job.rounds * job.training.local_steps) as bar:
        for number in range(1, job.rounds + 1):
            adapter, _ = finetuner.train(adapter, number, lambda *_: bar.advance())
    write_bytes(out, encode_adapter(adapter))


@dataclass(frozen=True, slots=True)
class Score:
    """One adapter on one held-out split: mean loss a learnt token (nats), and answers right word for word."""

    loss: float
    exact: int
    examples: int


def score(
    finetuner: Finetuner, adapters: Mapping[str, Path | None], splits: Mapping[str, Path]
) -> dict[str, dict[str, Score]]:
    """Score every adapter (None: the base model) on every held-out split."""
    from participants.examples import read_examples

    held_out = {split: read_examples(path) for split, path in splits.items()}
    table: dict[str, dict[str, Score]] = {}
    for name, file in adapters.items():
        adapter = None
        if file is not None:
            adapter = decode_adapter(read_bytes(file, limit=LIMITS.body_bytes), finetuner.spec)
        reports = {split: finetuner.evaluate_on(adapter, examples) for split, examples in held_out.items()}
        table[name] = {split: Score(r.loss, r.exact, r.examples) for split, r in reports.items()}
    return table


def answers(
    finetuner: Finetuner, adapters: Mapping[str, Path | None], questions: Sequence[str]
) -> dict[str, list[str]]:
    """What each adapter answers to each question, by greedy decoding."""
    written: dict[str, list[str]] = {}
    for name, file in adapters.items():
        adapter = None
        if file is not None:
            adapter = decode_adapter(read_bytes(file, limit=LIMITS.body_bytes), finetuner.spec)
        written[name] = [finetuner.generate(adapter, question, 12) for question in questions]
    return written


def to_json(table: Mapping[str, Mapping[str, Score]], written: Mapping[str, Sequence[str]]) -> str:
    """The comparison as one JSON object."""
    scores = {name: {split: asdict(value) for split, value in row.items()} for name, row in table.items()}
    return json.dumps({"scores": scores, "answers": {name: list(texts) for name, texts in written.items()}}, indent=2)
