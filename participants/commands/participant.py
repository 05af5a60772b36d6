"""`superswarm participant`: the node, which speaks for a member, on the member's own premises."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from participants.config import ParticipantConfig
from superswarm.io.options import add_config_command, with_config

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Run the node, on the member's own premises.")
add_config_command(app, ParticipantConfig, "participant")


@app.command("enroll")
def enroll(
    key: Annotated[Path, typer.Argument(help="Where to write the SuperNode's private key; KEY.pub goes beside it.")],
) -> None:
    """Make the key by which the relay knows a SuperNode, and print the line that the operator admits.

    A member makes one for its node and one for its trainer. The key opens nothing: it only lets the relay turn
    strangers away.
    """
    from participants.supernode import enroll as make

    typer.echo(make(key))


@app.command("up")
@with_config(ParticipantConfig, "participant")
def up(
    config: ParticipantConfig,
    with_trainer: Annotated[
        Path | None,
        typer.Option(
            help="Also start the trainer with this configuration file, as a process of its own on this machine.",
            metavar="TRAINER_CONFIG",
        ),
    ] = None,
) -> None:
    """Run the node until stopped. It opens no port to the relay: every connection goes outward.

    The node judges the aggregator and the member's own trainer before it vouches for either, and keeps sealed
    results for `superswarm result`.
    """
    import sys

    from participants.broker.opening import node_broker
    from participants.flower import serve
    from participants.node import Node
    from participants.supernode import SuperNode, SuperNodeSettings
    from participants.vouch_record import DurableVouchRecord
    from superswarm.errors import Misconfigured
    from superswarm.io import logs
    from superswarm.io.consortium import load_manifest, remember_epoch
    from superswarm.io.files import make_folder, read_bytes
    from superswarm.io.keystore import load_keys, read_passphrase
    from superswarm.io.processes import spawn
    from superswarm.io.reporter import Reporter
    from superswarm.io.results import ResultFolder
    from superswarm.io.web import StatusServer
    from superswarm.values import LIMITS

    logs.setup("participant", log_format=config.log_format)
    manifest = load_manifest(config.manifest, config.pinned)
    make_folder(config.state)
    remember_epoch(config.state / "epochs.json", manifest)
    passphrase = read_passphrase(config.passphrase_file)
    keys = load_keys(config.keys, passphrase)
    if keys.member != config.member:
        raise Misconfigured(f"{config.keys} holds the keys of {keys.member}, not of {config.member}")
    reporter = Reporter("participant")
    settings = SuperNodeSettings(
        relay=str(config.relay),
        relay_authority=config.relay_ca,
        key=config.supernode_key,
        state=config.state / "supernode",
    )
    with ExitStack() as stack:
        broker = stack.enter_context(node_broker(config, manifest, passphrase, reporter))
        node = Node(
            manifest=manifest,
            keys=keys,
            record=DurableVouchRecord(config.state / "vouches.json"),
            results=ResultFolder(config.results, read_bytes(config.manifest, limit=LIMITS.chain_bytes)),
            broker=broker,
            notify=reporter,
        )
        if config.http is not None:
            server = StatusServer(
                "participant", config.http, reporter.health, simulated=manifest.simulated, registry=reporter.registry
            )
            stack.enter_context(server)
        if with_trainer is not None:
            command = [sys.executable, "-m", "superswarm", "trainer", "up", "--config", str(with_trainer)]
            stack.enter_context(spawn(command, name="trainer"))
        supernode = stack.enter_context(SuperNode(settings))
        reporter.ready()
        serve(supernode.endpoint, node.handle, threading.Event())
