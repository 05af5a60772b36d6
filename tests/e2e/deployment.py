"""A real deployment on loopback: relay, SuperNodes, nodes and trainers as processes of their own, on a tiny model.

Founded with the library, which takes a second, where the demo uses the commands; started with the commands.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import tomli_w

from coordinator.flower import RelayEndpoint, serve
from coordinator.mailroom import Mailroom
from coordinator.submission import submission
from participants.models import model_digest
from participants.supernode import enroll
from superswarm.attestation.measure import measure_packages
from superswarm.attestation.simulated import DevelopmentAuthority
from superswarm.consortium.approval import ApprovedManifest, SignedManifest, approve, chain_to_bytes, sign_manifest
from superswarm.consortium.grant import RunGrant, SignedGrant, sign_grant
from superswarm.consortium.manifest import Manifest
from superswarm.demo.stage import Program, Stage
from superswarm.io.flowerenv import free_loopback_ports
from superswarm.io.keystore import MemberKeys, save_keys, save_pairing
from superswarm.values import MemberId
from tests import consortia
from tests.tiny import tiny_model

NAMES = ("alice", "bob", "carol")
OPERATOR = "operator"
CANARIES = {"data": "canary-data-7d41c9", "held out": "canary-test-b22e08"}
TRAINING = {"local_steps": 2, "batch_size": 2, "learning_rate": 0.01, "max_length": 64}
READY = 240.0


@dataclass
class Deployment:
    """Programs of a consortium, and what tests need to start runs and to look into what others can see."""

    stage: Stage
    manifest: ApprovedManifest
    keys: Mapping[str, MemberKeys]
    model: Path
    config: Mapping[str, Any]
    places: Sequence[str] = ()  # of sealed assets, NAME=PLACE
    nodes: dict[str, Program] = field(default_factory=dict)
    trainers: dict[str, Program] = field(default_factory=dict)

    @property
    def relay_state(self) -> Path:
        return self.stage.home(OPERATOR) / "relay"

    def run_by_commands(self, run: str, adapter: Path, *, job: str = "adapter") -> Path:
        """A whole run by the operator's commands and the owner's: its sealed result; `adapter` is alice's, opened."""
        home = self.stage.home(OPERATOR)
        config = dict(self.config) | {
            "superexec_secret": "relay/superexec.secret",
            "platform_credentials": "platform",
            "state": "aggregator",
        }
        (home / "aggregator.toml").write_text(tomli_w.dumps(config))
        (home / "grant.json").write_bytes(self.grant(run, job=job).to_bytes())
        aggregator = self.stage.start(OPERATOR, "aggregator", "up", "--config", "aggregator.toml")
        aggregator.wait_until("ready", 120)
        words = ("run", "start", "grant.json", "--manifest", self.config["manifest"], "--state", "relay", "--wait")
        assert "completed" in self.stage.run(OPERATOR, *words)
        interrupt(aggregator)
        assert aggregator.child.wait(20) == 130
        (sealed,) = (self.stage.home("alice") / "results").glob(f"{run}-*.result")
        self.stage.run("alice", "result", "open", sealed, "--keys", "alice.keys", "--out", adapter)
        return sealed

    def grant(
        self, run: str, *, job: str = "adapter", rounds: int = 2, attempts: int = 3, by: tuple[str, ...] = NAMES
    ) -> SignedGrant:
        allowed = RunGrant(
            manifest=self.manifest.digest,
            epoch=1,
            run=run,
            job=job,
            rounds=rounds,
            attempts=attempts,
            not_after=int(time.time()) + 3600,
        )
        signatures = {
            MemberId(name): sign_grant(self.keys[name].signing, allowed, self.manifest.domain) for name in by
        }
        return SignedGrant(allowed, signatures)

    def start_run(self, grant: SignedGrant, attempt: int = 1) -> int:
        """Submit a run at the relay, as an operator with no manners could: nothing is checked first."""
        from coordinator.control import RelayControl

        with RelayControl(self.relay_state) as control:
            return control.start_run(submission(grant, attempt))

    def outcome(self, flower_run: int, seconds: float = 180.0) -> tuple[str, str]:
        """How a run ended, and with which fixed word."""
        from coordinator.control import RelayControl

        end = time.monotonic() + seconds
        with RelayControl(self.relay_state) as control:
            while (row := control.run(flower_run)).status != "finished":
                assert time.monotonic() < end, f"the run is still {row.status}"
                time.sleep(0.2)
        return row.outcome, row.detail

    def serve_once(self, run: Callable[[Mailroom, str, Mapping[str, str]], None]) -> None:
        """Be the aggregator's executor for one run, in this process: a test's hands on the wire."""
        endpoint = RelayEndpoint(
            self.config["relay"],
            Path(self.config["relay_ca"]).read_bytes(),
            (self.relay_state / "superexec.secret").read_bytes(),
        )
        serve(endpoint, run, threading.Event(), once=True)

    def start_node(self, name: str) -> Program:
        config = dict(self.config) | {
            "member": name,
            "keys": f"{name}.keys",
            "supernode_key": "supernode.key",
            "http": "off",
        }
        self.nodes[name] = self._start(name, "participant", config)
        return self.nodes[name]

    def start_trainer(self, name: str, **changes: Any) -> Program:
        config = dict(self.config) | {
            "member": name,
            "supernode_key": "supernode.key",
            "pairing": "pairing",
            "asset": list(self.places),
            "model": str(self.model),
            "train": "train.jsonl",
            "test": "test.jsonl",
            "device": "cpu",
            "threads": 1,
            "platform_credentials": "platform",
            "http": "off",
        }
        self.trainers[name] = self._start(f"{name}-tee", "trainer", config | changes)
        return self.trainers[name]

    def _start(self, party: str, program: str, config: Mapping[str, Any]) -> Program:
        (self.stage.home(party) / f"{program}.toml").write_text(tomli_w.dumps(dict(config)))
        return self.stage.start(party, program, "up", "--config", f"{program}.toml")

    def events(self, program: Program) -> list[dict[str, Any]]:
        """All of a program's log."""
        return list(Program(program.child, program.log).news())


def deploy(stage: Stage, places: Sequence[str] = (), **changes: Any) -> Deployment:
    """Found a consortium, start relay, nodes and trainers, and wait until they are ready.

    `changes` are clauses of the manifest; `places` says where its sealed assets lie.
    """
    model = tiny_model(stage.folder / "model")
    keys = {name: MemberKeys.generate(name) for name in NAMES}
    manifest, chain = _found(stage, keys, model, changes)
    (port,) = free_loopback_ports(1)
    home = stage.home(OPERATOR)
    state = home / "relay"
    (home / "coordinator.toml").write_text(tomli_w.dumps({"port": port, "state": "relay", "http": "off"}))
    relay = stage.start(OPERATOR, "coordinator", "up", "--config", "coordinator.toml")
    config = {"manifest": str(chain), "relay": f"localhost:{port}", "relay_ca": str(state / "relay-ca.crt")}
    deployment = Deployment(stage, manifest, keys, model, config, places)
    relay.wait_until("ready", READY)
    _admit(stage, state)
    for name in NAMES:
        deployment.start_node(name)
        deployment.start_trainer(name)
    for program in (*deployment.nodes.values(), *deployment.trainers.values()):
        program.wait_until("ready", READY)
    return deployment


def _found(
    stage: Stage, keys: Mapping[str, MemberKeys], model: Path, changes: Mapping[str, Any]
) -> tuple[ApprovedManifest, Path]:
    authorities = {party: DevelopmentAuthority.create(at=int(time.time()) - 600) for party in (*NAMES, OPERATOR)}
    members = []
    for name in NAMES:
        members.append(_member(stage, name, keys[name], authorities[name]))
    platform = authorities[OPERATOR].issue(at=int(time.time()) - 600, valid_days=2)
    (stage.home(OPERATOR) / "platform").write_bytes(platform.to_bytes())
    code = {"platforms": ["simulated"], "measurements": [str(measure_packages())]}
    base = consortia.manifest_data()
    data = base | {
        "members": members,
        "coordinator": {"name": "Operator", "development_authority": str(authorities[OPERATOR].spki_digest)},
        "workloads": {"trainer": code, "aggregator": code},
        "assets": [
            {"name": "base", "kind": "model", "owner": "public", "digest": str(model_digest(model)), "source": "tiny"}
        ],
        "jobs": [
            consortia.job(
                lora={"rank": 2, "alpha": 4.0, "target_modules": ["q_proj", "v_proj"]},
                training=TRAINING,
            )
        ],
        "aggregation": {"rule": "fedavg", "weighting": "examples", "minimum_cohort": 2, "round_seconds": 60},
        "result": {"recipients": ["alice", "bob"]},
        "quorum": consortia.quorums(2),
    }
    manifest = Manifest.from_data(data | changes)
    signed = SignedManifest(manifest, {MemberId(n): sign_manifest(keys[n].signing, manifest) for n in NAMES})
    chain = stage.home("shared") / "consortium.json"
    chain.write_bytes(chain_to_bytes([signed]))
    return approve([signed]), chain


def _member(stage: Stage, name: str, keys: MemberKeys, authority: DevelopmentAuthority) -> dict[str, Any]:
    """Write a member's files, on its premises and for its TEE; its entry in the manifest."""
    home, tee = stage.home(name), stage.home(f"{name}-tee")
    save_keys(home / f"{name}.keys", keys, stage.environment(name)["SUPERSWARM_PASSPHRASE"])
    save_pairing(tee / "pairing", keys.pairing)
    (tee / "platform").write_bytes(authority.issue(at=int(time.time()) - 600, valid_days=2).to_bytes())
    for folder in (home, tee):
        enroll(folder / "supernode.key")
    examples = [{"prompt": f"{name} {i} {CANARIES['data']}?", "completion": f"{i * 7 % 10}"} for i in range(8)]
    held_out = [{"prompt": f"{name} {i} {CANARIES['held out']}?", "completion": f"{i}"} for i in range(3)]
    for file, rows in (("train.jsonl", examples), ("test.jsonl", held_out)):
        (tee / file).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    entry = consortia.member(name, "data")
    return entry | {
        "signing_key": str(keys.signing.public),
        "encryption_key": str(keys.kem.public),
        "development_authority": str(authority.spki_digest),
    }


def _admit(stage: Stage, state: Path) -> None:
    from coordinator.control import RelayControl

    with RelayControl(state) as control:
        for name in NAMES:
            for party in (name, f"{name}-tee"):
                control.admit((stage.home(party) / "supernode.key.pub").read_text(), name=party)


def interrupt(program: Program) -> None:
    """Ctrl-C: to the program that runs behind the tether, not to its children."""
    os.kill(program.child.pid, signal.SIGINT)


def family(program: Program) -> list[psutil.Process]:
    """A program's process and all that it started."""
    process = psutil.Process(program.child.pid)
    return [process, *process.children(recursive=True)]
