"""Rounds of encrypted sums in memory: members vanish, and whoever is left gets the exact sum."""

from __future__ import annotations

import numpy as np
import pytest

from superswarm.errors import CohortTooSmall, Malformed
from superswarm.updates.secure.he_keys import limb_bits
from superswarm.updates.secure.ring import Ring
from tests.hesums import STEPS, HeMembers, HePlay, manifest
from tests.securesums import MOST
from tests.securesums import manifest as masked_manifest

FIVE = HeMembers(manifest(5))
ALL = HeMembers(manifest(5, holders=5))
CKKS = HeMembers(manifest(5, scheme="ckks"))
numbers = iter(range(1, 10**6))


@pytest.mark.parametrize("members", [FIVE, ALL, CKKS], ids=["some hold the key", "all hold it", "ckks"])
def test_everybody_gets_the_same_exact_sum(members: HeMembers) -> None:
    play = HePlay(members, round_=next(numbers)).run()
    assert set(play.sums) == set(members.names)
    play.check()
    exact = sum(members.contribution(name, play.number).values.astype(np.int64) for name in members.names)
    weight = sum(members.weight(name) for name in members.names)
    plan = members.plan(play.number)
    decoded = plan.code.decode(exact.astype(plan.code.ring.dtype), 5, weight / MOST)
    assert (play.sums[members.names[0]].mean == decoded).all()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("who", [0, 1, 4])
def test_whoever_vanishes_at_whatever_step(step: str, who: int) -> None:
    play = HePlay(FIVE, gone={FIVE.names[who]: step}, round_=next(numbers)).run()
    play.check()
    assert (FIVE.names[who] in play.aggregator.survivors) == (step in ("sign", "decrypt", "take"))


@pytest.mark.parametrize("left", [0, 1, 2])
def test_any_surviving_key_holder_decrypts(left: int) -> None:
    holders = FIVE.plan().holders
    gone = {name: "decrypt" for name in holders if name != holders[left]}
    play = HePlay(FIVE, gone=gone, round_=next(numbers)).run()
    assert play.aggregator.opened()[0].holder == holders[left]
    play.check()


def test_no_sum_without_a_key_holder() -> None:
    with pytest.raises(CohortTooSmall, match="no key holder"):
        HePlay(FIVE, gone=dict.fromkeys(FIVE.plan().holders, "decrypt"), round_=next(numbers)).run()


def test_no_sum_of_too_few() -> None:
    with pytest.raises(CohortTooSmall):
        HePlay(FIVE, gone=dict.fromkeys(FIVE.names[2:], "encrypt"), round_=next(numbers)).run()


def test_no_sum_without_enough_signatures() -> None:
    with pytest.raises(CohortTooSmall, match="witnesses signed"):
        HePlay(FIVE, gone=dict.fromkeys(FIVE.names[2:], "sign"), round_=next(numbers)).run()


def test_weights_travel_in_limbs() -> None:
    plan = FIVE.plan()
    values = np.arange(plan.code.length).astype(plan.code.ring.dtype)
    for weight in (1, MOST):
        found, back = plan.part(plan.join(values, weight))
        assert back == weight
        assert (found == values).all()
    assert limb_bits(Ring(16, 10)) == 12


def test_a_manifest_says_who_holds_keys() -> None:
    assert manifest(5).manifest.protection.agreement is not None
    for wrong, said in (
        ({"holders": 2}, "key_holders"),
        ({"holders": 6}, "only 5 members"),
        ({"holders": 3, "dropouts": 3, "threshold": 2}, "nobody can decrypt; lower it"),
    ):
        with pytest.raises(Malformed, match=said):
            manifest(5, **wrong)  # type: ignore[arg-type]
    assert masked_manifest(5, 4, 2, 1).manifest.protection.homomorphic is None
