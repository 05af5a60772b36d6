"""How heavy the tails of real LoRA updates are: SmolLM2-135M on the demo's data, two rounds of AdamW.

    python -m benchmarks.tails [--model FOLDER|GGUF] [--steps 8] [--rounds 2]

What `benchmarks.secure.draws` makes up is compared with this. Takes two minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import record


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=None, help="default: SmolLM2-135M of the demo")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    from participants.examples import read_examples
    from participants.finetune import Finetuner
    from participants.loading import load_base
    from participants.models import demo_model, model_digest
    from superswarm.consortium.manifest import Job
    from superswarm.demo.job import demo_tables
    from superswarm.demo.members import made_up

    steps = {"local_steps": options.steps}
    tables = demo_tables(rounds=None, training=steps, max_examples=2, made_up=True)
    job = Job.model_validate(tables["jobs"][0])
    path = options.model or demo_model()
    base = load_base(path, model_digest(path), device="cpu", precision=job.training.precision)
    hospital = made_up(folder)[0][0]
    tuner = Finetuner(job, base, read_examples(hospital.train), read_examples(hospital.test), threads=1)
    adapter: Mapping[str, NDArray[np.float32]] = tuner.initial()
    for number in range(1, options.rounds + 1):
        trained, _ = tuner.train(dict(adapter), number)
        update = {name: trained[name] - adapter[name] for name in sorted(adapter)}
        record("update-tails", model=path.name, round=number, steps=options.steps, **tails_of(update))
        adapter = trained


def tails_of(update: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """How far the largest values stand out, and how unequal the tensors are."""
    flat = np.concatenate([values.reshape(-1) for values in update.values()]).astype(np.float64)
    square = float(np.mean(flat**2))
    scales = [float(np.mean(values.astype(np.float64) ** 2)) ** 0.5 for values in update.values()]
    return {
        "parameters": flat.size,
        "norm": round(float(np.linalg.norm(flat)), 3),
        "largest_over_rms": round(float(np.abs(flat).max()) / square**0.5, 2),
        "kurtosis": round(float(np.mean(flat**4)) / square**2, 2),  # 3 for a normal distribution
        "scales_log_deviation": round(float(np.std(np.log(scales))), 3),
    }


if __name__ == "__main__":
    main()
