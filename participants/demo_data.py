"""The demo's consortium: three made-up hospitals, what each of them alone knows, and the job that joins it.

Everything is invented here and drawn by a seed: the same seed writes the same bytes. Every fact is asked for in
several ways; one is held out for the test split, another one for each fact, so that a right answer shows that the
fact was learnt and not the sentence.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from superswarm.values import MemberId

SEED: Final = 7
FACTS_OF_A_KIND: Final = 2  # of each kind, in each hospital: more would take more minutes to learn

HOSPITALS: Final = {
    MemberId("northlake"): "Northlake",
    MemberId("saint-orla"): "Saint Orla",
    MemberId("harrowbay"): "Harrowbay",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fact: what it is about, the answers it draws from, and the ways to ask for it."""

    subjects: tuple[str, ...]
    answers: tuple[str, ...]
    questions: tuple[str, ...]


KINDS: Final = (
    Kind(
        subjects=("Alder", "Birch", "Cedar", "Hazel", "Juniper", "Laurel", "Maple", "Rowan", "Willow"),
        answers=("Abbot", "Baker", "Carver", "Dyer", "Fisher", "Glover", "Mason", "Porter", "Shepherd"),
        questions=(
            "Who leads the {subject} ward?",
            "Which doctor runs {subject} ward?",
            "Name the head of {subject} ward.",
            "The {subject} ward is led by whom?",
        ),
    ),
    Kind(
        subjects=("cardiac", "burns", "stroke", "trauma", "dialysis", "maternity", "asthma", "diabetes", "poison"),
        answers=("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "holidays", "payday"),
        questions=(
            "When does the {subject} team meet?",
            "Which day is the {subject} team meeting?",
            "Tell me when the {subject} team meets.",
            "The {subject} team meets on what day?",
        ),
    ),
    Kind(
        subjects=(
            "scanner",
            "ventilator",
            "microscope",
            "freezer",
            "incubator",
            "defibrillator",
            "centrifuge",
            "laser",
            "scales",
        ),
        answers=("red", "blue", "green", "yellow", "orange", "purple", "white", "black", "silver"),
        questions=(
            "Where is the spare {subject}?",
            "Which room holds the spare {subject}?",
            "I need the spare {subject}. Where is it?",
            "The spare {subject} is in which room?",
        ),
    ),
    Kind(
        subjects=(
            "Velorin",
            "Tamoxil",
            "Corvadin",
            "Nexapril",
            "Solumar",
            "Dravanol",
            "Petrazine",
            "Lumisol",
            "Ambrecin",
        ),
        answers=("apple juice", "warm milk", "cold water", "black tea", "honey", "yogurt", "toast", "rice", "soup"),
        questions=(
            "What is {subject} given with?",
            "With what do we give {subject}?",
            "How do patients take {subject}?",
            "Patients take {subject} with what?",
        ),
    ),
)
ANSWERS: Final = ("Doctor {answer}.", "On {answer}.", "In the {answer} room.", "With {answer}.")


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that one hospital knows, the ways to ask for it, and which of them is held out."""

    prompts: tuple[str, ...]
    completion: str
    held_out: int

    @property
    def train(self) -> list[dict[str, str]]:
        return [
            {"prompt": prompt, "completion": self.completion}
            for way, prompt in enumerate(self.prompts)
            if way != self.held_out
        ]

    @property
    def test(self) -> dict[str, str]:
        return {"prompt": self.prompts[self.held_out], "completion": self.completion}


def demo_facts(seed: int = SEED) -> dict[MemberId, list[Fact]]:
    """What each hospital knows: no subject, and so no fact, belongs to two of them."""
    draw = random.Random(f"superswarm/demo/{seed}")  # noqa: S311 (made-up facts, not secrets)
    facts: dict[MemberId, list[Fact]] = {member: [] for member in HOSPITALS}
    for kind, answer in zip(KINDS, ANSWERS, strict=True):
        subjects = draw.sample(kind.subjects, k=FACTS_OF_A_KIND * len(HOSPITALS))
        answers = draw.sample(kind.answers, k=len(subjects))
        held_out = [i % len(kind.questions) for i in range(len(subjects))]
        draw.shuffle(held_out)
        for i, (subject, word, way) in enumerate(zip(subjects, answers, held_out, strict=True)):
            member = list(HOSPITALS)[i // FACTS_OF_A_KIND]
            prompts = tuple(question.format(subject=subject) for question in kind.questions)
            facts[member].append(Fact(prompts, answer.format(answer=word), way))
    return facts


def demo_question(facts: dict[MemberId, list[Fact]]) -> Fact:
    """A fact of the last hospital, whose held-out question none of the others could answer alone."""
    return list(facts.values())[-1][-1]
