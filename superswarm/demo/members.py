"""Who takes part in a demo: hospitals that the project makes up, or folders of the user's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

from participants.demo_data import HOSPITALS, demo_facts, demo_question
from superswarm.demo.consortium import Hospital
from superswarm.errors import UnusableDataset
from superswarm.values import MEMBER_ID


def made_up(folder: Path) -> tuple[tuple[Hospital, ...], str]:
    """Write the made-up hospitals' splits; also a question that only one of them could answer, the last."""
    members: list[Hospital] = []
    facts = demo_facts()
    for member, known in facts.items():
        train = [example for fact in known for example in fact.train]
        test = [fact.test for fact in known]
        members.append(Hospital(member, HOSPITALS[member], *_write(folder / member, train, test)))
    return tuple(members), demo_question(facts).test["prompt"]


def _write(folder: Path, train: list[dict[str, str]], test: list[dict[str, str]]) -> tuple[Path, Path]:
    folder.mkdir(parents=True)
    files = folder / "train.jsonl", folder / "test.jsonl"
    for file, examples in zip(files, (train, test), strict=True):
        file.write_text("".join(f"{json.dumps(example, ensure_ascii=False)}\n" for example in examples))
    return files


def from_folder(data: Path) -> tuple[Hospital, ...]:
    """One member for each folder that has both splits, in the order of their names."""
    if not data.is_dir():
        raise UnusableDataset(f"{data} is not a folder: give one with a folder for each member")
    members: list[Hospital] = []
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        train, test = folder / "train.jsonl", folder / "test.jsonl"
        if not (train.is_file() and test.is_file()):
            raise UnusableDataset(f"{folder} has no train.jsonl and test.jsonl")
        member = re.sub(r"[^a-z0-9-]+", "-", folder.name.lower()).strip("-")[:32]
        if not MEMBER_ID.fullmatch(member) or member in {m.id for m in members}:
            raise UnusableDataset(f"{folder.name} cannot be a member's id: rename the folder")
        members.append(Hospital(member, folder.name, train, test))
    if len(members) < 2:
        raise UnusableDataset(f"{data} has {len(members)} members' folders; a demo needs at least two")
    return tuple(members)
