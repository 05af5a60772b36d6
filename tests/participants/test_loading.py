"""Base models loaded from memory, in every form they have, and what a trainer that is killed leaves of them."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from participants.loading import LoadedBase, load_base, load_snapshot
from participants.models import Fill, model_digest, unsealed
from superswarm.errors import Malformed, UnsafeModel
from superswarm.io.memory import MemoryFiles
from superswarm.values import Digest
from tests.tiny import tiny_gguf, tiny_model

ROOT = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - searched, not written
ASSET = Digest.of(b"a sealed file")


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


def decrypts(path: Path) -> Fill:
    """Stands for an asset with these files whose digest holds."""

    def fill(sink: MemoryFiles) -> Digest:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            with sink.create(file.name, file.stat().st_size) as target:
                target.write(file.read_bytes())

        return ASSET

    return fill


def load(path: Path, *, sealed: bool, precision: str = "float32") -> LoadedBase:
    if not sealed:
        return load_base(path, model_digest(path), device="cpu", precision=precision)  # type: ignore[arg-type]
    with unsealed(decrypts(path), ASSET) as copy:
        return load_snapshot(copy, device="cpu", precision=precision)  # type: ignore[arg-type]


def mapped() -> int:
    """Bytes of files in memory that are mapped here."""
    ranges = [
        line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:superswarm" in line
    ]
    return sum(int(end, 16) - int(start, 16) for start, end in (part.split("-") for part in ranges))


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("form", ["one", "sharded", "gguf"])
def test_every_form_loads_from_memory(models: dict[str, Path], form: str, sealed: bool) -> None:
    base = load(models[form], sealed=sealed)
    assert base.digest == (ASSET if sealed else model_digest(models[form]))
    ids = base.tokenizer("some text", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = base.model(ids).logits
    assert logits.isfinite().all()
    if form != "gguf":
        plain = load_file(models["one"] / "model.safetensors")
        weights = base.model.state_dict()
        assert all(torch.equal(weights[name], tensor) for name, tensor in plain.items())


@pytest.mark.parametrize("form", ["sharded", "gguf"])
def test_no_file_is_held_once_its_tensors_are_copied(models: dict[str, Path], form: str) -> None:
    gc.collect()
    before = mapped()
    base = load(models[form], sealed=True, precision="bfloat16")
    gc.collect()
    assert mapped() == before
    assert base.model.dtype == torch.bfloat16


def test_weights_that_need_no_copy_use_the_memory_of_their_file(models: dict[str, Path]) -> None:
    gc.collect()
    before = mapped()
    base = load(models["one"], sealed=True)
    gc.collect()
    size = (models["one"] / "model.safetensors").stat().st_size
    assert mapped() - before <= size + 2 * os.sysconf("SC_PAGE_SIZE")  # never twice
    with torch.no_grad():
        for parameter in base.model.parameters():
            parameter.add_(1)  # a private mapping: the sealed file takes no change, and needs none
    del base, parameter
    gc.collect()
    assert mapped() == before


def test_broken_sealed_weights_are_malformed(models: dict[str, Path], tmp_path: Path) -> None:
    for file in models["one"].iterdir():
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(data[:-100] if file.suffix == ".safetensors" else data)
    with pytest.raises(Malformed, match="does not load"):
        load(tmp_path, sealed=True)


def test_an_unsafe_sealed_model_does_not_load(models: dict[str, Path], tmp_path: Path) -> None:
    for file in models["one"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}})
    )
    with pytest.raises(UnsafeModel):
        load(tmp_path, sealed=True)


# --- a trainer that is killed --------------------------------------------------------------------------------------

TRAINER = """
import io, sys
from pathlib import Path
from superswarm.io.confine import hold_plaintext
from superswarm.io.logs import logger
hold_plaintext(logger("superswarm.test"))
import pyarrow as pa, torch
from pyarrow import parquet
from participants import loading
from participants.examples import splits
from participants.finetune import Finetuner
from participants.models import unsealed
from superswarm.consortium.manifest import Job
from superswarm.io.memory import MemoryFiles
from superswarm.values import Digest

def wait():
    print("ready", flush=True)
    sys.stdin.read()

source, moment = Path(sys.argv[1]), sys.argv[2]
word = sys.stdin.readline().strip()

def put(sink, name, data):
    with sink.create(name, len(data)) as file:
        file.write(data)

def fill(sink):
    for file in sorted(source.iterdir()):
        put(sink, file.name, file.read_bytes())
    return Digest(bytes(32))

if moment == "loading":
    real = loading.AutoTokenizer.from_pretrained
    def killed_here(*args, **more):
        wait()
        return real(*args, **more)
    loading.AutoTokenizer.from_pretrained = killed_here

with unsealed(fill, Digest(bytes(32))) as copy:
    base = loading.load_snapshot(copy, device="cpu", precision="float32")
with MemoryFiles() as files:
    raw = io.BytesIO()
    parquet.write_table(pa.table({"prompt": [f"{word} {i}" for i in range(40)], "completion": [word] * 40}), raw)
    put(files, "all.parquet", raw.getvalue())
    train, test = splits(files)
training = {"local_steps": 2, "batch_size": 2, "learning_rate": 0.01, "max_length": 64}
job = {"name": "j", "base_model": "m", "rounds": 1, "seed": 1, "training": training}
job |= {"lora": {"rank": 2, "alpha": 4, "target_modules": ["q_proj"]}, "evaluation": {"max_examples": 5}}
tuner = Finetuner(Job.model_validate(job), base, train, test)
adapter, _ = tuner.train(tuner.initial(), 1)
tuner.evaluate(adapter)
tuner.generate(adapter, word, 4)
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
    weights = (models["one"] / "model.safetensors").read_bytes()
    canaries = [word.encode(), weights[-64:], (models["one"] / "chat_template.jinja").read_bytes()]
    home = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HF_HOME"), str(place / "home"))
    temporary = dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(place / "tmp"))
    child = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(models["one"]), moment],
        cwd=place / "work",
        env=os.environ | home | temporary | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(place / "log").open("wb"),
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(word + "\n")
    child.stdin.flush()
    assert child.stdout.readline() == "ready\n", (place / "log").read_text()
    assert (list((place / "tmp").iterdir()) != []) is (moment == "loading")  # the folder of names is there meanwhile
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    left = [path for folder in (place, SHARED_MEMORY) for path in folder.rglob("*") if path.is_file()]
    assert place / "log" in left
    assert not [path for path in left for canary in canaries if canary in path.read_bytes()]
