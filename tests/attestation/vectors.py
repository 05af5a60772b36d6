"""Real evidence for tests, where it is at hand: SUPERSWARM_VECTORS names its folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

ROOT = os.environ.get("SUPERSWARM_VECTORS")
NEEDS_VECTORS = pytest.mark.skipif(not ROOT, reason="SUPERSWARM_VECTORS does not name a folder of real evidence")


def cases(*kinds: str) -> list[Path]:
    """The cases of these kinds; without kinds, all. Empty where there are no vectors."""
    if not ROOT:
        return []
    found = sorted(path.parent for path in Path(ROOT).glob("*/case.json"))
    return [path for path in found if not kinds or json.loads((path / "case.json").read_text())["kind"] in kinds]


def files(case: Path) -> dict[str, bytes]:
    """A case's evidence, by file name."""
    return {path.name: path.read_bytes() for path in case.iterdir() if path.name != "case.json"}


def accepted(case: Path) -> tuple[str, ...] | None:
    """The consents under which a case is accepted, or None."""
    for judgement in json.loads((case / "case.json").read_text())["judge"]:
        if judgement["verdict"] == "accept":
            return tuple(judgement["consent"])
    return None
