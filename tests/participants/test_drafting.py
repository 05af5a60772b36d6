"""Templates and drafts: comments survive, nothing is filled in silently, and what is open is named."""

from __future__ import annotations

import tomllib
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from participants import drafting
from participants.remarks import tolerated
from participants.templates import PLACEHOLDER, Attestation, Scenario, template
from superswarm.consortium.manifest import Manifest, Member
from superswarm.errors import Malformed, Misconfigured
from tests.consortia import digest, manifest, manifest_data, measurement, member, quorums

IDENTITY = "0123456789abcdef" * 2
CASES = [(scenario, attestation) for scenario in get_args(Scenario) for attestation in get_args(Attestation)]


def card(name: str, *contributes: str, simulated: bool = True) -> Member:
    return Member.from_data(member(name, *contributes, simulated=simulated))


def filled(scenario: Scenario, attestation: Attestation) -> str:
    """A template as `manifest draft` fills it in."""
    simulated = attestation == "simulated"
    names = {"solo": ["team"], "duo": ["owner", "clinic"], "consortium": ["north", "south", "west"]}[scenario]
    cards = [card(name, "model" if name == "owner" else "data", simulated=simulated) for name in names]
    text = drafting.set_members(template(scenario, attestation, IDENTITY), cards)
    values: dict[tuple[str, str], Any] = {
        ("", "name"): "Clinics",
        ("coordinator", "name"): "Operator",
        ("workloads.trainer", "measurements"): [measurement("code")],
        ("workloads.aggregator", "measurements"): [measurement("code")],
        ("assets", "digest"): digest("base"),
        ("assets", "source"): "hub/base",
        ("assets", "owner"): names[0] if scenario == "duo" else "public",
        ("result", "recipients"): names,
    }
    if simulated:
        values[("coordinator", "development_authority")] = digest("operator")
    else:
        for role in ("trainer", "aggregator"):
            values[(f"workloads.{role}.policy.tdx", "minimum_evaluation_number")] = 17
            for register in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"):
                values[(f"workloads.{role}.policy.tdx.images", register)] = "0" * 96
    return drafting.fill(text, values)


@pytest.mark.parametrize(("scenario", "attestation"), CASES)
def test_a_filled_in_template_is_a_valid_manifest(scenario: Scenario, attestation: Attestation) -> None:
    read = drafting.read_toml(filled(scenario, attestation))
    assert read.simulated == (attestation == "simulated")
    assert len(read.members) == {"solo": 1, "duo": 2, "consortium": 3}[scenario]


@pytest.mark.parametrize(("scenario", "attestation"), CASES)
def test_a_template_says_all_that_is_missing(scenario: Scenario, attestation: Attestation) -> None:
    text = template(scenario, attestation, IDENTITY)
    with pytest.raises(Malformed) as caught:
        drafting.read_toml(text)
    says = str(caught.value)
    for where in (
        "name",
        "members 1.id",
        "members 1.signing_key",
        "workloads.trainer.measurements",
        "assets 1.digest",
    ):
        assert f"  {where}: " in says
    assert len(says.splitlines()) == 1 + text.count(f'"{PLACEHOLDER}')


@pytest.mark.parametrize(("scenario", "attestation"), CASES)
def test_every_line_of_a_template_is_explained(scenario: Scenario, attestation: Attestation) -> None:
    text = template(scenario, attestation, IDENTITY)
    assert max(map(len, text.splitlines())) < 140
    assert text.count("#") > 60
    assert set(tomllib.loads(text)) == set(Manifest.model_fields) - {"predecessor"}


def test_one_open_value_is_refused_by_its_name() -> None:
    text = filled("duo", "simulated").replace('"owner"\nname = ', f'"{PLACEHOLDER}id"\nname = ')
    with pytest.raises(Malformed, match=r"members 1\.id: id"):
        drafting.read_toml(text)


def test_filling_in_keeps_comments_and_everything_else() -> None:
    text = template("consortium", "simulated", IDENTITY)
    result = drafting.fill(text, {("jobs", "rounds"): 7, ("aggregation", "minimum_cohort"): 3})
    changed = [(old, new) for old, new in zip(text.splitlines(), result.splitlines(), strict=True) if old != new]
    assert [new for _, new in changed] == [
        "rounds = 7  # aggregations",
        "minimum_cohort = 3  # members whose updates a round needs: in a smaller one, each update shows more",
    ]


def test_what_is_written_in_another_way_is_not_filled_in_wrongly() -> None:
    text = '[result]\nrecipients = [\n  "a",\n]\n'
    with pytest.raises(Misconfigured, match=r"result\.recipients is not on one line"):
        drafting.fill(text, {("result", "recipients"): ["b"]})
    with pytest.raises(Misconfigured, match=r"jobs\.rounds"):
        drafting.fill(text, {("jobs", "rounds"): 1})


def test_a_name_cannot_smuggle_in_settings() -> None:
    text = drafting.fill(template("solo", "simulated", IDENTITY), {("", "name"): 'x"\nepoch = 9 # '})
    assert tomllib.loads(text)["name"] == 'x"\nepoch = 9 # '
    assert tomllib.loads(text)["epoch"] == 1


def test_members_arrive_one_after_the_other() -> None:
    text = template("consortium", "simulated", IDENTITY)
    for names in (["north"], ["south", "north"], ["west", "east"]):
        text = drafting.set_members(text, [card(name, "data") for name in names])
    data = tomllib.loads(text)
    assert sorted(m["id"] for m in data["members"]) == ["east", "north", "south", "west"]
    assert not list(drafting.open_places(data["members"]))
    assert "# --- Coordinator ---" in text
    text, notes = drafting.fit_quorums(text)
    assert tomllib.loads(text)["quorum"] == quorums(3)
    assert len(notes) == 13


def test_a_table_that_is_still_open_is_never_dropped() -> None:
    text = drafting.set_members(template("consortium", "simulated", IDENTITY), [card("north", "data")])
    assert len(tomllib.loads(text)["members"]) == 3
    assert any(where.startswith("members 2") for where, _ in drafting.open_places(tomllib.loads(text)))


def test_a_members_file_is_one_table() -> None:
    north = card("north", "data")
    text = drafting.member_toml(north)
    assert drafting.read_card(text.encode()) == north
    for wrong in (text + "\n" + text, text + "\n[quorum]\nrun = 1\n", "", "x = 1", text.replace("data", "all")):
        with pytest.raises(Malformed):
            drafting.read_card(wrong.encode())


PRINTABLE = st.text(min_size=1, max_size=40).filter(str.isprintable)


@settings(max_examples=150)
@given(name=PRINTABLE, source=PRINTABLE, alpha=st.floats(1e-9, 65_536), seed=st.integers(0, 2**53 - 1))
def test_toml_and_back(name: str, source: str, alpha: float, seed: int) -> None:
    data = manifest_data(name=name)
    data["assets"][0]["source"] = source
    data["jobs"][0] |= {"seed": seed, "lora": data["jobs"][0]["lora"] | {"alpha": alpha}}
    data["aggregation"]["optimizer"] = {"kind": "fedadam", "learning_rate": alpha / 65_536, "tau": 0.001}
    original = Manifest.from_data(data)
    assert Manifest.from_toml(drafting.to_toml(original.to_data())) == original


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rule": "median"}, ["1 of a round's 4 members may send anything, and 2 together", "one member's own"]),
        ({"rule": "trimmed-mean", "byzantine": 1}, ["1 of a round's 4 members"]),
        (
            {"rule": "multi-krum", "byzantine": 1, "selected": 1, "minimum_cohort": 5},
            ["selected is 1", "of a round's 5"],
        ),
        ({"rule": "norm-bound", "max_norm": 2.5}, ["its share of the weight times 2.5"]),
        (
            {"rule": "norm-bound", "max_norm_ratio": 2.0, "weighting": "examples"},
            ["2.0 times the median norm", "that share grows with the examples"],
        ),
    ],
    ids=str,
)
def test_what_a_rule_tolerates_is_said(settings: dict[str, Any], said: list[str]) -> None:
    members = [member(f"m{i}", "data") for i in range(5)]
    clause = {"weighting": "equal", "minimum_cohort": 4, "round_seconds": 60}
    text = "\n".join(tolerated(manifest(*members, aggregation=clause | settings)))
    assert all(words in text for words in said)
    assert "fedavg" not in text


def masked(n: int, colluders: int, dropouts: int) -> str:
    threshold = (n + colluders) // 2 + 1
    members = [member(f"m{i}", "data") for i in range(n)]
    protection = {
        "mode": "masked",
        "encoding": {"clip_norm": 1.0, "max_weight": 100},
        "masking": {"threshold": threshold, "colluders": colluders, "dropouts": dropouts},
    }
    rule = {"rule": "fedavg", "weighting": "examples", "minimum_cohort": threshold, "round_seconds": 60}
    return "\n".join(tolerated(manifest(*members, protection=protection, aggregation=rule)))


def test_what_masked_sums_tolerate_is_said() -> None:
    few = masked(5, 1, 1)
    assert "a broken aggregator together with 1 member learns nothing but the sum of 3 others at least" in few
    assert "up to 1 of 5 members may vanish" in few
    assert "neighbours" not in few
    many = masked(40, 4, 4)
    assert "40 members mask with 32 neighbours each" in many
    assert "at most 2^-" in many


def encrypted(n: int, key_holders: int, threshold: int, colluders: int, dropouts: int) -> str:
    """What `manifest check` says of encrypted sums among n members."""
    members = [member(f"m{i}", "data") for i in range(n)]
    agreed = {"key_holders": key_holders, "threshold": threshold, "colluders": colluders, "dropouts": dropouts}
    protection = {"mode": "he", "encoding": {"clip_norm": 1.0, "max_weight": 100}, "homomorphic": agreed}
    rule = {"rule": "fedavg", "weighting": "examples", "minimum_cohort": threshold, "round_seconds": 60}
    return "\n".join(tolerated(manifest(*members, protection=protection, aggregation=rule)))


def test_what_encrypted_sums_tolerate_is_said() -> None:
    text = encrypted(5, key_holders=3, threshold=3, colluders=0, dropouts=2)
    assert "the trainers of 3 of 5 members hold the key" in text
    assert "up to 2 of 5 members may vanish" in text
    assert "attested" not in text


def test_no_more_key_holders_are_said_than_there_can_be() -> None:
    text = encrypted(50, key_holders=50, threshold=28, colluders=5, dropouts=5)
    assert "no more than the 32 witnesses hold the key" in text
    assert "the trainers of 32 of 50 members hold the key" in text


def test_what_is_tolerated_is_said() -> None:
    plain = "\n".join(tolerated(manifest()))
    for word in ("SIMULATED", "attested", "privacy is none", "minimum_cohort is 1", "2 of 3 members can start runs"):
        assert word in plain
    shared = manifest(result={"recipients": ["alice"], "approvals": 2})
    assert "2 of alice, bob, carol release the result" in "\n".join(tolerated(shared))
    leaky = manifest(metrics={"release": ["examples"], "granularity": "member", "to": ["operator"]})
    assert "examples of single members are shown to operator" in "\n".join(tolerated(leaky))
    assert "operator sees" not in plain
    assert "rule is fedavg: one member" in plain
    real = "\n".join(tolerated(drafting.read_toml(filled("duo", "real"))))
    assert "the trainer's policy says tdx.platforms = any" in real
    assert "SIMULATED" not in real
