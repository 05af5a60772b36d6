"""`superswarm trainer`: trains on a member's data, inside a TEE."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import typer

from participants.config import TrainerConfig
from superswarm.io.options import add_config_command, with_config

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Run the trainer, in a TEE.")
add_config_command(app, TrainerConfig, "trainer")


@app.command("up")
@with_config(TrainerConfig, "trainer")
def up(config: TrainerConfig) -> None:
    """Train whenever an aggregator that holds up to judgement asks, until stopped.

    Plain files are loaded at the start. The keys of sealed assets are asked of their owners when a run begins, and
    what is decrypted stays in memory. The trainer opens no port: every connection goes outward.
    """
    from participants.flower import serve
    from participants.learner import JobLearners
    from participants.supernode import SuperNode, SuperNodeSettings
    from participants.trainer import Trainer
    from superswarm.errors import Misconfigured
    from superswarm.io import logs
    from superswarm.io.confine import hold_plaintext
    from superswarm.io.consortium import load_manifest, open_tee
    from superswarm.io.files import make_folder
    from superswarm.io.keystore import load_pairing
    from superswarm.io.reporter import Reporter
    from superswarm.io.web import StatusServer
    from superswarm.values import MemberId

    logs.setup("trainer", log_format=config.log_format, confidential=True)
    hold_plaintext(logs.logger("superswarm.trainer"))
    manifest = load_manifest(config.manifest, config.pinned)
    if config.member not in manifest.manifest.trainers:
        raise Misconfigured(
            f"{config.member} trains nothing under this manifest: members that contribute data are "
            f"{', '.join(manifest.manifest.trainers) or 'none'}"
        )
    attester = open_tee(manifest, config.platform_credentials, config.collateral)
    reporter = Reporter("trainer")
    make_folder(config.state)
    settings = SuperNodeSettings(
        relay=str(config.relay),
        relay_authority=config.relay_ca,
        key=config.supernode_key,
        state=config.state / "supernode",
    )
    with ExitStack() as stack:
        if config.http is not None:
            server = StatusServer(
                "trainer", config.http, reporter.health, simulated=manifest.simulated, registry=reporter.registry
            )
            stack.enter_context(server)
        trainer = Trainer(
            member=MemberId(config.member),
            manifest=manifest,
            attester=attester,
            pairing_key=load_pairing(config.pairing),
            learners=JobLearners(config, manifest, reporter),
            notify=reporter,
        )
        trainer.preload()
        supernode = stack.enter_context(SuperNode(settings))
        reporter.ready()
        serve(supernode.endpoint, trainer.handle, threading.Event())
