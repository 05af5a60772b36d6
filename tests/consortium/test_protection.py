"""A mode of protection is refused where it would hide nothing, break, or be asked for what it cannot do."""

from __future__ import annotations

from typing import Any

import pytest

from superswarm.consortium.manifest import Manifest
from superswarm.errors import Malformed
from tests import consortia

ENCODING = {"clip_norm": 1.0, "max_weight": 1000}


def masked(n: int = 5, **changes: Any) -> Manifest:
    masking = {"threshold": 4, "colluders": 1, "dropouts": 1} | changes.pop("masking", {})
    rule = {"rule": "fedavg", "weighting": "examples", "minimum_cohort": 4, "round_seconds": 60}
    rule |= changes.pop("aggregation", {})
    protection = {"mode": "masked", "encoding": ENCODING, "masking": masking} | changes.pop("protection", {})
    members = [consortia.member(f"m{i}", consortia.DATA) for i in range(n)]
    return consortia.manifest(*members, protection=protection, aggregation=rule, **changes)


def refused(match: str, n: int = 5, **changes: Any) -> None:
    with pytest.raises(Malformed, match=match):
        masked(n, **changes)


def test_a_masked_manifest_that_holds_together_is_taken() -> None:
    assert masked().protection.masking is not None


def test_it_survives_toml_and_canonical_json() -> None:
    manifest = masked()
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_one_data_owner_is_told_to_choose_attested() -> None:
    refused("choose attested", 1, masking={"threshold": 1, "colluders": 0, "dropouts": 0})


def test_too_many_colluders_leave_nobody_to_hide_behind() -> None:
    refused("hide behind each other", 3, masking={"threshold": 3, "colluders": 2, "dropouts": 0})


@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_a_threshold_that_two_sets_could_reach_is_refused(threshold: int) -> None:
    refused("raise it to 4", masking={"threshold": threshold}, aggregation={"minimum_cohort": 4})


def test_a_threshold_over_the_cohort_is_refused() -> None:
    refused("only 5 members", masking={"threshold": 6, "dropouts": 0})


def test_more_dropouts_than_the_threshold_leaves_are_refused() -> None:
    refused("no more than 1 may vanish", masking={"dropouts": 2})


@pytest.mark.parametrize("least", [2, 3, 5])
def test_a_minimum_cohort_that_contradicts_the_threshold_or_dropouts_is_refused(least: int) -> None:
    refused("from 4, the threshold, to 4", aggregation={"minimum_cohort": least})


def test_a_cohort_of_one_is_refused() -> None:
    refused("hides nothing", aggregation={"minimum_cohort": 1})


def test_weights_that_nobody_may_have_are_refused() -> None:
    refused("max_weight is 1", protection={"encoding": {"clip_norm": 1.0}})


def test_each_fault_has_a_line_and_what_follows_from_it_has_none() -> None:
    alone = {"threshold": 1, "colluders": 0, "dropouts": 0}
    with pytest.raises(Malformed) as caught:
        masked(1, masking=alone, aggregation={"minimum_cohort": 1, "weighting": "equal"})
    assert str(caught.value).count("\n  manifest: protection.mode is masked, which hides nothing") == 1
    assert "colluders" not in str(caught.value)


def test_equal_weights_have_no_largest_weight() -> None:
    refused("with equal weights it is 1", aggregation={"weighting": "equal"})


@pytest.mark.parametrize(
    ("protection", "match"),
    [
        ({"mode": "attested"}, "only for modes that sum integers"),
        ({"encoding": None}, "encoding is missing"),
        ({"masking": None}, "masking is missing"),
        ({"mode": "he"}, "masking is only for the mode masked: leave it out"),
        ({"encoding": ENCODING | {"clip_norm": 0.0}}, "clip_norm"),
        ({"encoding": ENCODING | {"clip_norm": float("inf")}}, "clip_norm"),
        ({"encoding": ENCODING | {"payload_bits": 7}}, "payload_bits"),
        ({"encoding": ENCODING | {"max_weight": 0}}, "max_weight"),
        ({"encoding": ENCODING | {"saturate": True}}, "saturate"),
    ],
)
def test_clauses_that_do_not_go_together_are_refused(protection: dict[str, Any], match: str) -> None:
    refused(match, protection=protection)
