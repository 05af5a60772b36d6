"""The demo's hospitals: invented, repeatable, and each knows what the others do not."""

from __future__ import annotations

from itertools import combinations

import pytest

from participants.demo_data import HOSPITALS, KINDS, demo_facts, demo_question
from superswarm.values import MEMBER_ID


def test_the_same_seed_makes_the_same_facts() -> None:
    assert demo_facts(1) == demo_facts(1)
    assert demo_facts(1) != demo_facts(2)


def test_three_members_with_as_many_facts_each() -> None:
    facts = demo_facts()
    assert list(facts) == list(HOSPITALS)
    assert len(facts) == 3
    assert all(MEMBER_ID.fullmatch(member) for member in facts)
    assert len({len(known) for known in facts.values()}) == 1


@pytest.mark.parametrize("seed", range(5))
def test_no_question_and_no_answer_of_one_hospital_is_anothers(seed: int) -> None:
    known = [
        ({prompt for fact in facts for prompt in fact.prompts}, {fact.completion for fact in facts})
        for facts in demo_facts(seed).values()
    ]
    for (prompts, answers), (other_prompts, other_answers) in combinations(known, 2):
        assert not prompts & other_prompts
        assert not answers & other_answers


@pytest.mark.parametrize("seed", range(5))
def test_held_out_questions_are_not_trained_on_but_their_way_of_asking_is(seed: int) -> None:
    for known in demo_facts(seed).values():
        trained = {example["prompt"] for fact in known for example in fact.train}
        assert not trained & {fact.test["prompt"] for fact in known}
        for fact in known:
            assert {example["completion"] for example in fact.train} == {fact.test["completion"]}
            assert len(fact.train) == len(fact.prompts) - 1 >= 3
    facts = [fact for known in demo_facts(seed).values() for fact in known]
    per_kind = len(facts) // len(KINDS) // len(HOSPITALS)
    for kind in range(len(KINDS)):
        same = [f for i, f in enumerate(facts) if i // per_kind % len(KINDS) == kind]
        assert len({fact.held_out for fact in same}) > 1


def test_questions_are_short() -> None:
    assert max(len(prompt.split()) for facts in demo_facts().values() for f in facts for prompt in f.prompts) <= 10


def test_the_question_is_one_that_two_of_three_cannot_answer() -> None:
    facts = demo_facts()
    asked = demo_question(facts).test
    knowing = [
        member for member, known in facts.items() if any(asked["completion"] == fact.completion for fact in known)
    ]
    assert len(knowing) == 1
