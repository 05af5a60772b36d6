"""superswarm's programs on this machine, one process each as in a real deployment, started with their commands."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import psutil
import tomli_w

from benchmarks.federation.founding import OPERATOR, Founded
from benchmarks.federation.times import Times, between
from coordinator.control import RelayControl
from superswarm.demo.stage import Program, Stage, StepFailed
from superswarm.errors import Unavailable
from superswarm.io.flowerenv import free_loopback_port
from superswarm.io.processes import Children, spawn

READY = 300.0


@dataclass
class Ours:
    """A deployment on a stage: `start`, any number of `run`, `stop`. Without `splits` trainers learn nothing."""

    stage: Stage
    founded: Founded
    plan: Path
    model: Path | None = None
    splits: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    trainers: dict[str, Program] = field(default_factory=dict)

    def start(self) -> float:
        """Start everything; the seconds until all programs say that they are ready."""
        began = time.monotonic()
        self.stage.children = Children()
        home, port = self.stage.home(OPERATOR), free_loopback_port()
        state = home / "relay"
        relay = self._start(OPERATOR, "coordinator", {"port": port, "state": "relay", "http": "off"})
        common = {
            "manifest": str(self.founded.chain),
            "relay": f"localhost:{port}",
            "relay_ca": str(state / "relay-ca.crt"),
        }
        relay.wait_until("ready", READY)
        self._admit(state)
        programs = [self._start_node(name, common) for name in self.founded.members]
        self.trainers = {name: self._start_trainer(name, common) for name in self.founded.members}
        operator = {
            "superexec_secret": str(state / "superexec.secret"),
            "platform_credentials": "platform",
            "state": "aggregator",
        }
        self.aggregator = self._start(OPERATOR, "aggregator", common | operator)
        for program in (self.aggregator, *programs, *self.trainers.values()):
            program.wait_until("ready", READY)
        return time.monotonic() - began

    def run(self, seconds: float = 1800.0) -> Times:
        """`superswarm run start`, and wait for the result's delivery."""
        began = time.time()
        words = ("run", "start", self.founded.grant, "--manifest", self.founded.chain, "--state", "relay")
        self.stage.run(OPERATOR, *words)
        seen: list[dict[str, Any]] = []
        while not any(entry.get("event") == "run finished" for entry in seen):
            seen += self.aggregator.news()
            failed = [e for e in seen if str(e.get("event")).startswith(("the run failed", "left out"))]
            if failed or time.time() - began > seconds:
                raise Unavailable(f"superswarm's run failed: {failed}; its logs are in {self.stage.folder}")
            self.stage.check()
            time.sleep(0.05)
        begun = {int(e["fields"]["round"]): _at(e) for e in seen if e.get("event") == "round begins"}
        (delivered,) = (_at(e) for e in seen if e.get("event") == "result delivered")
        (first,) = (_at(e) for e in seen if e.get("event") == "run begins")
        admitted = [_at(e) for t in self.trainers.values() for e in t.news() if e.get("event") == "admitted"]
        return Times(
            job=delivered - began,
            rounds=between(begun),
            handshake=max(admitted) - first,
            aggregator_bytes=_peak(self.aggregator.child.pid),
        )

    def stop(self) -> None:
        self.stage.children.stop()
        self.stage.children = Children()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_node(self, name: str, common: Mapping[str, Any]) -> Program:
        own = {"member": name, "keys": "keys", "supernode_key": "supernode.key", "http": "off"}
        return self._start(name, "participant", {**common, **own})

    def _start_trainer(self, name: str, common: Mapping[str, Any]) -> Program:
        own = {"member": name, "supernode_key": "supernode.key", "pairing": "pairing"}
        own |= {"platform_credentials": "platform"}
        party = f"{name}-tee"
        if not self.splits:
            return self._start_idle(party, {**common, **own})
        train, test = self.splits[name]
        learns = {
            "model": str(self.model),
            "train": train,
            "test": test,
            "device": "cpu",
            "threads": 1,
            "http": "off",
        }
        return self._start(party, "trainer", {**common, **own, **learns})

    def _start(self, party: str, program: str, config: Mapping[str, Any]) -> Program:
        home = self.stage.home(party)
        (home / f"{program}.toml").write_text(tomli_w.dumps(dict(config)))
        (home / f"{program}.log").unlink(missing_ok=True)
        return self.stage.start(party, program, "up", "--config", f"{program}.toml")

    def _start_idle(self, party: str, config: Mapping[str, Any]) -> Program:
        home = self.stage.home(party)
        (home / "trainer.json").write_text(json.dumps({**config, "plan": str(self.plan)}))
        log = home / "trainer.log"
        log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.federation.idle_trainer", "trainer.json"]
        child = spawn(command, name=party, log=log, environment=self.stage.environment(party), folder=home)
        return Program(self.stage.children.add(child), log)

    def _admit(self, state: Path) -> None:
        with RelayControl(state) as control:
            for name in self.founded.members:
                for party in (name, f"{name}-tee"):
                    control.admit((self.stage.home(party) / "supernode.key.pub").read_text(), name=party)


def _at(entry: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(entry["ts"]).timestamp()


def _peak(pid: int) -> int:
    """The most resident memory that a process had, in bytes; Linux counts it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return int(psutil.Process(pid).memory_info().rss)
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    if not found:
        raise StepFailed("the aggregator has ended", 1)
    return found[0] * 1024
