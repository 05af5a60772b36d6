"""How heavy the tails of real LoRA updates are, and how exact their mean is once encoded as in masked rounds.

    python -m benchmarks.tails [--model FOLDER|GGUF] [--steps 8] [--rounds 2] [--cohort 16]

SmolLM2-135M on the demo's data, every hospital of it, AdamW. What `benchmarks.secure.draws` makes up is compared with
this. The ring is that of a cohort of 16, whose steps are the coarsest. Takes three minutes on two idle cores.
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
from benchmarks.secure.cohort import ENCODING
from superswarm.updates.secure.ring import Code, Ring
from superswarm.values import Digest


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=None, help="default: SmolLM2-135M of the demo")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cohort", type=int, default=16, help="members that the ring has room for")
    parser.add_argument("--slack", type=float, default=1.0, help="the manifest's norm over the largest update's")
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
    digest = model_digest(path)
    tuners = [
        Finetuner(
            job,
            load_base(path, digest, device="cpu", precision=job.training.precision),
            read_examples(hospital.train),
            read_examples(hospital.test),
            threads=1,
        )
        for hospital in made_up(folder)[0]
    ]
    adapter: Mapping[str, NDArray[np.float32]] = tuners[0].initial()
    names = sorted(adapter)
    for number in range(1, options.rounds + 1):
        updates = []
        for tuner in tuners:
            trained, _ = tuner.train(dict(adapter), number)
            updates.append(np.concatenate([(trained[name] - adapter[name]).reshape(-1) for name in names]))
        sizes = [adapter[name].size for name in names]
        heaviest = max((tails_of(update, sizes) for update in updates), key=lambda found: found["largest_over_rms"])
        exact = np.mean(updates, axis=0, dtype=np.float64)
        error = np.linalg.norm(encoded_mean(updates, options, number) - exact) / np.linalg.norm(exact)
        found = {
            "members": len(updates),
            "cohort": options.cohort,
            "slack": options.slack,
            "error_of_the_mean": float(f"{error:.3g}"),
        }
        record("update-tails", model=path.name, round=number, steps=options.steps, **heaviest, **found)
        parts = np.split(exact.astype(np.float32), np.cumsum(sizes)[:-1])
        adapter = {
            name: adapter[name] + part.reshape(adapter[name].shape) for name, part in zip(names, parts, strict=True)
        }


def encoded_mean(
    updates: Sequence[NDArray[np.float32]], options: argparse.Namespace, number: int
) -> NDArray[np.float32]:
    """The mean (P,) as a masked round gives it."""
    code = Code(
        ring=Ring.fitting(options.cohort, int(ENCODING["payload_bits"])),
        parameters=updates[0].size,
        clip_norm=options.slack * max(float(np.linalg.norm(update)) for update in updates),
        rotation=Digest.of(b"%d" % number),
    )
    total = np.zeros(code.length, code.ring.dtype)
    for update in updates:
        total += code.encode(update, 1.0).values
    return code.decode(total, len(updates), len(updates))


def tails_of(update: NDArray[np.float32], sizes: Sequence[int]) -> dict[str, Any]:
    """How far the largest values of an update (P,) stand out, and how unequal its tensors are."""
    flat = update.astype(np.float64)
    square = float(np.mean(flat**2))
    scales = [float(np.mean(part**2)) ** 0.5 for part in np.split(flat, np.cumsum(sizes)[:-1])]
    return {
        "parameters": flat.size,
        "norm": round(float(np.linalg.norm(flat)), 3),
        "largest_over_rms": round(float(np.abs(flat).max()) / square**0.5, 2),
        "kurtosis": round(float(np.mean(flat**4)) / square**2, 2),  # 3 for a normal distribution
        "scales_log_deviation": round(float(np.std(np.log(scales))), 3),
    }


if __name__ == "__main__":
    main()
