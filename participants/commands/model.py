"""`superswarm model`: check a base model's files and print the digest that the manifest names."""

from __future__ import annotations

from typing import Annotated

import typer

from participants.models import locate, model_digest, model_files
from superswarm.io.console import messages, output, size

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def model() -> None:
    """Check a base model's folder and print its digest."""


@app.command()
def digest(
    source: Annotated[
        str,
        typer.Argument(help="A folder, a .gguf file, or a Hugging Face id: owner/name\\[@revision]\\[/file.gguf]."),
    ],
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not download: look in the local cache only.")
    ] = False,
) -> None:
    """Print the digest of a base model's source files: the `digest` of its asset in the manifest.

    Refuses a model that could run code: pickle weights, Python files, auto_map. The files that count are listed.
    """
    path = locate(source, offline=offline)
    found = model_digest(path)
    for name, file in model_files(path).files:
        messages().print(f"{size(file.stat().st_size):>10}  {name}", markup=False)
    output().print(str(found), markup=False)
