"""`superswarm demo`: a whole consortium on this machine, wired from the commands that real deployments use."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(invoke_without_command=True, subcommand_metavar="", add_completion=False)


@app.callback()
def demo(
    context: typer.Context,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Your own members: a folder with one folder a member, each with train.jsonl and test.jsonl "
            "(prompt, completion). Without it: three hospitals that this project makes up.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Base model: a folder, a GGUF file or a Hugging Face id. SmolLM2-135M by default."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Keep everything in this new folder, to look at.", show_default=False)
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds.", show_default=False)] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps a round.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples a step.", show_default=False)] = None,
    max_length: Annotated[int | None, typer.Option(min=8, help="Tokens an example.", show_default=False)] = None,
    max_examples: Annotated[
        int | None, typer.Option(min=1, help="Held-out examples that are scored.", show_default=False)
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Learning rate.", show_default=False)] = None,
    alone: Annotated[
        bool, typer.Option("--alone/--no-alone", help="Also train each member alone, to compare.")
    ] = True,
    json_: Annotated[Path | None, typer.Option("--json", help="Also write the scores to this file.")] = None,
) -> None:
    """Three members and an operator, each as processes of their own, fine-tune one adapter without sharing data.

    Every command that is run is shown: the same ones found a real consortium. Attestation is simulated, so nothing
    is protected. Takes a few minutes on two cores; Ctrl-C stops everything.
    """
    if context.invoked_subcommand is not None:
        return
    from superswarm.demo.play import Options, play
    from superswarm.io.console import warn_simulated

    changes = {
        "local_steps": steps,
        "batch_size": batch_size,
        "max_length": max_length,
        "learning_rate": learning_rate,
    }
    options = Options(
        data=data.resolve() if data is not None else None,
        model=model,
        rounds=rounds,
        training={name: value for name, value in changes.items() if value is not None},
        max_examples=max_examples,
        alone=alone,
        json=json_.resolve() if json_ is not None else None,
    )
    warn_simulated()
    if out is not None:
        play(out, options)
        return
    folder = Path(tempfile.mkdtemp(prefix="superswarm-demo-"))
    try:
        play(folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


Consortium = Annotated[Path, typer.Option(help="The consortium's approved manifest.")]
Model = Annotated[Path, typer.Option(help="The base model.")]
Train = Annotated[Path, typer.Option(help="Training examples.")]
Test = Annotated[Path, typer.Option(help="Held-out examples.")]
Threads = Annotated[int, typer.Option(help="Threads.")]


@app.command("alone", hidden=True)
def alone_(
    *,
    consortium: Consortium,
    model: Model,
    train: Train,
    test: Test,
    threads: Threads = 1,
    out: Annotated[Path, typer.Option(help="Where to write the adapter.")],
) -> None:
    """Train one member's adapter without the others."""
    from superswarm.demo.baseline import load, train_alone

    finetuner, job = load(consortium, model, train, test, threads)
    train_alone(finetuner, job, out)


@app.command("score", hidden=True)
def score(
    adapters: Annotated[list[str], typer.Argument(help="NAME=FILE, or NAME= for the base model.")],
    *,
    consortium: Consortium,
    model: Model,
    split: Annotated[list[str], typer.Option(help="NAME=FILE of a held-out split.")],
    question: Annotated[list[str] | None, typer.Option(help="A question to answer.")] = None,
    threads: Threads = 1,
) -> None:
    """Score adapters on held-out splits, as JSON."""
    from superswarm.demo.baseline import answers, load, score, to_json

    files = {name: Path(file) if file else None for name, _, file in (item.partition("=") for item in adapters)}
    splits = {name: Path(file) for name, _, file in (item.partition("=") for item in split)}
    some = next(iter(splits.values()))
    finetuner, _ = load(consortium, model, some, some, threads)
    table = score(finetuner, files, splits)
    sys.stdout.write(to_json(table, answers(finetuner, files, question or [])) + "\n")
