"""A whole consortium in memory: authorities, simulated TEEs, nodes, trainers, an aggregator, a relay that may cheat.

Everything but the transport and the learner is the product's own code, behind its real interfaces.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from coordinator.admission import Admission
from coordinator.aggregator import Aggregator
from coordinator.exchange import Timing
from coordinator.flower import GridMailroom
from coordinator.mailroom import Mailroom
from coordinator.postman import Postman
from participants.learners import LoadedLearner
from participants.node import Node
from participants.trainer import Trainer
from superswarm.assets.release import KeyRequest
from superswarm.assets.terms import judge_request, owned_asset
from superswarm.attestation.evidence import Attester
from superswarm.attestation.handshake import Attempt
from superswarm.attestation.simulated import DevelopmentAuthority, SimulatedPlatform, SimulatedTee
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.grant import approve_grant
from superswarm.consortium.manifest import Job
from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import CannotOpen, ReleaseRefused, SecondAggregator
from superswarm.io.keystore import MemberKeys
from superswarm.updates.adapter import Adapter, AdapterSpec
from superswarm.values import Digest, Measurement, MemberId
from tests import consortia
from tests.clock import Clock
from tests.grid import InProcessGrid, Relay, Tamper, Transit

NOW = 1_800_000_000
CODE = Measurement.parse(consortia.measurement("code"))
OTHER_CODE = Measurement.parse(consortia.measurement("other code"))
HOSPITALS = ("alice", "bob", "carol")
CANARY = "canary-3f9a71"


@cache
def authority(name: str) -> DevelopmentAuthority:
    return DevelopmentAuthority.create(at=NOW - 86_400)


@cache
def platform(name: str) -> SimulatedPlatform:
    return authority(name).issue(at=NOW - 3_600, valid_days=30)


def tee(name: str, measurement: Measurement = CODE) -> SimulatedTee:
    return SimulatedTee(platform(name), measurement)


@dataclass
class Learner:
    """Learns a member's favourite vector: each round goes half of the way there. Small, exact, and quick."""

    goal: float
    examples: int = 10
    shape: tuple[int, ...] = (4, 8)
    delay: float = 0.0
    seed: int = 7
    spoil: float | None = None  # what every value of the update becomes
    rounds: list[int] = field(default_factory=list)
    dawdle: Callable[[float], None] = time.sleep

    @property
    def spec(self) -> AdapterSpec:
        return AdapterSpec.of(self.initial())

    def initial(self) -> Adapter:
        rng = np.random.default_rng(self.seed)
        return {
            "lora_A": rng.standard_normal(self.shape).astype(np.float32),
            "lora_B": np.zeros(self.shape, np.float32),
        }

    def train(self, adapter: Adapter, round_: int) -> tuple[Adapter, float]:
        self.dawdle(self.delay)
        self.rounds.append(round_)
        if self.spoil is not None:
            return {name: np.full_like(value, self.spoil) for name, value in adapter.items()}, 1.0
        return {name: value + (self.goal - value) / 2 for name, value in adapter.items()}, self.evaluate(adapter)

    def evaluate(self, adapter: Adapter) -> float:
        return float(np.mean([np.mean((value - self.goal) ** 2) for value in adapter.values()]))


@dataclass
class MemoryRecord:
    """A vouch record that forgets when the process ends; the durable one has tests of its own."""

    claims: dict[tuple[str, int], Digest] = field(default_factory=dict)

    def claim(self, run: str, attempt: int, session: Digest) -> None:
        later = [number for name, number in self.claims if name == run and number > attempt]
        if later or self.claims.setdefault((run, attempt), session) != session:
            raise SecondAggregator(f"another aggregator of {run} was vouched for")


@dataclass
class MemoryResults:
    stored: list[tuple[str, bytes, VerifyingKey]] = field(default_factory=list)

    def store(self, run: str, container: bytes, signer: VerifyingKey) -> None:
        self.stored.append((run, container, signer))


@dataclass
class MemoryBroker:
    """A broker that forgets when the process ends; the durable one has tests of its own."""

    manifest: ApprovedManifest
    owner: str
    keys: dict[bytes, bytes]  # digest of the sealed file → key
    demo: bool = True
    nonces: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)
    released: list[tuple[str, bytes]] = field(default_factory=list)  # to whom, which asset

    def challenge(self, manifest: Digest, member: MemberId, asset: bytes) -> bytes:
        owned_asset(self.manifest, MemberId(self.owner), asset)
        nonce = secrets.token_bytes(32)
        self.nonces[nonce] = member, asset
        return nonce

    def release(self, manifest: Digest, member: MemberId, request: KeyRequest) -> bytes:
        if self.nonces.pop(request.nonce, None) != (member, request.asset):
            raise ReleaseRefused("challenge", "no open challenge")
        used = self.released.count((member, request.asset))
        owner = MemberId(self.owner)
        to = judge_request(self.manifest, owner, request, member, demo=self.demo, used=used, at=NOW)
        self.released.append((member, request.asset))
        return to.seal(self.keys[request.asset])


@dataclass
class SealedLearner:
    """A learner that needs the right keys of its job's sealed assets before it learns anything."""

    learner: Learner
    wanted: dict[str, bytes]  # by the asset's name
    loads: list[str] = field(default_factory=list)  # jobs

    def load(self, job: Job, keys: Mapping[str, bytes]) -> Learner:
        for name, key in keys.items():
            if self.wanted[name] != key:
                raise CannotOpen(f"the key of {name} is another one")
        self.loads.append(job.name)
        return self.learner


@dataclass
class Recorded:
    """A publisher that shows the test what would be sealed, and seals nothing."""

    adapters: list[Adapter] = field(default_factory=list)
    kept: list[tuple[bytes, VerifyingKey]] = field(default_factory=list)  # what trainers made

    def keep(self, container: bytes, run: str, signer: VerifyingKey) -> None:
        self.kept.append((container, signer))

    def publish(self, adapter: Adapter, admission: Admission, rounds: int) -> bytes:
        self.adapters.append(adapter)
        return b"container"


@dataclass
class Diary:
    """What a program told its owner."""

    entries: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, event: str, **fields: Any) -> None:
        self.entries.append((event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.entries if name == event]

    @property
    def errors(self) -> list[str]:
        return [fields["error"] for _, fields in self.entries if "error" in fields]


class SimulatedConsortium:
    """Members with a node and a trainer each, and an operator. Nodes are peers 1, 2, …; trainers 11, 12, …"""

    def __init__(self, *names: str, **changes: Any) -> None:
        self.names = names or HOSPITALS
        entries = [
            consortia.member(name, consortia.DATA)
            | {"development_authority": str(authority(name).spki_digest), "name": name}
            for name in self.names
        ]
        coordinator = {"name": "Operator", "development_authority": str(authority("operator").spki_digest)}
        job = consortia.job(rounds=3)
        rule = {
            "rule": "fedavg",
            "weighting": "examples",
            "minimum_cohort": min(2, len(self.names)),
            "round_seconds": 3,
        }
        self.data = {"coordinator": coordinator, "jobs": [job], "aggregation": rule} | changes
        self.manifest: ApprovedManifest = consortia.approved(*entries, **self.data)
        self.entries = entries
        self.now = NOW
        self.clock = Clock()
        self.learners = {
            name: Learner(goal=float(i), examples=10 * (i + 1), dawdle=self.clock.dawdle)
            for i, name in enumerate(self.names)
        }
        self.records = {name: MemoryRecord() for name in self.names}
        self.results = {name: MemoryResults() for name in self.names}
        self.diaries: dict[str, Diary] = {}
        self.published = Recorded()
        self.nodes = {name: self.node(name) for name in self.names}
        self.trainers = {name: self.trainer(name) for name in self.names}
        self.aggregator_tee: Attester = tee("operator")

    def node_peer(self, name: str) -> int:
        return 1 + self.names.index(name)

    def trainer_peer(self, name: str) -> int:
        return 11 + self.names.index(name)

    def diary(self, who: str) -> Diary:
        return self.diaries.setdefault(who, Diary())

    def pairing(self, name: str) -> bytes:
        return Digest.of(f"pairing {name}".encode()).raw

    def node(self, name: str, **changes: Any) -> Node:
        keys = MemberKeys(MemberId(name), consortia.signing_key(name), consortia.kem_key(name), self.pairing(name))
        arguments: dict[str, Any] = {
            "manifest": self.manifest,
            "keys": keys,
            "record": self.records[name],
            "results": self.results[name],
            "now": lambda: self.now,
            "notify": self.diary(f"node/{name}"),
        }
        return Node(**(arguments | changes))

    def trainer(self, name: str, **changes: Any) -> Trainer:
        arguments: dict[str, Any] = {
            "member": MemberId(name),
            "manifest": self.manifest,
            "attester": tee(name),
            "pairing_key": self.pairing(name),
            "learners": LoadedLearner(self.learners[name]),
            "notify": self.diary(f"trainer/{name}"),
        }
        return Trainer(**(arguments | changes))

    def grid(self, tamper: Tamper | None = None, **extra: Any) -> InProcessGrid:
        handlers = {self.node_peer(name): node.handle for name, node in self.nodes.items()}
        for name in self.trainers:  # looked up for each message, as a trainer may be started anew
            handlers[self.trainer_peer(name)] = lambda *message, name=name: self.trainers[name].handle(*message)
        return InProcessGrid(handlers | extra.get("handlers", {}), tamper, clock=self.clock)

    def restarting(self, name: str, make: Callable[[str], Trainer] | None = None) -> Tamper:
        """A relay that finds this member's trainer started anew when it first asks it to train."""
        restarted: list[Trainer] = []

        def request(transit: Transit) -> list[Transit]:
            if transit.kind == "train" and transit.peer == self.trainer_peer(name) and not restarted:
                restarted.append((make or self.trainer)(name))
                self.trainers[name] = restarted[0]
            return [transit]

        return Relay(request=request)

    def aggregator(
        self, mailroom: Mailroom, *, attempt: int = 1, join_seconds: float = 1.0, **grant: Any
    ) -> Aggregator:
        diary = self.diary("aggregator")
        signed = consortia.signed_grant(self.manifest, **({"rounds": 3} | grant))
        approved = approve_grant(signed, self.manifest)
        timing = Timing(self.clock.monotonic, self.clock.sleep)
        admission = Admission(
            attempt=Attempt(manifest=self.manifest, run=approved.grant.run, number=attempt),
            grant=approved,
            grant_bytes=signed.to_bytes(),
            attester=self.aggregator_tee,
            mailroom=mailroom,
            timing=timing,
            notify=diary,
            patience=2.0,
        )
        return Aggregator(
            manifest=self.manifest,
            grant=approved,
            admission=admission,
            mailroom=mailroom,
            postman=Postman(admission, mailroom, timing, diary),
            publisher=self.published,
            timing=timing,
            notify=diary,
            join_seconds=join_seconds,
        )

    def run(self, tamper: Tamper | None = None, **arguments: Any) -> Adapter:
        """One whole run; the adapter that was published."""
        with self.grid(tamper) as grid:
            self.aggregator(GridMailroom(grid), **arguments).run()
        return self.published.adapters[-1]

    def expected(self, *names: str, rounds: int = 3) -> Adapter:
        """What honest weighted averaging of these members gives (arXiv:1602.05629)."""
        adapter = self.learners[self.names[0]].initial()
        people = [self.learners[name] for name in names or self.names]
        total = sum(p.examples for p in people)
        for _ in range(rounds):
            trained = [replace(p, rounds=[], delay=0.0, dawdle=time.sleep).train(adapter, 0)[0] for p in people]
            adapter = {
                name: sum(
                    t[name].astype(np.float64) * p.examples / total for t, p in zip(trained, people, strict=True)
                )
                for name in adapter
            }
        return adapter
