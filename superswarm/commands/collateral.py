"""`superswarm collateral`: fetch what endorses evidence, and show how long it is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from superswarm.attestation.evidence import Evidence
from superswarm.commands.attest import parse_time
from superswarm.errors import Misconfigured
from superswarm.io.clocks import SystemClock
from superswarm.io.collateral import fetch_collateral, windows
from superswarm.io.collateral_nvidia import fetch_device_collateral
from superswarm.io.console import table
from superswarm.io.evidence import open_evidence, read_folder
from superswarm.io.files import make_folder, write_bytes

app = typer.Typer(help="Fetch and show what endorses evidence.", no_args_is_help=True, add_completion=False)


@app.command()
def fetch(
    file: Annotated[Path, typer.Argument(help="Evidence of the machine, or a folder that holds it.", metavar="FILE")],
    *,
    to: Annotated[Path, typer.Option(help="The folder to fill; what it has is replaced.", metavar="DIR")],
) -> None:
    """Fetch what endorses evidence from its vendor (AMD, Intel, NVIDIA) into a folder.

    A program in a TEE staples what lies in its `collateral` folder to its evidence. Fetch again before it expires:
    Intel's after 30 days.
    """
    evidence = open_evidence(file)
    files = fetch_collateral(evidence) if isinstance(evidence, Evidence) else fetch_device_collateral(evidence)
    make_folder(to)
    for name, data in files.items():
        write_bytes(to / name, data, replace=True)
    typer.echo(f"{len(files)} files in {to}: {', '.join(sorted(files))}")


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A folder of collateral.", metavar="DIR")],
    *,
    at: Annotated[str | None, typer.Option(help="Compare with this time instead of now.")] = None,
) -> None:
    """Show each certificate, revocation list and TCB document with its window."""
    when = int(SystemClock().now()) if at is None else parse_time(at)
    rows = windows(read_folder(folder), when)
    if not rows:
        raise Misconfigured(f"{folder} holds no collateral: `superswarm collateral fetch` fills a folder")
    table("", ("piece", "good", "now" if at is None else at), rows)
