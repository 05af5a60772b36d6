"""Rounds of masked sums: whoever vanishes, at whatever step, the sum is that of the survivors, to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superswarm.consortium.protection import Masking
from superswarm.errors import CohortTooSmall, Malformed
from superswarm.updates.secure.graph import COMPLETE_UP_TO, EXPOSURE, FAILURE, Graph, plan
from superswarm.updates.secure.total import check_total
from superswarm.values import Digest, MemberId
from tests.securesums import MOST, Members, Play, manifest

STEPS = ("advertise", "share", "mask", "sign", "unmask")
SEVEN = Members(manifest(7, 5, 2, 2))
rounds = iter(range(1, 10**6))  # a round is begun once under a roster


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.integers(0, 6), st.sampled_from(STEPS), max_size=2))
def test_the_sum_is_exact_whoever_vanishes_at_whatever_step(gone: dict[int, str]) -> None:
    number = next(rounds)
    play = Play(SEVEN, gone={SEVEN.names[i]: step for i, step in gone.items()}, round_=number)
    total, found = play.run()
    survivors = {name for name in SEVEN.names if play.gone.get(name) not in ("advertise", "share", "mask")}
    assert play.aggregator.survivors == survivors
    assert found.to_bytes() == SEVEN.expected(survivors, number).to_bytes()
    for name in SEVEN.names:  # those that vanished too, once they are back
        checked = check_total(
            SEVEN.standings[name],
            total,
            found.to_bytes(),
            context=SEVEN.context(number),
            code=SEVEN.code(number),
            most=MOST,
        )
        assert checked.survivors == survivors
    wanted = SEVEN.mean(survivors, number)
    assert np.linalg.norm(checked.mean - wanted) < 0.05 * np.linalg.norm(wanted)


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.integers(0, 6), st.sampled_from(STEPS), min_size=3))
def test_more_than_the_tolerated_dropouts_give_no_sum_at_all(gone: dict[int, str]) -> None:
    play = Play(SEVEN, gone={SEVEN.names[i]: step for i, step in gone.items()}, round_=next(rounds))
    with pytest.raises(CohortTooSmall):
        play.run()


def test_all_trainers_compute_the_same_bytes() -> None:
    number = next(rounds)
    total, found = Play(SEVEN, round_=number).run()
    code = SEVEN.code(number)
    means = {
        check_total(s, total, found.to_bytes(), context=SEVEN.context(number), code=code, most=MOST).mean.tobytes()
        for s in SEVEN.standings.values()
    }
    assert len(means) == 1


def test_rounds_follow_each_other_under_one_roster() -> None:
    for number in (next(rounds), next(rounds)):
        _, found = Play(SEVEN, round_=number).run()
        assert found.to_bytes() == SEVEN.expected(SEVEN.names, number).to_bytes()


@pytest.fixture(scope="module")
def forty() -> Members:
    return Members(manifest(40, 24, 4, 4))


def test_a_large_cohort_masks_with_neighbours_only(forty: Members) -> None:
    graph = forty.terms.graph
    assert not graph.plan.complete
    gone = dict(zip(forty.names[::9], ("share", "mask", "sign", "unmask"), strict=False))
    play = Play(forty, gone=gone, round_=1)
    total, found = play.run()
    survivors = set(forty.names) - {forty.names[0], forty.names[9]}
    assert found.to_bytes() == forty.expected(survivors).to_bytes()
    checked = check_total(
        forty.standings[forty.names[0]],
        total,
        found.to_bytes(),
        context=forty.context(),
        code=forty.code(),
        most=MOST,
    )
    assert checked.survivors == survivors


def test_wrong_shares_of_one_holder_do_not_end_a_large_cohorts_round(forty: Members) -> None:
    """The liar answers first, so that trying sets of shares in order would never leave its own out."""
    liar = min(forty.names)

    def lie(step: str, name: MemberId, answer: Any) -> Any:
        if step != "unmask" or name != liar:
            return answer
        return replace(answer, shares=tuple(bytes(65) + b"\1" for _ in answer.shares))

    _, found = Play(forty, answers=lie, round_=2).run()
    assert found.to_bytes() == forty.expected(forty.names, 2).to_bytes()


class TestGraph:
    """Harary's graph on a random circle, and what its bounds promise."""

    def names(self, n: int) -> list[MemberId]:
        return [MemberId(f"m{i}") for i in range(n)]

    def masking(self, n: int, colluders: int, dropouts: int) -> Masking:
        return Masking(threshold=(n + colluders) // 2 + 1, colluders=colluders, dropouts=dropouts)

    def test_up_to_32_members_mask_with_everybody(self) -> None:
        found = plan(COMPLETE_UP_TO, self.masking(COMPLETE_UP_TO, 3, 3))
        assert (found.degree, found.threshold, found.exposure) == (31, 18, 0.0)
        assert (found.witnesses, found.signatures) == (32, 18)

    @pytest.mark.parametrize(("n", "colluders", "dropouts"), [(100, 10, 10), (1000, 50, 50), (1000, 200, 50)])
    def test_larger_cohorts_have_few_neighbours_within_the_bounds(
        self, n: int, colluders: int, dropouts: int
    ) -> None:
        found = plan(n, self.masking(n, colluders, dropouts))
        assert found.degree < n // 2 or n < 200
        assert found.exposure <= EXPOSURE
        assert found.failure <= FAILURE
        assert 2 * found.threshold > found.degree + 2
        assert 2 * found.signatures > found.witnesses + 1

    @pytest.mark.parametrize(("n", "colluders"), [(64, 6), (100, 10), (1000, 50), (1000, 200)])
    def test_drawing_the_circle_again_and_again_exposes_nobody(self, n: int, colluders: int) -> None:
        """An aggregator draws anew with each roster's number that it tries, offline: here it can afford 2**60."""
        assert 2.0**60 * plan(n, self.masking(n, colluders, colluders)).exposure <= 2.0**-40

    def test_all_colluders_in_one_neighbourhood_were_counted(self) -> None:
        """With no more colluders than any neighbourhood withstands, nothing is left to chance."""
        found = plan(100, self.masking(100, 10, 10))
        assert 2 * found.threshold > found.degree + 1 + 10
        assert found.threshold > found.degree // 2 + 1 + 10
        assert 2 * found.signatures > found.witnesses + 10
        assert found.exposure == 0.0

    def test_the_tail_is_the_hypergeometric_one(self) -> None:
        """Against an enumeration: of 12 places 4 are marked, 6 are drawn; more than 2 marked among them."""
        from itertools import combinations

        from superswarm.updates.secure.graph import _tail

        draws = list(combinations(range(12), 6))
        share = sum(len({0, 1, 2, 3} & set(draw)) > 2 for draw in draws) / len(draws)
        assert _tail(12, 4, 6, 2) == pytest.approx(share)

    def test_neighbours_are_mutual_and_as_many_as_planned(self) -> None:
        names = self.names(50)
        found = plan(50, self.masking(50, 5, 5))
        graph = Graph(names, found, Digest.of(b"roster"))
        for name in names:
            near = graph.neighbours(name)
            assert len(set(near)) == found.degree
            assert name not in near
            assert all(name in graph.neighbours(other) for other in near)
        assert len(graph.witnesses) == found.witnesses

    def test_the_circle_follows_from_the_roster(self) -> None:
        names, found = self.names(50), plan(50, self.masking(50, 5, 5))
        first, second = (Graph(names, found, Digest.of(seed)).circle for seed in (b"one", b"two"))
        assert first != second
        assert sorted(first) == sorted(second)

    def test_a_cohort_below_its_threshold_has_no_plan(self) -> None:
        with pytest.raises(Malformed):
            plan(3, self.masking(7, 0, 0))
