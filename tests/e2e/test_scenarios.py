"""The three scenarios, played from their pages over the real relay, and then searched as a provider could."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from superswarm.demo.stage import stage
from tests.e2e.scenario import Scenario
from tests.tiny import tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

RECORD = "canary-record-51f0d2"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - it is searched, not used


def prepare(scenario: Scenario, *, model_of: str, data_of: tuple[str, ...]) -> None:
    """What the owners have before the page begins."""
    tiny_model(scenario.stage.home(model_of) / "model")
    for party in data_of:
        folder = scenario.stage.home(party) / "records"
        folder.mkdir()
        for split, count in (("train", 8), ("test", 3)):
            rows = [{"prompt": f"{party} {i} {RECORD}?", "completion": f"{i * 7 % 10}"} for i in range(count)]
            (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def played(folder: Path, page: str, *, model_of: str, data_of: tuple[str, ...]) -> Iterator[Scenario]:
    """A page, played to its end. Temporary files of all programs lie where they can be searched."""
    temporary = folder / "tmp"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch, stage(folder / "stage", lambda _: None) as on:
        patch.setenv("TMPDIR", str(temporary))
        scenario = Scenario(on, page)
        prepare(scenario, model_of=model_of, data_of=data_of)
        scenario.play()
        yield scenario


def canaries(scenario: Scenario, *, model_of: str, adapter: Path) -> dict[str, bytes]:
    """Bytes that only who may read data, model or result can know."""
    weights = (scenario.stage.home(model_of) / "model" / "model.safetensors").read_bytes()
    learnt = next(t for name, t in sorted(load_file(adapter).items()) if "lora_B" in name)
    assert learnt.any(), "it was trained"
    middle = len(weights) // 2
    return {
        "data": RECORD.encode(),
        "model": weights[middle : middle + 64],
        "result": learnt.tobytes()[:64],
    }


def holding(folders: list[Path], canary: bytes) -> list[Path]:
    """The files below these folders that hold the canary."""
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if canary in path.read_bytes()]


def require_nothing_readable(scenario: Scenario, strangers: tuple[str, ...], known: dict[str, bytes]) -> None:
    """All disks of whoever runs the machines: the relay's capture of everything that passed, TEEs, storage."""
    own = [scenario.stage.home(party) for party in strangers]
    elsewhere = [Path(os.environ["TMPDIR"]), *SHARED_MEMORY.glob("superswarm*")]
    for what, canary in known.items():
        assert holding([*own, *elsewhere], canary) == [], f"{what} can be read"


@pytest.fixture(scope="module")
def duo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    yield from played(tmp_path_factory.mktemp("duo"), "duo", model_of="lab", data_of=("clinic",))


class TestDuo:
    STRANGERS = ("operator", "shared", "clinic-tee")

    @pytest.fixture(scope="class")
    def known(self, duo: Scenario) -> dict[str, bytes]:
        adapter = duo.stage.home("clinic") / "adapter" / "adapter_model.safetensors"
        return canaries(duo, model_of="lab", adapter=adapter)

    def test_the_clinic_gets_an_adapter_that_fits_the_labs_model(self, duo: Scenario) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(duo.stage.home("lab") / "model")
        PeftModel.from_pretrained(base, str(duo.stage.home("clinic") / "adapter"))

    def test_canaries_are_found_where_they_may_be(self, duo: Scenario, known: dict[str, bytes]) -> None:
        """Or the searches below would find nothing whatever was there."""
        assert holding([duo.stage.home("lab")], known["model"])
        assert holding([duo.stage.home("clinic")], known["data"])
        assert holding([duo.stage.home("clinic")], known["result"])

    def test_whoever_runs_the_machines_can_read_nothing(self, duo: Scenario, known: dict[str, bytes]) -> None:
        require_nothing_readable(duo, self.STRANGERS, known)

    def test_neither_owner_can_read_what_the_other_brought(self, duo: Scenario, known: dict[str, bytes]) -> None:
        assert holding([duo.stage.home("lab")], known["data"]) == []
        assert holding([duo.stage.home("lab")], known["result"]) == []
        assert holding([duo.stage.home("clinic")], known["model"]) == []

    def test_both_brokers_logged_one_release(self, duo: Scenario) -> None:
        for party in ("lab", "clinic"):
            entries = [json.loads(line) for line in duo.type(party, "superswarm broker log --json").splitlines()]
            released = [entry for entry in entries if entry["event"] == "release"]
            assert len(released) == 1, entries

    def test_one_approval_is_not_enough(self, duo: Scenario) -> None:
        command = (
            "superswarm result open results/first-*.result --consortium ../shared/duo.json --keys clinic.keys "
            "--approval clinic.approval --out half"
        )
        with pytest.raises(AssertionError, match="NotApproved"):
            duo.type("clinic", command)
        assert not (duo.stage.home("clinic") / "half").exists()

    def test_a_trainer_that_is_killed_leaves_nothing_readable(self, duo: Scenario, known: dict[str, bytes]) -> None:
        """SIGKILL while model and data lie decrypted in its memory."""
        grant = "superswarm grant {} --consortium ../shared/duo.json {}"
        duo.type("lab", grant.format("draft", "--run second --out second.grant.json"))
        sign = grant.format("sign", "{0} --keys {1}.keys --yes --out ../shared/second.{1}.json")
        duo.type("lab", sign.format("second.grant.json", "lab"))
        duo.type("clinic", sign.format("../shared/second.lab.json", "clinic"))
        duo.type("operator", grant.format("combine", "../shared/second.clinic.json --out second.granted.json"))
        trainer = duo.programs["clinic-tee", "trainer"]
        list(trainer.news())
        duo.type("operator", "superswarm run start second.granted.json --manifest ../shared/duo.json --state relay")
        trainer.wait_until("loaded", 300)
        os.killpg(trainer.child.pid, signal.SIGKILL)
        trainer.child.wait(30)
        require_nothing_readable(duo, self.STRANGERS, known)


@pytest.fixture(scope="module")
def solo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    yield from played(tmp_path_factory.mktemp("solo"), "solo", model_of="team", data_of=("team",))


class TestSolo:
    def test_the_team_gets_an_adapter_and_a_merged_model(self, solo: Scenario) -> None:
        from transformers import AutoModelForCausalLM

        home = solo.stage.home("team")
        merged = AutoModelForCausalLM.from_pretrained(home / "merged")
        base = AutoModelForCausalLM.from_pretrained(home / "model")
        changed = [n for n, p in merged.named_parameters() if not p.equal(base.get_parameter(n))]
        assert changed

    def test_the_provider_can_read_nothing(self, solo: Scenario) -> None:
        adapter = solo.stage.home("team") / "adapter" / "adapter_model.safetensors"
        known = canaries(solo, model_of="team", adapter=adapter)
        assert all(holding([solo.stage.home("team")], canary) for canary in known.values())
        require_nothing_readable(solo, ("provider", "shared", "team-tee"), known)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    folder = tmp_path_factory.mktemp("consortium")
    yield from played(folder, "consortium", model_of="lab", data_of=("north", "south"))


class TestConsortium:
    def test_north_gets_the_adapter(self, consortium: Scenario) -> None:
        assert load_file(consortium.stage.home("north") / "adapter" / "adapter_model.safetensors")

    def test_nobody_reads_what_others_brought(self, consortium: Scenario) -> None:
        adapter = consortium.stage.home("north") / "adapter" / "adapter_model.safetensors"
        known = canaries(consortium, model_of="lab", adapter=adapter)
        home = consortium.stage.home
        assert holding([home("lab")], known["data"]) == []
        assert holding([home("north"), home("south")], known["model"]) == []
        assert holding([home("lab"), home("south")], known["result"]) == []
        for one, other in (("north", "south"), ("south", "north")):
            assert holding([home(one)], f"{other} 1 {RECORD}".encode()) == []
        require_nothing_readable(consortium, ("host", "shared", "north-tee", "south-tee"), known)
