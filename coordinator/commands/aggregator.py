"""`superswarm aggregator`: combines the members' updates, inside a TEE."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import typer

from coordinator.config import AggregatorConfig
from superswarm.io.options import add_config_command, with_config

if TYPE_CHECKING:
    from coordinator.aggregator import Aggregator
    from coordinator.mailroom import Mailroom
    from superswarm.attestation.evidence import Attester
    from superswarm.consortium.approval import ApprovedManifest
    from superswarm.io.reporter import Reporter

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Run the aggregator, in a TEE.")
add_config_command(app, AggregatorConfig, "aggregator")


@app.command("up")
@with_config(AggregatorConfig, "aggregator")
def up(config: AggregatorConfig) -> None:
    """Work on every granted run that `superswarm run start` begins, until stopped.

    Updates are held in memory only, and one at a time. The aggregator opens no port: every connection goes outward.
    """
    from coordinator.flower import RelayEndpoint, serve
    from superswarm.io import logs
    from superswarm.io.confine import hold_plaintext
    from superswarm.io.consortium import load_manifest, open_tee
    from superswarm.io.files import make_folder, read_bytes
    from superswarm.io.reporter import Reporter
    from superswarm.io.web import StatusServer

    logs.setup("aggregator", log_format=config.log_format, confidential=True)
    hold_plaintext(logs.logger("superswarm.aggregator"))
    manifest = load_manifest(config.manifest, config.pinned)
    attester = open_tee(manifest, config.platform_credentials, config.collateral)
    make_folder(config.state)
    reporter = Reporter("aggregator")
    endpoint = RelayEndpoint(
        str(config.relay),
        read_bytes(config.relay_ca, limit=65_536),
        read_bytes(config.superexec_secret, limit=4096),
    )

    def run(mailroom: Mailroom, flower_run: str, texts: Mapping[str, str]) -> None:
        reporter("run begins", flower_run=flower_run)
        _aggregator(config, manifest, attester, mailroom, texts, reporter).run()
        reporter("run finished", flower_run=flower_run)

    with ExitStack() as stack:
        if config.http is not None:
            server = StatusServer(
                "aggregator", config.http, reporter.health, simulated=manifest.simulated, registry=reporter.registry
            )
            stack.enter_context(server)
        reporter.ready()
        serve(endpoint, run, threading.Event())


def _aggregator(
    config: AggregatorConfig,
    manifest: ApprovedManifest,
    attester: Attester,
    mailroom: Mailroom,
    texts: Mapping[str, str],
    reporter: Reporter,
) -> Aggregator:
    """One attempt at the run that the operator submitted: its grant proves itself, the rest is not believed."""
    from coordinator.admission import Admission
    from coordinator.aggregator import Aggregator
    from coordinator.exchange import Timing
    from coordinator.postman import Postman
    from coordinator.publisher import SealedPublisher
    from coordinator.submission import parse_submission
    from superswarm.attestation.handshake import Attempt
    from superswarm.consortium.grant import approve_grant

    signed, number = parse_submission(texts)
    grant = approve_grant(signed, manifest)
    timing = Timing()
    admission = Admission(
        attempt=Attempt(manifest=manifest, run=grant.grant.run, number=number),
        grant=grant,
        grant_bytes=signed.to_bytes(),
        attester=attester,
        mailroom=mailroom,
        timing=timing,
        notify=reporter,
    )
    return Aggregator(
        manifest=manifest,
        grant=grant,
        admission=admission,
        mailroom=mailroom,
        postman=Postman(admission, mailroom, timing, reporter),
        publisher=SealedPublisher(config.state / "results"),
        timing=timing,
        notify=reporter,
        join_seconds=float(config.join_seconds),
    )
