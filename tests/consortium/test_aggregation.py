"""What the manifest check says of rules and optimisers: the reason, and what to choose instead."""

from __future__ import annotations

from typing import Any

import pytest

from superswarm.consortium.manifest import Manifest
from superswarm.errors import Malformed
from tests import consortia

MEMBERS = [consortia.member(f"m{i}", consortia.DATA) for i in range(9)]


def manifest(**settings: Any) -> Manifest:
    clause = {"rule": "fedavg", "weighting": "equal", "minimum_cohort": 9, "round_seconds": 60}
    return consortia.manifest(*MEMBERS, aggregation=clause | settings)


SOUND: list[dict[str, Any]] = [
    {"rule": "fedavg"},
    {"rule": "fedavg", "weighting": "examples"},
    {"rule": "norm-bound", "max_norm": 1.5},
    {"rule": "norm-bound", "max_norm": 2, "weighting": "examples", "minimum_cohort": 1},
    {"rule": "norm-bound", "max_norm_ratio": 2.0, "minimum_cohort": 3},
    {"rule": "median", "minimum_cohort": 3},
    {"rule": "trimmed-mean", "byzantine": 4},
    {"rule": "trimmed-mean", "byzantine": 1, "minimum_cohort": 3},
    {"rule": "multi-krum", "byzantine": 3, "selected": 4},
    {"rule": "multi-krum", "byzantine": 1, "selected": 2, "minimum_cohort": 5},
    {"optimizer": {"kind": "fedavgm", "learning_rate": 1, "momentum": 0.9}},
    {"optimizer": {"kind": "nesterov", "learning_rate": 0.7, "momentum": 0.9}},
    {"optimizer": {"kind": "fedadam", "learning_rate": 0.01}},
    {"rule": "median", "optimizer": {"kind": "fedyogi", "learning_rate": 0.01, "beta1": 0.0, "tau": 1e-3}},
]


@pytest.mark.parametrize("settings", SOUND, ids=str)
def test_what_is_sound_is_taken_and_signed_as_it_is(settings: dict[str, Any]) -> None:
    agreed = manifest(**settings)
    assert Manifest.from_json(agreed.to_json()) == agreed


UNSOUND: list[tuple[dict[str, Any], str, str]] = [
    ({"rule": "median", "weighting": "examples"}, "claims the most examples", 'weighting = "equal"'),
    ({"rule": "trimmed-mean", "byzantine": 1, "weighting": "examples"}, "counts each member once", "norm-bound"),
    ({"rule": "multi-krum", "byzantine": 1, "selected": 1, "weighting": "examples"}, "counts each", "equal"),
    ({"rule": "median", "minimum_cohort": 2}, "needs at least 3: the median of two is their mean", "norm-bound"),
    ({"rule": "trimmed-mean"}, "needs aggregation.byzantine", ""),
    ({"rule": "trimmed-mean", "byzantine": 5}, "needs at least 11", "byzantine = 4, or median, which tolerates 4"),
    ({"rule": "trimmed-mean", "byzantine": 1, "minimum_cohort": 2}, "needs at least 3", "norm-bound with max_norm"),
    ({"rule": "multi-krum", "byzantine": 1}, "needs aggregation.selected", ""),
    ({"rule": "multi-krum", "selected": 1}, "needs aggregation.byzantine", ""),
    (
        {"rule": "multi-krum", "byzantine": 4, "selected": 1},
        "needs at least 11: Multi-Krum tolerates f of n only if n is at least 2f + 3",
        "byzantine = 3, or median, which tolerates 4",
    ),
    ({"rule": "multi-krum", "byzantine": 1, "selected": 1, "minimum_cohort": 4}, "at least 5", "choose median"),
    ({"rule": "multi-krum", "byzantine": 3, "selected": 5}, "may average at most 4", "lower it"),
    ({"rule": "norm-bound"}, "either aggregation.max_norm or aggregation.max_norm_ratio", ""),
    ({"rule": "norm-bound", "max_norm": 1.0, "max_norm_ratio": 2.0}, "and not both", ""),
    ({"rule": "norm-bound", "max_norm_ratio": 2.0, "minimum_cohort": 2}, "moves the median norm", "max_norm"),
    ({"byzantine": 1}, "aggregation.byzantine means nothing to fedavg", "trimmed-mean or multi-krum"),
    ({"rule": "median", "max_norm": 1.0}, "aggregation.max_norm means nothing to median", "norm-bound"),
    ({"rule": "trimmed-mean", "byzantine": 1, "selected": 1}, "aggregation.selected means nothing", "multi-krum"),
]


@pytest.mark.parametrize(("settings", "reason", "instead"), UNSOUND, ids=str)
def test_what_cannot_hold_is_refused_with_the_reason_and_a_way_out(
    settings: dict[str, Any], reason: str, instead: str
) -> None:
    with pytest.raises(Malformed) as caught:
        manifest(**settings)
    said = str(caught.value)
    assert reason in said
    assert instead in said.split(reason, 1)[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"rule": "krum"},
        {"rule": "norm-bound", "max_norm": 0.0},
        {"rule": "norm-bound", "max_norm": -1.0},
        {"rule": "norm-bound", "max_norm": float("nan")},
        {"rule": "norm-bound", "max_norm": float("inf")},
        {"rule": "norm-bound", "max_norm_ratio": 0.5},
        {"rule": "trimmed-mean", "byzantine": 0},
        {"rule": "trimmed-mean", "byzantine": 0.1},
        {"optimizer": {"kind": "adamw", "learning_rate": 0.1}},
        {"optimizer": {"learning_rate": 0.1}},
        {"optimizer": {"kind": "fedavgm", "learning_rate": 0.1}},
        {"optimizer": {"kind": "fedavgm", "learning_rate": 0.1, "momentum": 1.0}},
        {"optimizer": {"kind": "fedavgm", "learning_rate": 0.1, "momentum": 0.9, "tau": 0.1}},
        {"optimizer": {"kind": "fedadam", "learning_rate": 0.1, "momentum": 0.9}},
        {"optimizer": {"kind": "fedadam", "learning_rate": 0.1, "tau": 0.0}},
        {"optimizer": {"kind": "fedyogi", "learning_rate": 0.0}},
    ],
    ids=str,
)
def test_values_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        manifest(**settings)


def test_a_round_larger_than_the_smallest_is_sound_too() -> None:
    """Members may only be missing down to the minimum cohort, so the check there covers all rounds."""
    with pytest.raises(Malformed, match="over the 9 members"):
        manifest(rule="trimmed-mean", byzantine=4, minimum_cohort=10)


@pytest.mark.parametrize(
    ("settings", "linear", "stateful", "tolerates"),
    [
        ({}, True, False, 0),
        ({"rule": "norm-bound", "max_norm": 1.0}, False, False, 0),
        ({"rule": "median"}, False, False, 4),
        ({"rule": "median", "minimum_cohort": 4}, False, False, 1),
        ({"rule": "trimmed-mean", "byzantine": 2}, False, False, 2),
        ({"rule": "multi-krum", "byzantine": 3, "selected": 1}, False, False, 3),
        ({"optimizer": {"kind": "fedadam", "learning_rate": 0.1}}, True, True, 0),
    ],
)
def test_what_protection_modes_ask_of_a_rule(
    settings: dict[str, Any], linear: bool, stateful: bool, tolerates: int
) -> None:
    clause = manifest(**settings).aggregation
    assert (clause.linear, clause.stateful, clause.tolerates) == (linear, stateful, tolerates)


@pytest.mark.parametrize("mu", [-0.1, float("nan"), 1e9])
def test_a_proximal_term_that_cannot_be(mu: float) -> None:
    job = consortia.job()
    with pytest.raises(Malformed):
        consortia.manifest(jobs=[job | {"training": job["training"] | {"proximal_mu": mu}}])
