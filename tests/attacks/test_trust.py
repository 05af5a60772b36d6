"""Peers that are not what they claim: other code, another member's name, another manifest, epoch, run or nonce."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coordinator.flower import GridMailroom
from superswarm.attestation.evidence import Evidence
from superswarm.attestation.messages import Hello, Shown
from superswarm.consortium.approval import approve
from superswarm.errors import CohortTooSmall, NoGrant, OtherManifest, RefusedByMembers
from superswarm.io.keystore import MemberKeys
from superswarm.values import MemberId
from superswarm.wire import Parcel
from tests import consortia
from tests.grid import InProcessGrid, Relay, Transit
from tests.simulator import NOW, OTHER_CODE, SimulatedConsortium, tee


@pytest.fixture
def consortium() -> SimulatedConsortium:
    clause = {"rule": "fedavg", "weighting": "examples", "minimum_cohort": 2, "round_seconds": 5}
    return SimulatedConsortium(aggregation=clause)


def refused(consortium: SimulatedConsortium, *errors: str, **arguments: object) -> None:
    """Carol's trainer takes no part, and one of these errors says why; alice's and bob's mean comes out."""
    adapter = consortium.run(**arguments)  # type: ignore[arg-type]
    assert consortium.learners["carol"].rounds == []
    for name, value in consortium.expected("alice", "bob").items():
        np.testing.assert_allclose(adapter[name], value, rtol=1e-6, atol=1e-6)
    told = [e for diary in consortium.diaries.values() for e in diary.errors]
    assert set(errors) & set(told), told


def stopped(consortium: SimulatedConsortium, *errors: str, **arguments: object) -> None:
    """No member trains at all."""
    with pytest.raises((CohortTooSmall, RefusedByMembers)):
        consortium.run(**arguments)  # type: ignore[arg-type]
    assert all(learner.rounds == [] for learner in consortium.learners.values())
    told = [e for diary in consortium.diaries.values() for e in diary.errors]
    assert set(errors) & set(told), told


class TestTrainer:
    def test_unapproved_code(self, consortium: SimulatedConsortium) -> None:
        consortium.trainers["carol"] = consortium.trainer("carol", attester=tee("carol", OTHER_CODE))
        refused(consortium, "UnapprovedMeasurement:measurement")

    def test_approved_code_under_another_members_authority(self, consortium: SimulatedConsortium) -> None:
        consortium.trainers["carol"] = consortium.trainer("carol", attester=tee("alice"))
        refused(consortium, "EvidenceRejected:root-untrusted", "EvidenceRejected:authority")

    def test_approved_code_that_claims_a_name_without_that_members_vouch(
        self, consortium: SimulatedConsortium
    ) -> None:
        """An impostor with approved code on an approved machine answers as carol; carol's node does not know it."""
        impostor = consortium.trainer("carol", pairing_key=bytes(32))
        consortium.trainers["carol"] = impostor
        refused(consortium, "NotVouched")

    def test_an_impostor_beside_the_real_trainer_does_not_keep_it_out(self, consortium: SimulatedConsortium) -> None:
        impostor = consortium.trainer("carol", pairing_key=bytes(32), notify=consortium.diary("impostor"))
        with consortium.grid(handlers={10: impostor.handle}) as grid:
            consortium.aggregator(GridMailroom(grid), join_seconds=8).run()
        assert consortium.diary("impostor").of("admitted") == []
        assert len(consortium.learners["carol"].rounds) >= 2

    def test_another_manifest(self, consortium: SimulatedConsortium) -> None:
        other = SimulatedConsortium(metrics={})
        consortium.trainers["carol"] = consortium.trainer("carol", manifest=other.manifest)
        refused(consortium, "OtherManifest")

    def test_an_old_epoch(self, consortium: SimulatedConsortium) -> None:
        """Carol's host keeps its trainer at epoch 1 while the consortium is at epoch 2."""
        old = consortium.trainers["carol"]
        consortium.manifest = next_epoch(consortium)
        consortium.nodes = {name: consortium.node(name) for name in consortium.names}
        consortium.trainers = {name: consortium.trainer(name) for name in consortium.names} | {"carol": old}
        refused(consortium, "OtherManifest")

    def test_stale_evidence(self, consortium: SimulatedConsortium) -> None:
        """The relay shows evidence that carol's trainer gave in an earlier attempt."""
        kept: list[Parcel] = []
        peer = consortium.trainer_peer("carol")

        def record(transit: Transit) -> list[Transit]:
            if transit.kind == "attest" and transit.peer == peer:
                kept.append(transit.parcel)
            return [transit]

        consortium.run(Relay(reply=record))
        consortium.learners["carol"].rounds.clear()

        def play(transit: Transit) -> list[Transit]:
            if transit.kind == "attest" and transit.peer == peer:
                return [replace(transit, parcel=kept[0])]
            return [transit]

        consortium.run(Relay(reply=play), attempt=2)
        assert consortium.learners["carol"].rounds == []
        assert "NotVouched" in consortium.diary("node/carol").errors

    def test_evidence_that_the_relay_altered(self, consortium: SimulatedConsortium) -> None:
        peer = consortium.trainer_peer("carol")

        def edit(transit: Transit) -> list[Transit]:
            if transit.kind != "attest" or transit.peer != peer:
                return [transit]
            shown = Shown.parse(transit.parcel.head)
            evidence = Evidence.parse(shown.evidence)
            quote = bytearray(evidence.quote)
            quote[48 + 136] ^= 1  # MRTD
            altered = replace(shown, evidence=replace(evidence, quote=bytes(quote)).to_bytes())
            return [replace(transit, parcel=Parcel(altered.to_bytes()))]

        refused(consortium, "EvidenceRejected:signature-invalid", tamper=Relay(reply=edit))

    def test_expired_credentials(self, consortium: SimulatedConsortium) -> None:
        """Judged at the members' signed time, whatever the host's clock says."""
        consortium.now = NOW + 40 * 86_400
        stopped(
            consortium,
            "EvidenceRejected:collateral-expired",
            "EvidenceRejected:certificate-expired",
            "EvidenceRejected:crl-stale",
            not_after=NOW + 400 * 86_400,
        )


class TestAggregator:
    def test_unapproved_code(self, consortium: SimulatedConsortium) -> None:
        consortium.aggregator_tee = tee("operator", OTHER_CODE)
        stopped(consortium, "UnapprovedMeasurement:measurement")

    def test_a_members_machine(self, consortium: SimulatedConsortium) -> None:
        consortium.aggregator_tee = tee("alice")
        stopped(consortium, "EvidenceRejected:authority", "EvidenceRejected:root-untrusted")

    def test_two_in_one_run_attempt(self, consortium: SimulatedConsortium) -> None:
        """An operator starts a second aggregator to compare what comes out with other cohorts."""
        consortium.run()
        for learner in consortium.learners.values():
            learner.rounds.clear()
        with pytest.raises(RefusedByMembers, match="SecondAggregator"):
            consortium.run(attempt=1, join_seconds=300)
        assert all(learner.rounds == [] for learner in consortium.learners.values())

    def test_an_earlier_attempt_after_a_later_one(self, consortium: SimulatedConsortium) -> None:
        consortium.run(attempt=2)
        for learner in consortium.learners.values():
            learner.rounds.clear()
        stopped(consortium, "SecondAggregator", attempt=1)

    def test_more_attempts_than_granted(self, consortium: SimulatedConsortium) -> None:
        stopped(consortium, "NoGrant", attempt=9)

    def test_a_grant_that_too_few_signed(self, consortium: SimulatedConsortium) -> None:
        with pytest.raises(NoGrant):
            consortium.run(by=["alice"])

    def test_members_check_the_grant_themselves(self, consortium: SimulatedConsortium) -> None:
        """An aggregator that skips the check and shows a grant of one member."""
        with consortium.grid() as grid:
            aggregator = consortium.aggregator(GridMailroom(grid))
            weak = consortia.signed_grant(consortium.manifest, by=["alice"], rounds=3)
            aggregator.admission.grant_bytes = weak.to_bytes()
            with pytest.raises(RefusedByMembers, match="NoGrant"):
                aggregator.run()
        assert set(consortium.diary("node/bob").errors) == {"NoGrant"}
        assert "NoGrant" in consortium.diary("trainer/bob").errors

    def test_an_expired_grant(self, consortium: SimulatedConsortium) -> None:
        stopped(consortium, "NoGrant", not_after=NOW - 1)

    def test_more_rounds_than_granted(self, consortium: SimulatedConsortium) -> None:
        """The job asks for three rounds, the grant allows one: one is trained."""
        consortium.run(rounds=1)
        assert consortium.learners["alice"].rounds == [1]

    def test_a_trainer_counts_the_rounds_itself(self, consortium: SimulatedConsortium) -> None:
        """An aggregator that would go on cannot: the trainer's channel ends after the granted rounds."""
        with consortium.grid() as grid:
            aggregator = consortium.aggregator(GridMailroom(grid), rounds=1)
            aggregator.cohort.gather(1.0)
            state = aggregator._begin()
            state = aggregator._round(1, state)
            for member in aggregator.cohort.members.values():
                member.session.channel._last_round = 9
            with pytest.raises(CohortTooSmall):
                aggregator._round(2, state)
        assert {"NoGrant"} <= set(consortium.diary("trainer/alice").errors)
        assert consortium.learners["alice"].rounds == [1]

    def test_a_clock_that_is_far_off_is_named(self, consortium: SimulatedConsortium) -> None:
        consortium.nodes["carol"] = consortium.node("carol", now=lambda: NOW + 4_000)
        with pytest.raises(CohortTooSmall, match="the clock of carol is off"):
            consortium.run()


class TestOwner:
    def test_a_node_with_another_key_does_not_start(self, consortium: SimulatedConsortium) -> None:
        with pytest.raises(OtherManifest):
            consortium.node("carol", keys=MemberKeys.generate("carol"))

    def test_a_trainer_of_nobody_does_not_start(self, consortium: SimulatedConsortium) -> None:
        with pytest.raises(OtherManifest):
            consortium.trainer("carol", member=MemberId("mallory"))

    def test_another_protocol_version_is_said_plainly(self, consortium: SimulatedConsortium) -> None:
        def older(transit: Transit) -> list[Transit]:
            if transit.kind != "hello":
                return [transit]
            head = bytearray(Hello.parse(transit.parcel.head).to_bytes())
            head[8 + 9 : 8 + 17] = (2).to_bytes(8, "big")
            return [replace(transit, parcel=Parcel(bytes(head)))]

        stopped(consortium, "VersionMismatch", tamper=Relay(request=older))
        why = consortium.diary("node/alice").of("refused")[0]["why"]
        assert why == "the peer speaks protocol 2, this side 1: upgrade this side"


def next_epoch(consortium: SimulatedConsortium):  # type: ignore[no-untyped-def]
    """Epoch 2: the same consortium with another name."""
    first = consortia.sign_all(consortium.manifest.manifest)
    second = consortia.sign_all(consortia.successor(consortium.manifest, name="Epoch two"), consortium.manifest)
    return approve([first, second])


def test_grid_is_the_real_mailroom(consortium: SimulatedConsortium) -> None:
    with consortium.grid() as grid:
        assert isinstance(grid, InProcessGrid)
        assert GridMailroom(grid).peers() == {1, 2, 3, 11, 12, 13}
