"""`superswarm status`: what the relay knows of members and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def status(
    *,
    state: Annotated[
        Path, typer.Option(help="The relay's folder.", envvar="SUPERSWARM_COORDINATOR_STATE", show_default=True)
    ] = Path("relay"),
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show SuperNodes and runs. Rounds and metrics stay in the TEE; the aggregator's log has what is released."""
    import json
    from dataclasses import asdict

    from coordinator.attempts import Attempts
    from coordinator.commands.run import describe
    from coordinator.control import RelayControl
    from superswarm.io.console import table, warn_simulated
    from superswarm.values import SIMULATED_WARNING

    started = {s.flower_run: s for s in Attempts(state).all()}
    with RelayControl(state) as control:
        nodes, runs = control.nodes(), control.runs()
    simulated = any(s.simulated for s in started.values())
    if json_:
        document = {
            "simulated": SIMULATED_WARNING if simulated else None,
            "nodes": [{"node": n.node, "name": n.name, "status": n.status} for n in nodes],
            "runs": [asdict(started[r.run]) | {"state": describe(r)} for r in runs if r.run in started],
        }
        typer.echo(json.dumps(document, indent=2))
        return
    if simulated:
        warn_simulated()
    table("SuperNodes", ["name", "number", "status"], [[n.name, str(n.node), n.status] for n in nodes])
    rows = [[started[r.run].run, started[r.run].attempt, describe(r), r.pending_at] for r in runs if r.run in started]
    table("Runs", ["run", "attempt", "state", "started"], rows)
