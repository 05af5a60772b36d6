"""`superswarm measure`: the measurement that a manifest must list for this code to be trusted."""

from __future__ import annotations

from typing import Annotated

import typer

from superswarm.attestation.measure import measure_packages
from superswarm.errors import Misconfigured

app = typer.Typer(help="Compute the measurement of this code, as the manifest lists it.", add_completion=False)

WARNING = """\
# SIMULATED: a digest of the installed code, reported by the code itself. It protects nothing."""


@app.callback(invoke_without_command=True)
def measure(
    simulated: Annotated[bool, typer.Option("--simulated", help="Measure the installed packages' files.")] = False,  # noqa: FBT002
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the measurement alone.")] = False,  # noqa: FBT002
) -> None:
    """Print the measurement, and the clauses of a manifest that approve it for both workloads."""
    if not simulated:
        raise Misconfigured("say which measurement is wanted: --simulated")
    measurement = measure_packages()
    if quiet:
        typer.echo(measurement)
        return
    typer.echo(WARNING)
    for workload in ("trainer", "aggregator"):
        typer.echo(f'\n[workloads.{workload}]\nplatforms = ["simulated"]\nmeasurements = ["{measurement}"]')
