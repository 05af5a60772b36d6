"""`superswarm coordinator`: the relay, which carries ciphertext and holds no key that opens any of it."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from coordinator.config import CoordinatorConfig
from superswarm.io.options import add_config_command, with_config

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Run the relay, which carries ciphertext.")
add_config_command(app, CoordinatorConfig, "coordinator")
State = Annotated[
    Path,
    typer.Option(help="The relay's folder.", envvar="SUPERSWARM_COORDINATOR_STATE", show_default=True),
]


@app.command("up")
@with_config(CoordinatorConfig, "coordinator")
def up(config: CoordinatorConfig) -> None:
    """Run the relay until stopped. Give members STATE/relay-ca.crt, and the address.

    It sees ciphertext, sizes and timing, and what the manifest marks public: nothing else.
    """
    from coordinator.attempts import Attempts
    from coordinator.relay import Relay, RelaySettings
    from superswarm.io import logs
    from superswarm.io.files import make_folder
    from superswarm.io.reporter import Reporter
    from superswarm.io.web import StatusServer

    logs.setup("coordinator", log_format=config.log_format)
    make_folder(config.state)
    reporter = Reporter("coordinator")
    relay = Relay(RelaySettings(state=config.state, host=config.host, port=config.port, names=tuple(config.names)))
    with ExitStack() as stack:
        if config.http is not None:
            reporter.registry.register(relay)
            simulated = any(started.simulated for started in Attempts(config.state).all())
            server = StatusServer(
                "coordinator", config.http, reporter.health, simulated=simulated, registry=reporter.registry
            )
            stack.enter_context(server)
        stack.enter_context(relay)
        reporter.ready()
        threading.Event().wait()


@app.command("admit")
def admit(
    keys: Annotated[list[Path], typer.Argument(help="Public keys (KEY.pub) that members sent, from `enroll`.")],
    *,
    state: State = Path("relay"),
) -> None:
    """Let SuperNodes connect. Who they speak for is not the relay's to judge: members' vouches decide that."""
    from coordinator.control import RelayControl
    from superswarm.io.files import read_bytes

    with RelayControl(state) as control:
        for key in keys:
            node = control.admit(read_bytes(key, limit=4096).decode("ascii", errors="replace"), name=key.stem)
            typer.echo(f"admitted {key.stem} as {node}")


@app.command("expel")
def expel(
    node: Annotated[int, typer.Argument(help="The SuperNode's number, from `superswarm status`.")],
    *,
    state: State = Path("relay"),
) -> None:
    """Forget a SuperNode: it can no longer connect."""
    from coordinator.control import RelayControl

    with RelayControl(state) as control:
        control.expel(node)
    typer.echo(f"expelled {node}")
