"""The three scenarios, played from their pages over the real relay, and then searched as a provider could."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from superswarm.demo.stage import stage
from tests.e2e.scenario import Scenario
from tests.tiny import tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CANARY = "canary-record-51f0d2"


def prepare(scenario: Scenario, *, model_of: str, data_of: tuple[str, ...]) -> None:
    """What the owners have before the page begins."""
    tiny_model(scenario.stage.home(model_of) / "model")
    for party in data_of:
        folder = scenario.stage.home(party) / "records"
        folder.mkdir()
        for split, count in (("train", 8), ("test", 3)):
            rows = [{"prompt": f"{party} {i} {CANARY}?", "completion": f"{i * 7 % 10}"} for i in range(count)]
            (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture(scope="module")
def duo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    with stage(tmp_path_factory.mktemp("duo") / "stage", lambda _: None) as on:
        scenario = Scenario(on, "duo")
        prepare(scenario, model_of="lab", data_of=("clinic",))
        scenario.play()
        yield scenario


def test_duo(duo: Scenario) -> None:
    assert (duo.stage.home("clinic") / "adapter" / "adapter_model.safetensors").is_file()
