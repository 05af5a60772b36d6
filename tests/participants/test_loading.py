"""Base models loaded from memory, in every form they have, and what a trainer that is killed leaves of them."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file

from participants.loading import LoadedBase, Precision, load_base, load_snapshot
from participants.models import model_digest, unsealed
from participants.unsealing import unseal_into
from superswarm.assets.container import Kind
from superswarm.assets.seal import seal_once
from superswarm.bundle import File
from superswarm.consortium.manifest import Asset
from superswarm.errors import CannotOpen, Malformed, UnsafeModel
from superswarm.values import Digest
from tests.leftovers import holding
from tests.tiny import tiny_gguf, tiny_model

ROOT = Path(__file__).parents[2]
BEGAN = time.time() - 1


def sharded(folder: Path) -> Path:
    """A tiny model of several shards with an index."""
    from transformers import AutoModelForCausalLM

    whole = tiny_model(folder.with_name("whole"))
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(folder, max_shard_size="40kB")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((whole / name).read_bytes())
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "one": tiny_model(root / "one"),
        "sharded": sharded(root / "sharded"),
        "gguf": tiny_gguf(root / "tiny.gguf"),
    }


def seal(path: Path, kind: Kind, out: Path) -> tuple[Asset, bytes]:
    """Seal a folder or file to `out`; the asset as a manifest names it, and its key."""
    sources = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [File.of(file.name, [file.read_bytes()]) for file in sources]
    with out.open("wb") as target:
        made = seal_once(files, target, kind=kind, owner="alice", version="1", demo=True)
    release = {"roles": ["trainer"], "members": ["bob"], "not_after": "2099-01-01", "times": 1}
    fields = {"name": "base", "kind": kind, "owner": "alice", "digest": str(made.digest), "source": "here"}
    return Asset.model_validate(fields | {"release": release}), made.key


def load(path: Path, place: Path | None = None, *, precision: Precision = "float32") -> LoadedBase:
    """Load a model, sealed to a file in `place` first if there is one."""
    if place is None:
        return load_base(path, model_digest(path), device="cpu", precision=precision)
    location = place / "model.sealed"
    asset, key = seal(path, "model", location)
    fill = partial(unseal_into, asset=asset, location=str(location), key=key)
    with unsealed(fill, Digest.parse(asset.digest)) as copy:
        return load_snapshot(copy, device="cpu", precision=precision)


def mapped() -> int:
    """Bytes of files in memory that are mapped here."""
    ranges = [
        line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:superswarm" in line
    ]
    return sum(int(end, 16) - int(start, 16) for start, end in (part.split("-") for part in ranges))


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("form", ["one", "sharded", "gguf"])
def test_every_form_loads_from_memory(models: dict[str, Path], tmp_path: Path, form: str, sealed: bool) -> None:
    base = load(models[form], tmp_path if sealed else None)
    assert (base.digest == model_digest(models[form])) is not sealed
    ids = base.tokenizer("some text", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = base.model(ids).logits
    assert logits.isfinite().all()
    if form != "gguf":
        plain = load_file(models["one"] / "model.safetensors")
        weights = base.model.state_dict()
        assert all(torch.equal(weights[name], tensor) for name, tensor in plain.items())


@pytest.mark.parametrize("form", ["sharded", "gguf"])
def test_no_file_is_held_once_its_tensors_are_copied(models: dict[str, Path], tmp_path: Path, form: str) -> None:
    gc.collect()
    before = mapped()
    base = load(models[form], tmp_path, precision="bfloat16")
    gc.collect()
    assert mapped() == before
    assert base.model.dtype == torch.bfloat16


def test_weights_that_need_no_copy_use_the_memory_of_their_file(models: dict[str, Path], tmp_path: Path) -> None:
    gc.collect()
    before = mapped()
    base = load(models["one"], tmp_path)
    gc.collect()
    size = (models["one"] / "model.safetensors").stat().st_size
    assert mapped() - before <= size + 2 * os.sysconf("SC_PAGE_SIZE")  # never twice
    with torch.no_grad():
        for parameter in base.model.parameters():
            parameter.add_(1)  # a private mapping: the sealed file takes no change, and needs none
    del base, parameter
    gc.collect()
    assert mapped() == before


@pytest.fixture
def copied(models: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(models["one"], tmp_path / "copied"))


def test_broken_sealed_weights_are_malformed(copied: Path, tmp_path: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Malformed, match="does not load"):
        load(copied, tmp_path)


def test_an_unsafe_sealed_model_does_not_load(copied: Path, tmp_path: Path) -> None:
    config = copied / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}})
    )
    with pytest.raises(UnsafeModel):
        load(copied, tmp_path)


def test_a_sealed_model_that_was_altered_does_not_load(models: dict[str, Path], tmp_path: Path) -> None:
    location = tmp_path / "model.sealed"
    asset, key = seal(models["one"], "model", location)
    damaged = bytearray(location.read_bytes())
    damaged[-1] ^= 1
    location.write_bytes(damaged)
    fill = partial(unseal_into, asset=asset, location=str(location), key=key)
    with pytest.raises(CannotOpen), unsealed(fill, Digest.parse(asset.digest)):
        pass


# --- a trainer that is killed --------------------------------------------------------------------------------------

TRAINER = """
import sys
from functools import partial
from superswarm.io.confine import hold_plaintext
from superswarm.io.logs import logger
hold_plaintext(logger("superswarm.test"))
from participants import loading
from participants.examples import splits
from participants.finetune import Finetuner
from participants.models import unsealed
from participants.unsealing import unseal_into
from superswarm.consortium.manifest import Asset, Job
from superswarm.io.memory import MemoryFiles
from superswarm.values import Digest

def wait():
    print("ready", flush=True)
    sys.stdin.read()

moment, model, data = sys.argv[1:]
(base_asset, base_key), (data_asset, data_key) = (
    (Asset.model_validate_json(sys.stdin.readline()), bytes.fromhex(sys.stdin.readline())) for _ in range(2)
)

if moment == "loading":
    real = loading.AutoTokenizer.from_pretrained
    def killed_here(*args, **more):
        wait()
        return real(*args, **more)
    loading.AutoTokenizer.from_pretrained = killed_here

fill = partial(unseal_into, asset=base_asset, location=model, key=base_key)
with unsealed(fill, Digest.parse(base_asset.digest)) as copy:
    base = loading.load_snapshot(copy, device="cpu", precision="float32")
with MemoryFiles() as files:
    unseal_into(files, data_asset, data, data_key)
    train, test = splits(files)
training = {"local_steps": 2, "batch_size": 2, "learning_rate": 0.01, "max_length": 64}
job = {"name": "j", "base_model": "m", "rounds": 1, "seed": 1, "training": training}
job |= {"lora": {"rank": 2, "alpha": 4, "target_modules": ["q_proj"]}, "evaluation": {"max_examples": 5}}
tuner = Finetuner(Job.model_validate(job), base, train, test)
adapter, _ = tuner.train(tuner.initial(), 1)
tuner.evaluate(adapter)
tuner.generate(adapter, train[0].prompt, 4)
wait()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="superswarm-test-") as name:
        for part in ("tmp", "home", "work"):
            (Path(name) / part).mkdir()
        yield Path(name)


@pytest.mark.parametrize("moment", ["loading", "trained"])
def test_a_killed_trainer_leaves_nothing_of_model_and_data(models: dict[str, Path], place: Path, moment: str) -> None:
    """Everything that it could write to is searched: temporary, home, cache and working folders, and /dev/shm."""
    word = "canary of a dataset 77ab"
    (place / "data").mkdir()
    columns = {"prompt": [f"{word} {number}" for number in range(40)], "completion": [word] * 40}
    parquet.write_table(pa.table(columns), place / "data" / "all.parquet", compression="none")
    assets = [
        seal(models["one"], "model", place / "model.sealed"),
        seal(place / "data", "dataset", place / "data.sealed"),
    ]
    canaries = [
        word.encode(),
        *((models["one"] / name).read_bytes()[-64:] for name in ("model.safetensors", "config.json")),
    ]
    assert canaries[0] in (place / "data" / "all.parquet").read_bytes()
    shutil.rmtree(place / "data")
    home = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HF_HOME"), str(place / "home"))
    temporary = dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(place / "tmp"))
    child = subprocess.Popen(
        [sys.executable, "-c", TRAINER, moment, str(place / "model.sealed"), str(place / "data.sealed")],
        cwd=place / "work",
        env=os.environ | home | temporary | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(place / "log").open("wb"),
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    for asset, key in assets:
        child.stdin.write(f"{asset.model_dump_json()}\n{key.hex()}\n")
    child.stdin.flush()
    assert child.stdout.readline() == "ready\n", (place / "log").read_text()
    assert (list((place / "tmp").iterdir()) != []) is (moment == "loading")  # the folder of names is there meanwhile
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert not holding(canaries, place, since=BEGAN)
    (place / "home" / "left").write_bytes(b"x" + canaries[-1])
    assert holding(canaries, place, since=BEGAN) == [place / "home" / "left"]
