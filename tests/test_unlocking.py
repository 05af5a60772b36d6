"""Sealed assets in a run: trainers get their keys from owners' brokers before they train, and from nobody else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coordinator.flower import GridMailroom
from superswarm.errors import CohortTooSmall
from superswarm.values import Digest, MemberId
from tests import consortia
from tests.grid import Recorder, Relay, Tamper, Transit, drop
from tests.simulator import OTHER_CODE, MemoryBroker, SealedLearner, SimulatedConsortium, tee

ALL = ("alice", "bob", "carol")
TERMS = {"members": list(ALL), "not_after": "2030-12-31", "times": 3}
KEYS = {name: Digest.of(f"key of {name}".encode()).raw for name in ("base", "records")}


def asset(name: str, owner: str, kind: str, **terms: Any) -> dict[str, Any]:
    digest = consortia.digest(f"sealed {name}")
    return {"name": name, "kind": kind, "owner": owner, "digest": digest, "source": "x", "release": TERMS | terms}


class Sealed(SimulatedConsortium):
    """Alice owns the base model, which all train on; bob's records are sealed too. Learners check their keys."""

    def __init__(self, **changes: Any) -> None:
        assets = [asset("base", "alice", "model"), asset("records", "bob", "dataset", members=["bob"])]
        rule = {"rule": "fedavg", "weighting": "examples", "minimum_cohort": 2, "round_seconds": 3}
        super().__init__(*ALL, **({"assets": assets, "aggregation": rule} | changes))
        self.loaders = {name: SealedLearner(self.learners[name], KEYS) for name in ALL}
        self.brokers = {owner: self.broker(owner) for owner in ("alice", "bob")}
        for name in ALL:
            self.nodes[name] = self.node(name, broker=self.brokers.get(name))
            self.trainers[name] = self.sealed_trainer(name)

    def broker(self, owner: str) -> MemoryBroker:
        named = self.manifest.manifest.assets
        keys = {Digest.parse(a.digest).raw: KEYS[a.name] for a in named if a.owner == owner and a.name in KEYS}
        return MemoryBroker(self.manifest, owner, keys)

    def sealed_trainer(self, name: str, **changes: Any) -> Any:
        return self.trainer(name, **({"learners": self.loaders[name]} | changes))

    def told(self) -> set[str]:
        return {error for diary in self.diaries.values() for error in diary.errors}


def test_each_trainer_gets_the_keys_of_its_model_and_data() -> None:
    consortium = Sealed()
    adapter = consortium.run()
    for name, value in consortium.expected().items():
        np.testing.assert_allclose(adapter[name], value, rtol=1e-6, atol=1e-6)
    assert sorted(member for member, _ in consortium.brokers["alice"].released) == ["alice", "bob", "carol"]
    assert [member for member, _ in consortium.brokers["bob"].released] == ["bob"]
    assert all(loader.loads == ["adapter"] for loader in consortium.loaders.values())


def test_the_next_run_asks_again() -> None:
    """A key is released for one run: what was loaded with it is dropped at the run's end."""
    consortium = Sealed()
    consortium.run()
    consortium.run(run="run-2")
    assert len(consortium.brokers["alice"].released) == 6
    assert all(loader.loads == ["adapter"] * 2 for loader in consortium.loaders.values())


def test_another_attempt_of_the_same_run_does_not() -> None:
    consortium = Sealed()

    class Crash(Tamper):
        def request(self, transit: Transit) -> list[Transit]:
            if transit.kind == "train" and transit.number > 0 and len(consortium.learners["alice"].rounds) == 2:
                grid.stop_run()
            return [transit]

    with consortium.grid(Crash()) as grid, pytest.raises(Exception, match="stopped"):
        consortium.aggregator(GridMailroom(grid)).run()
    consortium.run(attempt=2)
    assert len(consortium.brokers["alice"].released) == 3


def test_the_relay_and_the_aggregator_carry_no_key() -> None:
    consortium, recorder = Sealed(), Recorder()
    consortium.run(recorder)
    seen = b"".join(t.parcel.head + t.parcel.body for t in recorder.requests + recorder.replies)
    assert all(key not in seen for key in KEYS.values())


def test_a_trainer_with_other_code_gets_no_key() -> None:
    consortium = Sealed()
    consortium.trainers["carol"] = consortium.sealed_trainer("carol", attester=tee("carol", OTHER_CODE))
    consortium.run()
    assert consortium.loaders["carol"].loads == []
    assert MemberId("carol") not in {member for member, _ in consortium.brokers["alice"].released}


def test_code_that_is_changed_after_the_handshake_gets_no_key() -> None:
    """The owner asks for evidence of its own; what the handshake was told does not count."""
    consortium = Sealed()
    honest, changed = tee("carol"), tee("carol", OTHER_CODE)

    class Turncoat:
        platform = honest.platform
        shown = 0

        def ask_devices(self, nonce: bytes) -> tuple[()]:
            return ()

        def attest(self, report_data: bytes) -> Any:
            self.shown += 1
            return (honest if self.shown == 1 else changed).attest(report_data)

    consortium.trainers["carol"] = consortium.sealed_trainer("carol", attester=Turncoat())
    consortium.run()
    assert consortium.loaders["carol"].loads == []
    assert "UnapprovedMeasurement:measurement" in consortium.told()
    assert "ReleaseRefused:by-owner" in consortium.told()


def test_an_asset_that_is_no_demo_is_not_released_to_simulated_evidence() -> None:
    consortium = Sealed()
    consortium.brokers["alice"].demo = False
    with pytest.raises(CohortTooSmall):
        consortium.run()
    assert "ReleaseRefused:not-a-demo" in consortium.told()
    assert all(loader.loads == [] for loader in consortium.loaders.values())


def test_a_release_that_is_used_up() -> None:
    assets = [asset("base", "alice", "model", times=1), asset("records", "bob", "dataset", members=["bob"])]
    consortium = Sealed(assets=assets)
    consortium.run()
    with pytest.raises(CohortTooSmall):
        consortium.run(run="run-2")
    assert "ReleaseRefused:used-up" in consortium.told()


def test_a_release_that_has_ended() -> None:
    assets = [
        asset("base", "alice", "model", not_after="2020-01-01"),
        asset("records", "bob", "dataset", members=["bob"]),
    ]
    consortium = Sealed(assets=assets)
    with pytest.raises(CohortTooSmall):
        consortium.run()
    assert "ReleaseRefused:ended" in consortium.told()


def test_an_owner_that_is_away_keeps_its_asset_closed() -> None:
    consortium = Sealed()
    with pytest.raises(CohortTooSmall):
        consortium.run(Relay(request=drop("mail", peers={consortium.node_peer("alice")})))
    assert all(loader.loads == [] for loader in consortium.loaders.values())


def test_an_owner_without_a_broker_keeps_its_asset_closed() -> None:
    consortium = Sealed()
    consortium.nodes["alice"] = consortium.node("alice")
    with pytest.raises(CohortTooSmall):
        consortium.run()
    assert all(loader.loads == [] for loader in consortium.loaders.values())


def test_a_trainer_that_was_restarted_asks_again_and_joins_the_next_round() -> None:
    consortium = Sealed()
    consortium.run(consortium.restarting("carol", consortium.sealed_trainer))
    assert consortium.learners["carol"].rounds == [2, 3]
    assert [m for m, _ in consortium.brokers["alice"].released].count(MemberId("carol")) == 2


def test_a_run_of_another_job_uses_the_other_jobs_model() -> None:
    jobs = [consortia.job(rounds=3), consortia.job(name="second", base_model="other", rounds=3)]
    assets = [
        asset("base", "alice", "model"),
        asset("other", "bob", "model"),
        asset("records", "bob", "dataset", members=["bob"]),
    ]
    consortium = Sealed(jobs=jobs, assets=assets)
    for loader in consortium.loaders.values():
        loader.wanted = KEYS | {"other": b"o" * 32}
    other = Digest.parse(consortia.digest("sealed other")).raw
    consortium.brokers["bob"].keys[other] = b"o" * 32
    consortium.run(job="second")
    assert consortium.brokers["alice"].released == []
    assert all(loader.loads == ["second"] for loader in consortium.loaders.values())
    consortium.run(run="run-2", job="adapter")
    assert all(loader.loads == ["second", "adapter"] for loader in consortium.loaders.values())
