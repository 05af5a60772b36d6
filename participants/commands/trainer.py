"""`superswarm trainer`: trains on a member's data, inside a TEE."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import typer

from participants.config import TrainerConfig
from superswarm.io.options import add_config_command, with_config

if TYPE_CHECKING:
    from participants.learner import FinetuneLearner
    from superswarm.consortium.approval import ApprovedManifest

app = typer.Typer(no_args_is_help=True, help="Run the trainer, in a TEE.")
add_config_command(app, TrainerConfig, "trainer")


@app.command("up")
@with_config(TrainerConfig, "trainer")
def up(config: TrainerConfig) -> None:
    """Load model and data, then train whenever an aggregator that holds up to judgement asks, until stopped.

    Plaintext stays in memory. The trainer opens no port: every connection goes outward.
    """
    from participants.flower import serve
    from participants.supernode import SuperNode, SuperNodeSettings
    from participants.trainer import Trainer
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
            learner=_learner(config, manifest, reporter),
            notify=reporter,
        )
        supernode = stack.enter_context(SuperNode(settings))
        reporter.ready()
        serve(supernode.endpoint, trainer.handle, threading.Event())


def _learner(config: TrainerConfig, manifest: ApprovedManifest, notify: object) -> FinetuneLearner:
    """Load what the job asks for: the approved base model, the member's data, LoRA on top."""
    import os

    from participants.finetune import Finetuner
    from participants.learner import FinetuneLearner
    from participants.loading import load_base
    from participants.models import locate
    from superswarm.errors import NotATee
    from superswarm.io.logs import logger
    from superswarm.io.tee import require_no_leaking_gpu
    from superswarm.values import Digest

    log = logger("superswarm.trainer")
    job = manifest.manifest.jobs[0]
    asset = manifest.manifest.asset(job.base_model)
    if asset is None:
        raise RuntimeError("an approved manifest names its base model")
    if not manifest.simulated and config.device != "cpu":
        require_no_leaking_gpu(manifest.manifest.workloads.trainer.policy)
    log.info("loading the base model", model=str(config.model))
    base = load_base(
        locate(str(config.model)), Digest.parse(asset.digest), device=config.device, precision=job.training.precision
    )
    if base.device.type not in ("cpu", "cuda") and not manifest.simulated:
        raise NotATee(f"a {base.device.type} device attests nothing: configure device = 'cpu'")
    threads = config.threads or os.cpu_count() or 1
    finetuner = Finetuner(job, base, config.train, config.test, threads=threads)
    log.info("loaded", parameters=finetuner.spec.parameters, examples=finetuner.examples, device=str(base.device))
    return FinetuneLearner(finetuner, job.training.local_steps)
