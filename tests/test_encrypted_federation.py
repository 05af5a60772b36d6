"""Runs whose sums are encrypted, of a whole consortium: every handler, channel and message is the product's own."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coordinator import encrypted_round
from coordinator.encrypted_round import EncryptedRounds
from coordinator.flower import GridMailroom
from coordinator.modes import fetch, secure_rounds
from superswarm.errors import CohortTooSmall
from superswarm.updates.adapter import Adapter, AdapterSpec, decode_adapter, encode_adapter
from superswarm.updates.card import WEIGHTS
from superswarm.updates.publish import open_container
from superswarm.updates.secure.he_combine import HeSumRound
from superswarm.updates.secure.he_sum import HeSum
from superswarm.values import Digest, MemberId
from tests import consortia
from tests.grid import Relay, Tamper, Transit, drop, lose_first
from tests.simulator import SimulatedConsortium

FOUR = ("alice", "bob", "carol", "dave")
STEPS = ("he_dealing", "survivors", "he_opened")


class Encrypted(SimulatedConsortium):
    """Four members of whom three suffice, each with a weight of its own; three hold the key."""

    def __init__(self, *names: str, scheme: str = "bfv", key_holders: int = 3, **changes: Any) -> None:
        names = names or FOUR
        threshold = len(names) // 2 + 1
        protection = {
            "mode": "he",
            "encoding": {"payload_bits": 16, "clip_norm": 30.0, "max_weight": 50},
            "homomorphic": {
                "scheme": scheme,
                "key_holders": key_holders,
                "threshold": threshold,
                "colluders": 0,
                "dropouts": len(names) - threshold,
            },
        }
        rule = {"rule": "fedavg", "weighting": "examples", "minimum_cohort": threshold, "round_seconds": 5}
        super().__init__(
            *names,
            protection=protection,
            aggregation=rule | changes.pop("rule", {}),
            result={"recipients": list(names)},
            **changes,
        )

    def run(self, tamper: Tamper | None = None, **arguments: Any) -> Adapter:
        """One whole run; the adapter in the result that alice got."""
        with self.grid(tamper) as grid:
            self.aggregator(GridMailroom(grid), **arguments).run()
        return self.opened("alice")

    def opened(self, name: str) -> Adapter:
        _, container, signer = self.results[name].stored[-1]
        result = open_container(
            io.BytesIO(container), consortia.kem_key(name), MemberId(name), expected_signer=signer
        )
        files = {entry: b"".join(pieces) for entry, _, pieces in result.files}
        return decode_adapter(files[WEIGHTS], self.spec)

    @property
    def spec(self) -> AdapterSpec:
        return self.learners[self.names[0]].spec


def assert_close(adapter: Any, expected: Any) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(adapter[name], value, atol=2e-3)


@pytest.mark.parametrize("given", [{}, {"key_holders": 4}, {"scheme": "ckks"}], ids=["some", "all", "ckks"])
def test_an_encrypted_run_trains_the_same_adapter(given: dict[str, Any]) -> None:
    consortium = Encrypted(**given)
    assert_close(consortium.run(), consortium.expected())
    assert not consortium.diary("aggregator").of("left out")
    assert [learner.rounds for learner in consortium.learners.values()] == [[1, 2, 3]] * 4


@pytest.mark.parametrize("kind", ["fedavgm", "fedyogi"])
def test_trainers_take_the_servers_step_themselves(kind: str) -> None:
    """The aggregator could keep no moments: they are part of what trainers hold."""
    optimizer = {"kind": kind, "learning_rate": 0.1} | ({"momentum": 0.5} if kind == "fedavgm" else {"tau": 0.1})
    rule = {"optimizer": optimizer}
    encrypted = Encrypted(rule=rule)
    attested = {"rule": "fedavg", "weighting": "examples", "minimum_cohort": 3, "round_seconds": 5}
    plain = SimulatedConsortium(*FOUR, aggregation=attested | rule)
    assert_close(encrypted.run(), plain.run())


def test_every_recipient_gets_the_same_result_signed_by_a_trainer() -> None:
    consortium = Encrypted()
    first = consortium.run()
    for name in FOUR:
        for key, value in consortium.opened(name).items():
            assert (value == first[key]).all()
    ((container, signer),) = consortium.published.kept
    assert {stored[-1][1:] for stored in (r.stored for r in consortium.results.values())} == {(container, signer)}
    assert not consortium.published.adapters


@pytest.mark.parametrize("step", ["train", *STEPS])
def test_the_sum_survives_a_member_that_vanishes_at_any_step(step: str) -> None:
    """Dave's trainer is cut off at one step of the first round; at the next it gets the adapter from the others."""
    consortium = Encrypted()
    relay = Relay(request=lose_first(step, peer=consortium.trainer_peer("dave")))
    adapter = consortium.run(relay, join_seconds=5)
    assert [entry["member"] for entry in consortium.diary("aggregator").of("left out")] == ["dave"]
    closed = consortium.diary("aggregator").of("round closed")
    present = 4 if step in ("survivors", "he_opened") else 3
    assert [entry["members"] for entry in closed] == [present, 4, 4, 4]
    assert [entry["to"] for entry in consortium.diary("aggregator").of("handed over")] == [["dave"]]
    if present == 4:
        assert_close(adapter, consortium.expected())


@pytest.mark.parametrize("step", ["he_deal", "he_to_decrypt"])
def test_another_key_holder_takes_over(step: str) -> None:
    consortium = Encrypted()
    adapter = consortium.run(Relay(request=lose_first(step)), join_seconds=5)
    assert len(consortium.diary("aggregator").of("left out")) == 1
    assert [entry["members"] for entry in consortium.diary("aggregator").of("round closed")][1:] == [4, 4, 4]
    if step == "he_to_decrypt":
        assert_close(adapter, consortium.expected())


def test_a_round_with_more_dropouts_than_tolerated_stops_the_run() -> None:
    consortium = Encrypted()
    peers = {consortium.trainer_peer("dave"), consortium.trainer_peer("carol")}
    with pytest.raises(CohortTooSmall):
        consortium.run(Relay(request=drop("he_dealing", peers=peers)))
    assert not consortium.published.kept


def test_an_aggregator_that_was_restarted_continues_where_the_trainers_are() -> None:
    consortium = Encrypted()

    class Crash(Tamper):
        def request(self, transit: Transit) -> list[Transit]:
            if transit.kind == "train" and len(consortium.learners["alice"].rounds) == 2:
                grid.stop_run()
            return [transit]

    with consortium.grid(Crash()) as grid, pytest.raises(Exception, match="stopped"):
        consortium.aggregator(GridMailroom(grid)).run()
    assert_close(consortium.run(attempt=2), consortium.expected())


def test_a_restarted_trainer_gets_the_adapter_from_the_others() -> None:
    consortium = Encrypted()
    consortium.run(consortium.restarting("dave"))
    assert consortium.learners["dave"].rounds == [2, 3]


class TestBrokenAggregator:
    """The aggregator's own program misbehaves; trainers and nodes hold against it."""

    def test_neither_update_nor_sum_nor_adapter_passes_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All that it opens of its channels after the handshake: nothing that a trainer made or holds is among it."""
        from coordinator import admission
        from participants import holding, trainer

        consortium, seen, made = Encrypted(), list[bytes](), list[Adapter]()
        plain, encode = admission.Channel.open, holding.encode_adapter

        def spy(self: Any, parcel: Any, *arguments: Any) -> Any:
            head, body = plain(self, parcel, *arguments)
            if self.me == "aggregator":
                seen.append(head + (body or b""))
            return head, body

        def keep(adapter: Adapter) -> bytes:
            made.append(adapter)
            return encode(adapter)

        def flat(delta: Adapter, spec: AdapterSpec) -> Any:
            made.append(delta)
            return flatten(delta, spec)

        flatten = trainer.flat_vector
        monkeypatch.setattr(admission.Channel, "open", spy)
        monkeypatch.setattr(holding, "encode_adapter", keep)
        monkeypatch.setattr(trainer, "flat_vector", flat)
        consortium.run()
        everything = b"".join(seen)
        assert len(everything) > 3 * 4 * 10_000, "it opened the updates' ciphertexts"
        assert len(made) >= 3 * 4 + 3 * 4, "updates and adapters"
        for values in made:
            assert all(value.tobytes()[:16] not in everything for value in values.values() if value.any())

    def test_it_asks_for_the_adapter(self) -> None:
        consortium = Encrypted()
        with consortium.grid() as grid:
            aggregator = consortium.aggregator(GridMailroom(grid))
            aggregator.cohort.gather(1.0)
            digest = Digest(next(iter(aggregator.cohort.members.values())).prepared.digest)
            with pytest.raises(CohortTooSmall):
                fetch(aggregator.cohort, digest)
        assert "Untrusted" in consortium.diary("trainer/alice").errors

    def test_it_gives_an_adapter_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from coordinator import broadcast

        consortium = Encrypted()
        raw = encode_adapter({name: value + 1 for name, value in consortium.expected(rounds=0).items()})

        def poison(self: Any, _session: Any, _holds: bytes, letters: Any) -> Any:
            key, body = bytes(32), broadcast.seal_broadcast(raw, bytes(32), self._context)
            digest = broadcast.Digest.of(raw).raw
            return broadcast.Order(content_key=key, digest=digest, letters=letters), body

        monkeypatch.setattr(broadcast.Broadcast, "order", poison)
        with pytest.raises(CohortTooSmall):
            consortium.run()
        assert all(not learner.rounds for learner in consortium.learners.values())
        assert "Untrusted" in consortium.diary("trainer/alice").errors

    def test_it_hands_over_an_adapter_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What no trainer of the roster sealed is no adapter, whoever hands it over."""
        consortium = Encrypted()
        honest = EncryptedRounds.hand_over

        def forge(self: Any, digest: Any, having: Any, lacking: Any) -> Any:
            tell = self.secure.tell

            def swap(messages: Any, kind: Any, take: Any) -> None:
                changed = {
                    m: (said, bytes(len(body)) if isinstance(said, encrypted_round.Given) else body)
                    for m, (said, body) in messages.items()
                }
                tell(changed, kind, take)

            self.secure = _Swapping(self.secure, swap)
            try:
                return honest(self, digest, having, lacking)
            finally:
                self.secure = self.secure.inner

        monkeypatch.setattr(EncryptedRounds, "hand_over", forge)
        relay = Relay(request=lose_first("he_opened", peer=consortium.trainer_peer("dave")))
        consortium.run(relay, join_seconds=5)
        assert "CannotOpen" in consortium.diary("trainer/dave").errors

    def test_it_returns_one_update_as_the_sum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        consortium = Encrypted()
        honest = HeSum.write

        def one(self: HeSum, dst: Any) -> None:
            kept, self._first = self._first, self._first.copy()
            self._first[:] = 0
            honest(self, dst)
            self._first = kept

        monkeypatch.setattr(HeSum, "write", one)
        with pytest.raises(CohortTooSmall, match="no key holder is left"):
            consortium.run()
        refused = [name for name in FOUR if consortium.diary(f"trainer/{name}").errors]
        assert len(refused) == 3, "each key holder was asked, and refused"
        assert [learner.rounds for learner in consortium.learners.values()] == [[1]] * 4

    def test_it_gives_trainers_another_sum_than_was_decrypted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        consortium = Encrypted()
        honest = HeSumRound.opened
        monkeypatch.setattr(HeSumRound, "opened", lambda self: (honest(self)[0], bytes(len(honest(self)[1]))))
        with pytest.raises(CohortTooSmall):
            consortium.run()
        assert all("CannotOpen" in consortium.diary(f"trainer/{name}").errors for name in FOUR)

    def test_it_makes_a_result_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It signs a container itself, and shows a trainer's dossier with its own key: no node keeps it."""
        from superswarm.attestation.evidence import SessionKeys
        from superswarm.crypto.hpke import KemKey
        from superswarm.crypto.signing import SigningKey

        mine = SessionKeys(kem=KemKey.generate().public, signing=SigningKey.generate().public)
        consortium = Encrypted()
        honest = EncryptedRounds.publish

        def forge(self: Any, members: Any) -> Any:
            session, container = honest(self, members)
            return replace(session, dossier=replace(session.dossier, keys=mine.to_bytes())), container

        monkeypatch.setattr(EncryptedRounds, "publish", forge)
        with consortium.grid() as grid:
            consortium.aggregator(GridMailroom(grid)).run()
        assert not any(result.stored for result in consortium.results.values())
        assert all("NotVouched" in consortium.diary(f"node/{name}").errors for name in FOUR)

    def test_it_asks_for_the_result_too_early(self) -> None:
        consortium = Encrypted()
        with consortium.grid() as grid:
            aggregator = consortium.aggregator(GridMailroom(grid))
            aggregator.cohort.gather(1.0)
            rounds = EncryptedRounds(secure_rounds(aggregator.cohort), aggregator.cohort.leave_out, print)
            rounds.secure.acquaint()
            with pytest.raises(CohortTooSmall):
                rounds.publish(list(aggregator.cohort.members))
        assert all("Untrusted" in consortium.diary(f"trainer/{name}").errors for name in FOUR)


class _Swapping:
    """The links of an aggregator that changes what it passes on."""

    def __init__(self, inner: Any, tell: Any) -> None:
        self.inner, self.tell, self.cohort = inner, tell, inner.cohort
