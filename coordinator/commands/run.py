"""`superswarm run`: start and stop runs that the members granted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coordinator.control import RelayControl, RunRow

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Start and stop runs that the members granted.")
State = Annotated[
    Path,
    typer.Option(help="The relay's folder.", envvar="SUPERSWARM_COORDINATOR_STATE", show_default=True),
]
FINISHED = "finished"


@app.command("start")
def start(
    grant: Annotated[
        Path, typer.Argument(help="The run grant that a quorum signed, from `superswarm grant combine`.")
    ],
    *,
    manifest: Annotated[Path, typer.Option(help="The signed manifest that the grant is for.")],
    state: State = Path("relay"),
    attempt: Annotated[
        int | None, typer.Option(help="The number of the attempt; the next one by default.", min=1, max=1000)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, and fail if the run fails.")] = False,
) -> None:
    """Start a granted run. Members admit one aggregator an attempt, and as many attempts as the grant allows."""
    from coordinator.attempts import Attempts, StartedRun
    from coordinator.control import RelayControl
    from coordinator.submission import submission
    from superswarm.consortium.grant import SignedGrant, approve_grant
    from superswarm.errors import NoGrant
    from superswarm.io.consortium import load_manifest
    from superswarm.io.files import read_bytes
    from superswarm.values import LIMITS

    approved = load_manifest(manifest, None)
    signed = SignedGrant.parse(read_bytes(grant, limit=LIMITS.document_bytes))
    run = approve_grant(signed, approved).grant
    attempts = Attempts(state)
    number = attempt if attempt is not None else attempts.next(run.run)
    if number > run.attempts:
        raise NoGrant(f"the grant for {run.run} allows {run.attempts} attempts, all used up: ask for another")
    with RelayControl(state) as control:
        flower_run = control.start_run(submission(signed, number))
        attempts.add(StartedRun(run.run, number, flower_run, approved.simulated))
        typer.echo(f"started {run.run}, attempt {number}, as {flower_run}")
        if wait:
            _wait(control, flower_run)


def _wait(control: RelayControl, flower_run: int) -> None:
    """Follow a run to its end; Unavailable with the aggregator's fixed word if it failed."""
    from superswarm.errors import RunStopped, Unavailable

    while (row := control.run(flower_run)).status != FINISHED:
        time.sleep(0.5)
    if row.outcome == "stopped":
        raise RunStopped("the run was stopped")
    if row.outcome != "completed":
        raise Unavailable(f"the run failed with {row.detail or 'no word'}: see the aggregator's log")
    typer.echo("completed")


@app.command("stop")
def stop(
    run: Annotated[str, typer.Argument(help="The run's name, as in its grant, or its number at the relay.")],
    *,
    state: State = Path("relay"),
) -> None:
    """Stop a run. Members keep the newest adapter in memory: another attempt goes on from there."""
    from coordinator.attempts import Attempts
    from coordinator.control import RelayControl
    from superswarm.errors import Misconfigured

    started = [s.flower_run for s in Attempts(state).all() if run in (s.run, str(s.flower_run))]
    if not started:
        raise Misconfigured(f"no run {run} was started here: superswarm status lists them")
    with RelayControl(state) as control:
        stopped = control.stop_run(started[-1])
    typer.echo("stopped" if stopped else "it had already ended")


def describe(row: RunRow) -> str:
    """A run's state in words."""
    return f"{row.outcome}{f' ({row.detail})' if row.detail else ''}" if row.status == FINISHED else row.status
