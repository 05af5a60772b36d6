"""The real SuperLink, SuperNodes and processes: a whole run, what the relay saw of it, and attacks on the way."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tomli_w

from coordinator.admission import Admission
from coordinator.aggregator import Aggregator
from coordinator.exchange import Timing
from coordinator.mailroom import Delivery, Mailroom, Outgoing
from coordinator.postman import Postman
from coordinator.submission import parse_submission
from superswarm.attestation.handshake import Attempt
from superswarm.attestation.measure import measure_packages
from superswarm.attestation.simulated import SimulatedPlatform, SimulatedTee
from superswarm.consortium.grant import approve_grant
from superswarm.errors import CohortTooSmall, Error
from superswarm.updates.adapter import Adapter
from superswarm.wire import Parcel
from tests.e2e.deployment import CANARIES, NAMES, OPERATOR, Deployment, family, interrupt
from tests.simulator import Diary, Recorded

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def everything_under(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture(scope="module")
def first_run(deployment: Deployment) -> Deployment:
    """One run with the operator's real aggregator, from `run start` to `result open`."""
    home = deployment.stage.home(OPERATOR)
    config = dict(deployment.config) | {
        "superexec_secret": "relay/superexec.secret",
        "platform_credentials": "platform",
        "state": "aggregator",
    }
    (home / "aggregator.toml").write_text(tomli_w.dumps(config))
    (home / "grant.json").write_bytes(deployment.grant("first").to_bytes())
    aggregator = deployment.stage.start(OPERATOR, "aggregator", "up", "--config", "aggregator.toml")
    aggregator.wait_until("ready", 120)
    words = ("run", "start", "grant.json", "--manifest", deployment.config["manifest"], "--state", "relay", "--wait")
    assert "completed" in deployment.stage.run(OPERATOR, *words)
    interrupt(aggregator)
    assert aggregator.child.wait(20) == 130
    return deployment


class TestRun:
    def test_the_result_opens_for_recipients_and_loads_in_peft(self, first_run: Deployment, tmp_path: Path) -> None:
        stage = first_run.stage
        (sealed,) = (stage.home("alice") / "results").glob("*.result")
        stage.run("alice", "result", "open", sealed, "--keys", "alice.keys", "--out", tmp_path / "adapter")
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(first_run.model)
        model = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
        weights = [p for name, p in model.named_parameters() if "lora_B" in name]
        assert weights
        assert all(p.abs().sum() > 0 for p in weights), "it was trained"

    def test_nobody_else_gets_or_opens_it(self, first_run: Deployment, tmp_path: Path) -> None:
        stage = first_run.stage
        assert not list((stage.home("carol") / "results").glob("*.result"))
        (sealed,) = (stage.home("alice") / "results").glob("*.result")
        words = ("result", "open", sealed, "--keys", "carol.keys", "--out", tmp_path / "adapter", "--any-signer")
        with pytest.raises(Error):
            stage.run("carol", *words)
        assert not (tmp_path / "adapter").exists()

    def test_the_operator_sees_the_run_and_the_warning(self, first_run: Deployment) -> None:
        import json

        document = json.loads(first_run.stage.run(OPERATOR, "status", "--state", "relay", "--json"))
        assert "protects nothing" in document["simulated"]
        assert document["runs"][-1] | {"flower_run": 0} == {
            "run": "first",
            "attempt": 1,
            "flower_run": 0,
            "simulated": True,
            "state": "completed",
        }

    def test_the_relay_saw_no_plaintext(self, first_run: Deployment) -> None:
        """Its database with the write-ahead log, its logs, and everything else in the operator's folder."""
        seen = everything_under(first_run.stage.home(OPERATOR))
        (sealed,) = (first_run.stage.home("alice") / "results").glob("*.result")
        out = first_run.stage.home("alice") / "opened"
        first_run.stage.run("alice", "result", "open", sealed, "--keys", "alice.keys", "--out", out)
        weights = (out / "adapter_model.safetensors").read_bytes()
        tensor = weights[-32:]
        assert len(tensor) == 32
        assert any(tensor), "the last tensor was trained"
        secret = {
            "data": CANARIES["data"].encode(),
            "held-out data": CANARIES["held out"].encode(),
            "tensors": tensor,
            "names of tensors": b"lora_A",
            "metrics": b"eval_loss",
            "exceptions": b"Traceback",
        }
        found = [name for name, text in secret.items() if text in seen]
        assert not found
        assert len(seen) > 200_000, "the database was searched"
        databases = [p for p in (first_run.relay_state).rglob("*") if p.suffix in {".db", ".sqlite"}]
        assert databases
        assert sqlite3.connect(databases[0]).execute("select count(*) from sqlite_master").fetchone()[0] > 0

    def test_premises_and_tee_wrote_no_plaintext_of_the_others(self, first_run: Deployment) -> None:
        for name in NAMES:
            seen = everything_under(first_run.stage.home(name))
            assert CANARIES["data"].encode() not in seen
            tee = first_run.stage.home(f"{name}-tee")
            logs = b"".join(p.read_bytes() for p in tee.rglob("*.log"))
            assert CANARIES["data"].encode() not in logs


@dataclass
class Cheating:
    """A relay that cheats, between the real one and the aggregator. Peers are known by what they answered."""

    inner: Mailroom
    post: Callable[[Outgoing], Outgoing] = lambda outgoing: outgoing
    reply: Callable[[str, Delivery], Delivery | None] = lambda _kind, delivery: delivery

    def __post_init__(self) -> None:
        self.kinds: dict[str, str] = {}

    def peers(self) -> frozenset[int]:
        return self.inner.peers()

    def post_all(self, outgoing: Sequence[Outgoing], *, ttl: float) -> list[str]:
        tickets = self.inner.post_all([self.post(one) for one in outgoing], ttl=ttl)
        self.kinds |= dict(zip(tickets, [one.kind for one in outgoing], strict=True))
        return tickets

    def collect(self, tickets: Collection[str]) -> list[Delivery]:
        deliveries = [self.reply(self.kinds[d.ticket], d) for d in self.inner.collect(tickets)]
        return [delivery for delivery in deliveries if delivery is not None]


class Attack:
    """A run on the real deployment with the aggregator in this process and a relay that cheats."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.diary, self.published = Diary(), Recorded()
        self.aggregator: Aggregator | None = None
        self.failure: Error | None = None

    def run(self, name: str, wrap: Callable[[Mailroom], Mailroom] = lambda m: m, **grant: object) -> None:
        attempt = int(grant.pop("attempt", 1))  # type: ignore[call-overload]
        signed = self.deployment.grant(name, **grant)  # type: ignore[arg-type]
        flower_run = self.deployment.start_run(signed, attempt)

        def program(mailroom: Mailroom, _run: str, texts: Mapping[str, str]) -> None:
            try:
                self._aggregate(wrap(mailroom), texts)
            except Error as error:
                self.failure = error
                raise

        self.deployment.serve_once(program)
        self.outcome = self.deployment.outcome(flower_run)

    def _aggregate(self, mailroom: Mailroom, texts: Mapping[str, str]) -> None:
        manifest = self.deployment.manifest
        signed, number = parse_submission(texts)
        grant = approve_grant(signed, manifest)
        platform = SimulatedPlatform.parse((self.deployment.stage.home(OPERATOR) / "platform").read_bytes())
        timing = Timing()
        admission = Admission(
            attempt=Attempt(manifest=manifest, run=grant.grant.run, number=number),
            grant=grant,
            grant_bytes=signed.to_bytes(),
            attester=SimulatedTee(platform, measure_packages()),
            mailroom=mailroom,
            timing=timing,
            notify=self.diary,
            patience=20.0,
        )
        postman = Postman(admission, mailroom, timing, self.diary)
        Aggregator(
            manifest=manifest,
            grant=grant,
            admission=admission,
            mailroom=mailroom,
            postman=postman,
            publisher=self.published,
            timing=timing,
            notify=self.diary,
            join_seconds=30.0,
        ).run()

    @property
    def result(self) -> Adapter:
        return self.published.adapters[-1]

    def left_out(self) -> set[str]:
        return {str(entry["member"]) for entry in self.diary.of("left out") if entry.get("member")}


def first_peer_to_train() -> tuple[Callable[[Outgoing], Outgoing], list[int]]:
    """Note who is asked to train, in order."""
    peers: list[int] = []

    def post(outgoing: Outgoing) -> Outgoing:
        if outgoing.kind == "train" and outgoing.peer not in peers:
            peers.append(outgoing.peer)
        return outgoing

    return post, peers


def flipped(parcel: Parcel) -> Parcel:
    return Parcel(parcel.head, parcel.body[:-1] + bytes([parcel.body[-1] ^ 1]))


class TestRelayAttacks:
    """Each class of attack, once over the real relay: the victim is left out, the others' run goes on."""

    @pytest.mark.parametrize("how", ["edits", "drops", "swaps", "replays"])
    def test_a_cheating_relay(self, first_run: Deployment, how: str) -> None:
        post, peers = first_peer_to_train()
        kept: list[Parcel] = []

        def reply(kind: str, delivery: Delivery) -> Delivery | None:
            if kind != "train" or delivery.parcel is None:
                return delivery
            if delivery.peer != peers[0]:
                kept.append(delivery.parcel)
                return delivery
            match how:
                case "edits":
                    return replace(delivery, parcel=flipped(delivery.parcel))
                case "drops":
                    return replace(delivery, parcel=None)
                case "swaps" if kept:
                    return replace(delivery, parcel=kept[-1])
                case "replays":
                    first.setdefault(0, delivery.parcel)
                    return replace(delivery, parcel=first[0])
            return replace(delivery, parcel=flipped(delivery.parcel))

        first: dict[int, Parcel] = {}
        attack = Attack(first_run)
        attack.run(f"relay-{how}", lambda mailroom: Cheating(mailroom, post, reply))
        assert attack.outcome[0] == "completed"
        assert len(attack.left_out()) == 1
        assert all(np.isfinite(value).all() for value in attack.result.values())

    def test_last_rounds_order_again(self, first_run: Deployment) -> None:
        """Trainers refuse an order that they have obeyed; nobody trains twice, and the run stops with the reason."""
        orders: dict[int, Outgoing] = {}

        def post(outgoing: Outgoing) -> Outgoing:
            return orders.setdefault(outgoing.peer, outgoing) if outgoing.kind == "train" else outgoing

        attack = Attack(first_run)
        attack.run("relay-repeats", lambda mailroom: Cheating(mailroom, post))
        assert isinstance(attack.failure, CohortTooSmall)
        assert attack.outcome == ("failed", "CohortTooSmall")


class TestTrust:
    def test_a_second_aggregator_in_the_same_attempt(self, first_run: Deployment) -> None:
        attack = Attack(first_run)
        attack.run("first")
        assert attack.outcome == ("failed", "RefusedByMembers")
        assert any("SecondAggregator" in str(entry["why"]) for entry in attack.diary.of("left out"))

    def test_a_run_that_too_few_granted(self, first_run: Deployment) -> None:
        attack = Attack(first_run)
        attack.run("unauthorised", by=("alice",))
        assert attack.outcome == ("failed", "NoGrant")

    def test_one_edited_line_of_code_gets_a_trainer_refused(self, first_run: Deployment, tmp_path: Path) -> None:
        import superswarm

        source = Path(superswarm.__file__).parent.parent
        for package in ("superswarm", "participants", "coordinator"):
            shutil.copytree(source / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
        edited = tmp_path / "superswarm" / "wire.py"
        edited.write_text(edited.read_text().replace("Invert `party`.", "Invert party."))
        first_run.trainers["carol"].child.stop()
        path = sys.path[:]
        try:
            sys.path.insert(0, str(tmp_path))  # what the stage gives its programs
            tampered = first_run.start_trainer("carol")
        finally:
            sys.path[:] = path
        tampered.wait_until("ready", 240)
        attack = Attack(first_run)
        attack.run("tampered")
        tampered.child.stop()
        assert attack.outcome[0] == "completed"
        why = [e["fields"] for e in first_run.events(first_run.nodes["carol"]) if e["event"] == "trainer refused"]
        assert why[-1]["error"] == "UnapprovedMeasurement:measurement"


class TestStopping:
    def test_ctrl_c_leaves_no_process_behind(self, first_run: Deployment) -> None:
        """Runs last: it stops a node and a trainer."""
        for program in (first_run.nodes["bob"], first_run.trainers["bob"]):
            started = family(program)
            assert len(started) > 1
            interrupt(program)
            assert program.child.wait(30) == 130
            end = time.monotonic() + 10
            while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in started):
                assert time.monotonic() < end, "a process outlived its program"
                time.sleep(0.1)
