"""Found a consortium with the commands that its members and its operator would type, each on its own."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from superswarm.demo.stage import Program, Stage
from superswarm.io.flowerenv import free_loopback_ports

OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Hospital:
    """A member of the demo: its id, its name for people, and its two splits."""

    id: str
    name: str
    train: Path
    test: Path

    @property
    def tee(self) -> str:
        """The folder that plays its TEE."""
        return f"{self.id}-tee"


@dataclass(frozen=True, slots=True)
class Founded:
    """A consortium with an approved manifest and a granted run."""

    manifest: Path
    grant: Path
    hospitals: tuple[Hospital, ...]
    model: Path


def found(stage: Stage, hospitals: Sequence[Hospital], model: Path, tables: Mapping[str, Any]) -> Founded:
    """Make keys, draft a manifest with these tables, have everybody sign it and a grant for one run."""
    shared = stage.home("shared")
    with ThreadPoolExecutor(max_workers=2) as pool:
        operator = pool.submit(_prepare_operator, stage)
        digest = pool.submit(stage.run, OPERATOR, "model", "digest", model)
        cards = list(pool.map(lambda hospital: _prepare_member(stage, hospital, shared), hospitals))
        manifest = shared / "manifest.toml"
        stage.run(OPERATOR, "manifest", "init", "--scenario", "consortium", "--out", manifest)
        _draft(stage, manifest, cards, operator.result(), digest.result().split()[0], hospitals)
        _set_tables(manifest, tables)
        stage.run(OPERATOR, "manifest", "check", manifest)
        signed = list(pool.map(lambda h: _sign(stage, h, "manifest", manifest, shared), hospitals))
        chain = shared / "consortium.json"
        stage.run(OPERATOR, "manifest", "combine", *signed, "--out", chain)
        draft, grant = shared / "draft.grant.json", shared / "run-1.grant.json"
        stage.run(OPERATOR, "grant", "draft", "--consortium", chain, "--run", "run-1", "--out", draft)
        extra = ("--consortium", chain)
        granted = list(pool.map(lambda h: _sign(stage, h, "grant", draft, shared, *extra), hospitals))
        stage.run(OPERATOR, "grant", "combine", *granted, "--consortium", chain, "--out", grant)
    return Founded(chain, grant, tuple(hospitals), model)


def _prepare_operator(stage: Stage) -> str:
    """The operator's own development authority and simulated machine; the authority's digest."""
    digest = stage.run(OPERATOR, "keys", "authority", "authority.sealed").split()[-1]
    stage.run(OPERATOR, "keys", "platform", "platform", "--authority", "authority.sealed")
    return digest


def _prepare_member(stage: Stage, hospital: Hospital, shared: Path) -> Path:
    """A member's keys, authority and simulated machine; the card that the others may see."""
    home, tee = stage.home(hospital.id), stage.home(hospital.tee)
    digest = stage.run(hospital.id, "keys", "authority", "authority.sealed").split()[-1]
    stage.run(hospital.id, "keys", "platform", tee / "platform", "--authority", "authority.sealed")
    new = ("keys", "new", hospital.id, "--name", hospital.name, "--contributes", "data", "--authority", digest)
    stage.run(hospital.id, *new)
    for party, where in ((hospital.id, home), (hospital.tee, tee)):
        stage.run(party, "participant", "enroll", where / "supernode.key")
    (tee / "pairing").write_bytes((home / f"{hospital.id}.pairing").read_bytes())
    (tee / "pairing").chmod(0o600)
    card = shared / f"{hospital.id}.member.toml"
    card.write_bytes((home / card.name).read_bytes())
    return card


def _draft(
    stage: Stage, manifest: Path, cards: Sequence[Path], authority: str, digest: str, hospitals: Sequence[Hospital]
) -> None:
    words: list[str | Path] = ["manifest", "draft", manifest]
    for card in cards:
        words += ["--member", card]
    for hospital in hospitals:
        words += ["--recipient", hospital.id]
    words += ["--name", "Demo consortium", "--coordinator", "Demo operator", "--coordinator-authority", authority]
    words += ["--measurement", "this", "--model-digest", digest, "--model-source", "the demo's base model"]
    stage.run(OPERATOR, *words, "--model-owner", "public")


def _set_tables(manifest: Path, tables: Mapping[str, Any]) -> None:
    """Put the demo's job in place of the template's, as an editor would."""
    data = tomllib.loads(manifest.read_text())
    for name, table in tables.items():
        if isinstance(table, list):  # the template has one job, and so has the demo
            data[name] = [{**data[name][0], **entry} for entry in table]
        else:
            data[name] = {**data[name], **table}
    manifest.write_text(tomli_w.dumps(data))


def _sign(stage: Stage, hospital: Hospital, kind: str, document: Path, shared: Path, *extra: str | Path) -> Path:
    signed = shared / f"{hospital.id}.{kind}.json"
    keys = stage.home(hospital.id) / f"{hospital.id}.keys"
    stage.run(hospital.id, kind, "sign", document, *extra, "--keys", keys, "--out", signed, "--yes")
    return signed


@dataclass(frozen=True, slots=True)
class Running:
    """All programs of a consortium, up and connected."""

    relay_state: Path
    aggregator: Program
    nodes: Mapping[str, Program]
    trainers: Mapping[str, Program]


def start(stage: Stage, founded: Founded) -> Running:
    """Start relay, aggregator, nodes and trainers: one command each, as on separate machines."""
    port, http = free_loopback_ports(2)
    home = stage.home(OPERATOR)
    state = home / "relay"
    config = {"host": "127.0.0.1", "port": port, "state": "relay", "http": f"127.0.0.1:{http}"}
    _write(home / "coordinator.toml", config)
    relay = stage.start(OPERATOR, "coordinator", "up", "--config", "coordinator.toml")
    common = {
        "manifest": str(founded.manifest),
        "relay": f"localhost:{port}",
        "relay_ca": str(state / "relay-ca.crt"),
    }
    trainers = {h.id: _start_trainer(stage, h, founded, common, after=relay) for h in founded.hospitals}
    public = [stage.home(p) / "supernode.key.pub" for h in founded.hospitals for p in (h.id, h.tee)]
    stage.run(OPERATOR, "coordinator", "admit", *_named(stage, public), "--state", state)
    nodes = {h.id: _start_node(stage, h, common) for h in founded.hospitals}
    aggregator_config = common | {
        "superexec_secret": str(state / "superexec.secret"),
        "platform_credentials": "platform",
        "state": "aggregator",
    }
    _write(home / "aggregator.toml", aggregator_config)
    aggregator = stage.start(OPERATOR, "aggregator", "up", "--config", "aggregator.toml")
    for program in (aggregator, *nodes.values(), *trainers.values()):
        program.wait_until("ready")
    return Running(state, aggregator, nodes, trainers)


def _start_trainer(
    stage: Stage, hospital: Hospital, founded: Founded, common: Mapping[str, str], *, after: Program
) -> Program:
    home = stage.home(hospital.tee)
    after.wait_until("ready") if not (Path(common["relay_ca"])).exists() else None
    trainer = dict(common) | {
        "member": hospital.id,
        "supernode_key": "supernode.key",
        "pairing": "pairing",
        "model": str(founded.model),
        "train": str(hospital.train),
        "test": str(hospital.test),
        "device": "auto",
        "threads": stage.threads,
        "platform_credentials": "platform",
        "http": "off",
    }
    _write(home / "trainer.toml", trainer)
    return stage.start(hospital.tee, "trainer", "up", "--config", "trainer.toml")


def _start_node(stage: Stage, hospital: Hospital, common: Mapping[str, str]) -> Program:
    home = stage.home(hospital.id)
    node = dict(common) | {
        "member": hospital.id,
        "keys": f"{hospital.id}.keys",
        "supernode_key": "supernode.key",
        "http": "off",
    }
    _write(home / "participant.toml", node)
    return stage.start(hospital.id, "participant", "up", "--config", "participant.toml")


def _named(stage: Stage, keys: Sequence[Path]) -> list[Path]:
    """Copies of public keys under names that the operator can tell apart."""
    named = []
    for key in keys:
        copy = stage.home(OPERATOR) / f"{key.parent.name}.pub"
        copy.write_bytes(key.read_bytes())
        named.append(copy)
    return named


def _write(path: Path, config: Mapping[str, Any]) -> None:
    path.write_text(tomli_w.dumps(dict(config)))


def status(stage: Stage, running: Running) -> dict[str, Any]:
    """What the operator sees."""
    document = stage.run(OPERATOR, "status", "--state", running.relay_state, "--json")
    return dict(json.loads(document))
