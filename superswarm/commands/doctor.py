"""`superswarm doctor`: check this machine, and say what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from coordinator.config import AggregatorConfig, CoordinatorConfig
from participants.config import ParticipantConfig, TrainerConfig
from superswarm.commands import consortium_checks as checks
from superswarm.errors import Error, Misconfigured
from superswarm.io import machine
from superswarm.io.clocks import SystemClock
from superswarm.io.config import Address, Config, load_config
from superswarm.io.console import output
from superswarm.io.machine import Finding, Level

app = typer.Typer(add_completion=False)
INDENT = " " * 19
HERE = ("localhost", "127.0.0.1")
STYLES = {Level.OK: ("ok", "green"), Level.WARNING: ("warning", "yellow"), Level.PROBLEM: ("problem", "bold red")}


class Program(StrEnum):
    PARTICIPANT = "participant"
    TRAINER = "trainer"
    COORDINATOR = "coordinator"
    AGGREGATOR = "aggregator"


MODELS: dict[Program, type[Config]] = {
    Program.PARTICIPANT: ParticipantConfig,
    Program.TRAINER: TrainerConfig,
    Program.COORDINATOR: CoordinatorConfig,
    Program.AGGREGATOR: AggregatorConfig,
}
EXTRAS = {
    Program.PARTICIPANT: "participant",
    Program.TRAINER: "participant",
    Program.COORDINATOR: "coordinator",
    Program.AGGREGATOR: "coordinator",
}


@app.command()
def doctor(
    *,
    program: Annotated[Program | None, typer.Option(help="The program that will run on this machine.")] = None,
    config: Annotated[Path | None, typer.Option(help="Its configuration file.", metavar="FILE")] = None,
    relay: Annotated[str | None, typer.Option(help="Without --program: a relay to try.", metavar="HOST:PORT")] = None,
    relay_ca: Annotated[Path | None, typer.Option(help="The certificate of its authority.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check this machine, and say what to do. Ends with 0, or with 5 where something must be done.

    Without --program it checks what every program needs. It changes nothing.
    """
    if (relay is None) != (relay_ca is None) or (relay is not None and program is not None):
        raise Misconfigured("--relay and --relay-ca go together, and without --program, whose configuration has them")
    findings = list(examine(program, config))
    if relay is not None and relay_ca is not None:
        findings += _relay(Address.parse(relay), relay_ca)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        show(findings)
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(5)


def show(findings: list[Finding]) -> None:
    """Print findings for people, what to do under each."""
    for finding in findings:
        word, style = STYLES[finding.level]
        output().print(Text.assemble((f"{word:8}", style), f" {finding.check:9} {_indent(finding.what)}"))
        if finding.do:
            output().print(Text(f"{INDENT}→ {_indent(finding.do)}"))
    counts = {level: sum(f.level is level for f in findings) for level in Level}
    output().print(
        f"\n{counts[Level.PROBLEM]} to fix, {counts[Level.WARNING]} to know about, {counts[Level.OK]} fine"
    )


def _indent(text: str) -> str:
    return text.replace("\n", f"\n{INDENT}")


def examine(program: Program | None, file: Path | None) -> Iterator[Finding]:
    """Everything that is looked at, in the order in which a person would fix it."""
    clock = SystemClock()
    yield from machine.check_versions(EXTRAS.get(program) if program else None)
    yield machine.check_clock(clock)
    yield machine.check_core_dumps()
    yield machine.check_swap()
    if program is None:
        yield from machine.check_proxy(os.environ, HERE)
        yield machine.check_disk("the working directory", Path.cwd())
        yield from machine.check_tee(needed=False)
        return
    try:
        config = load_config(MODELS[program], program, file)
    except Error as error:
        # Not raised: the other findings still help, and this is one of them.
        yield machine.bad("config", str(error), f"superswarm {program} config writes a commented file to begin with")
        return
    yield machine.good("config", f"the configuration of {program} is complete")
    match config:
        case ParticipantConfig():
            yield from _node(config)
        case TrainerConfig():
            yield from _trainer(config)
        case CoordinatorConfig():
            yield from _coordinator(config)
        case AggregatorConfig():
            yield from _aggregator(config)


def _node(config: ParticipantConfig) -> Iterator[Finding]:
    yield machine.check_secret_file("keys", config.keys)
    if config.passphrase_file is not None:
        yield machine.check_secret_file("passphrase_file", config.passphrase_file)
    yield from _consortium(config.manifest, config.pinned, config.member)
    yield machine.check_disk("state", config.state)
    yield machine.check_disk("results", config.results)
    yield from _listening(config.http)
    yield machine.check_secret_file("supernode_key", config.supernode_key)
    yield from _relay(config.relay, config.relay_ca)


def _trainer(config: TrainerConfig) -> Iterator[Finding]:
    yield from _platform(config.platform_credentials)
    yield machine.check_memory_files()
    yield from machine.check_gpu()
    yield from _consortium(config.manifest, config.pinned, config.member, "trainer", config.platform_credentials)
    yield machine.check_secret_file("pairing", config.pairing)
    yield from checks.check_assets(config.asset)
    if config.model is not None:
        yield checks.check_model(config.model)
    for name, path in (("train", config.train), ("test", config.test)):
        if path is not None:
            yield checks.check_data(name, path)
    yield machine.check_disk("state", config.state)
    yield from _listening(config.http)
    yield machine.check_secret_file("supernode_key", config.supernode_key)
    yield from _relay(config.relay, config.relay_ca)


def _coordinator(config: CoordinatorConfig) -> Iterator[Finding]:
    yield machine.check_port("port", Address(config.host, config.port))
    yield from _listening(config.http)
    yield machine.check_disk("state", config.state)
    yield from machine.check_proxy(os.environ, HERE)


def _aggregator(config: AggregatorConfig) -> Iterator[Finding]:
    yield from _platform(config.platform_credentials)
    yield from _consortium(config.manifest, config.pinned, None, "aggregator", config.platform_credentials)
    yield machine.check_disk("state", config.state)
    yield from _listening(config.http)
    yield machine.check_secret_file("superexec_secret", config.superexec_secret)
    yield from _relay(config.relay, config.relay_ca)


def _consortium(
    path: Path, pinned: str | None, member: str | None, tee: str = "", credentials: Path | None = None
) -> Iterator[Finding]:
    """The manifest; for a program in a TEE also whether this code is approved as `tee`."""
    manifest = checks.read_manifest(path, pinned)
    if isinstance(manifest, Finding):
        yield manifest
        return
    yield from checks.check_manifest(manifest, pinned, member, credentials)
    workloads = manifest.manifest.workloads
    if tee:
        workload = workloads.trainer if tee == "trainer" else workloads.aggregator
        yield from checks.check_code(manifest, tee, workload, credentials)


def _platform(credentials: Path | None) -> Iterator[Finding]:
    yield from machine.check_tee(needed=credentials is None)
    if credentials is not None:
        yield machine.check_secret_file("platform_credentials", credentials)


def _listening(http: Address | None) -> Iterator[Finding]:
    if http is not None:
        yield machine.check_port("http", http)


def _relay(relay: Address, authority: Path) -> Iterator[Finding]:
    yield from machine.check_proxy(os.environ, [*HERE, relay.host])
    yield from machine.check_relay(relay, authority, SystemClock())
