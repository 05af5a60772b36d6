"""Merging an adapter into its base model: for a recipient who owns the base, and for nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from participants.finetune import adapter_tensors, initial_adapter, with_lora
from participants.loading import load_base
from participants.merging import merge as merge_files
from participants.models import model_digest, model_files, snapshot
from superswarm import cli
from superswarm.assets.key import PURPOSE, AssetKey
from superswarm.consortium.approval import approve, chain_to_bytes
from superswarm.consortium.manifest import Job, Manifest
from superswarm.crypto import passphrase as sealing
from superswarm.io.keystore import MemberKeys, save_keys, seal_file
from superswarm.updates.adapter import AdapterSpec, encode_adapter
from superswarm.updates.card import CONFIG, WEIGHTS, adapter_config
from superswarm.values import MemberId
from tests import consortia
from tests.sealed import sealed_asset
from tests.tiny import TARGETS, Family, tiny_model

PASSPHRASE = "correct horse battery staple"
TOKENS = torch.arange(24).reshape(2, 12)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def found(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Manifest]:
    """Alice owns the base and Bob brings data; both receive. Writes the consortium's file, keys and an adapter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUPERSWARM_PASSPHRASE", PASSPHRASE)
    monkeypatch.setattr(sealing, "LOG_N", 4)

    def make(owner: str = "alice", **changes: Any) -> Manifest:
        asset = {"name": "base", "kind": "model", "owner": owner, "digest": str(model_digest(base)), "source": "b"}
        lora = {"rank": 4, "alpha": 8.0, "target_modules": list(TARGETS["llama"])}
        members = [consortia.member("alice", "model"), *(consortia.member(n, "data") for n in ("bob", "carol"))]
        fields: dict[str, Any] = {
            "assets": [asset], "jobs": [consortia.job(lora=lora)], "result": {"recipients": ["alice", "bob"]},
        }  # fmt: skip
        signed = consortia.sign_all(consortia.manifest(*members, **(fields | changes)))
        Path("consortium.json").write_bytes(chain_to_bytes([signed]))
        for name in ("alice", "bob", "carol"):
            keys = MemberKeys(MemberId(name), consortia.signing_key(name), consortia.kem_key(name), b"p" * 32)
            save_keys(Path(f"{name}.keys"), keys, PASSPHRASE)
        write_adapter(approve([signed]).manifest, base)
        return signed.manifest

    return make


def write_adapter(manifest: Manifest, base: Path) -> None:
    """What `result open` would write, with values that matter."""
    job = manifest.jobs[0]
    adapted = with_lora(job, load_base(base, model_digest(base), device="cpu", precision="float32"))
    spec = AdapterSpec(tuple(sorted((n, tuple(t.shape)) for n, t in adapter_tensors(adapted).items())))
    rng = np.random.default_rng(0)
    adapter = {n: rng.normal(0, 0.2, v.shape).astype(np.float32) for n, v in initial_adapter(spec, 1).items()}
    Path("adapter").mkdir()
    (Path("adapter") / WEIGHTS).write_bytes(encode_adapter(adapter))
    (Path("adapter") / CONFIG).write_bytes(adapter_config(manifest, job))


def merge(base: Path, who: str = "alice", *more: str) -> int:
    arguments = ["--model", str(base), "-c", "consortium.json", "--keys", f"{who}.keys", "--out", "merged"]
    return cli.run(["result", "merge", "adapter", *arguments, *more])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


def test_the_owner_merges_and_gets_the_same_answers(base: Path, found: Callable[..., Manifest]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found()
    assert merge(base) == 0
    assert not [path for path in Path("merged").iterdir() if path.suffix in (".bin", ".pt", ".py")]
    plain = AutoModelForCausalLM.from_pretrained(base)
    expected = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "adapter"))
    got = logits(AutoModelForCausalLM.from_pretrained("merged"))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(got, logits(plain))
    assert AutoTokenizer.from_pretrained("merged").eos_token == "<eos>"
    assert model_digest(Path("merged")) != model_digest(base)
    assert merge(base) == 2, "what is there is not overwritten"


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_other_families_merge_too(tmp_path: Path, family: Family) -> None:
    """GPT-2 keeps its weights transposed."""
    from transformers import AutoModelForCausalLM

    folder = tiny_model(tmp_path / family, family=family)
    lora = {"rank": 4, "alpha": 8.0, "target_modules": list(TARGETS[family])}
    job = Job.from_data(consortia.job(lora=lora))
    adapted = with_lora(job, load_base(folder, model_digest(folder), device="cpu", precision="float32"))
    rng = np.random.default_rng(0)
    tensors = adapter_tensors(adapted)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.copy_(torch.from_numpy(rng.normal(0, 0.2, tuple(tensor.shape)).astype(np.float32)))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / WEIGHTS).write_bytes(encode_adapter({n: t.numpy() for n, t in tensors.items()}))
    with snapshot(folder, model_digest(folder)) as files:
        merge_files(files, job, tmp_path / "adapter", tmp_path / "merged")
    got = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    torch.testing.assert_close(got, logits(adapted), rtol=1e-4, atol=1e-4)


def test_the_merged_model_has_the_bases_type(base: Path, tmp_path: Path, found: Callable[..., Manifest]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(base).to(torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(base).save_pretrained(half)
    asset = {"name": "base", "kind": "model", "owner": "alice", "digest": str(model_digest(half)), "source": "b"}
    found(assets=[asset])
    assert merge(half) == 0
    assert AutoModelForCausalLM.from_pretrained("merged", dtype="auto").dtype is torch.bfloat16


def test_an_owner_knows_its_own_sealed_base(
    base: Path, found: Callable[..., Manifest], capsys: pytest.CaptureFixture[str]
) -> None:
    release = {"members": ["bob", "carol"], "not_after": "2030-01-01", "times": 3}
    asset = {
        "name": "base", "kind": "model", "owner": "alice", "digest": consortia.digest("sealed"), "source": "b",
        "release": release,
    }  # fmt: skip
    found(assets=[asset])
    assert merge(base, "bob") == 4
    assert merge(base) == 0
    assert "nothing compares" in capsys.readouterr().err


@pytest.fixture(scope="module")
def sealed(base: Path) -> tuple[bytes, AssetKey]:
    contents = {name: path.read_bytes() for name, path in model_files(base).files}
    return sealed_asset(contents, kind="model", owner="alice")


def test_a_sealed_base_is_compared_with_the_manifest(
    sealed: tuple[bytes, AssetKey], base: Path, found: Callable[..., Manifest]
) -> None:
    raw, key = sealed
    release = {"members": ["bob", "carol"], "not_after": "2030-01-01", "times": 3}
    asset = {"name": "base", "kind": "model", "owner": "alice", "digest": str(key.digest), "source": "b"}
    found(assets=[asset | {"release": release}])
    seal_file(Path("base.assetkey"), key.to_bytes(), PASSPHRASE, purpose=PURPOSE)
    Path("base.sealed").write_bytes(raw)
    Path("spoilt.sealed").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert merge(Path("spoilt.sealed"), "alice", "--asset-key", "base.assetkey") == 4
    assert not Path("merged").exists()
    assert merge(Path("base.sealed"), "alice", "--asset-key", "base.assetkey") == 0
    merged = Path("merged").rename("from-sealed")
    assert merge(base) == 0
    assert model_digest(merged) == model_digest(Path("merged"))


def test_an_asset_key_belongs_to_a_sealed_base(base: Path, found: Callable[..., Manifest]) -> None:
    found()
    assert merge(base, "alice", "--asset-key", "base.assetkey") == 2


def test_values_that_overflow_are_refused(base: Path, found: Callable[..., Manifest]) -> None:
    found()
    weights = Path("adapter") / WEIGHTS
    weights.write_bytes(encode_adapter({n: np.full_like(v, 3e38) for n, v in load_file(weights).items()}))
    assert merge(base) == 3
    assert not Path("merged").exists()


def test_a_public_base_is_merged_by_any_recipient(base: Path, found: Callable[..., Manifest]) -> None:
    found("public")
    assert merge(base, "bob") == 0


def test_who_does_not_own_the_base_is_refused(
    base: Path, found: Callable[..., Manifest], capsys: pytest.CaptureFixture[str]
) -> None:
    found()
    assert merge(base, "bob") == 4
    assert "belongs to alice: only alice may merge into it" in capsys.readouterr().err
    assert not Path("merged").exists()


def test_an_owner_that_receives_no_results_is_refused(
    base: Path, found: Callable[..., Manifest], capsys: pytest.CaptureFixture[str]
) -> None:
    found(result={"recipients": ["bob"]})
    assert merge(base) == 4
    assert "alice is no recipient" in capsys.readouterr().err


def test_the_owners_name_is_not_enough(base: Path, found: Callable[..., Manifest]) -> None:
    """Bob makes keys that call themselves Alice's."""
    found()
    Path("alice.keys").unlink()
    save_keys(Path("alice.keys"), MemberKeys.generate("alice"), PASSPHRASE)
    assert merge(base) == 2
    assert not Path("merged").exists()


def test_another_base_than_the_manifests_is_refused(tmp_path: Path, found: Callable[..., Manifest]) -> None:
    found()
    other = tiny_model(tmp_path / "other", seed=1)
    assert merge(other) == 3
    assert not Path("merged").exists()


@pytest.mark.parametrize("change", [{"r": 8}, {"lora_alpha": 9}, {"auto_mapping": {"parent_library": "os"}}])
def test_an_adapter_of_no_job_is_refused(
    base: Path, found: Callable[..., Manifest], change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found()
    config = Path("adapter") / CONFIG
    config.write_text(json.dumps(json.loads(config.read_bytes()) | change, indent=2, sort_keys=True))
    assert merge(base) == 3
    assert "is no adapter that epoch 1" in capsys.readouterr().err


def test_an_adapter_of_other_shapes_is_refused(base: Path, found: Callable[..., Manifest]) -> None:
    found()
    (Path("adapter") / WEIGHTS).write_bytes(encode_adapter({"w": np.ones(3, np.float32)}))
    assert merge(base) == 3
    assert [path.name for path in Path().iterdir() if "merged" in path.name] == []


def test_two_jobs_that_might_have_made_it_need_a_word(base: Path, found: Callable[..., Manifest]) -> None:
    lora = {"rank": 4, "alpha": 8.0, "target_modules": list(TARGETS["llama"])}
    asset = {"kind": "model", "owner": "alice", "source": "b"}
    found(
        assets=[
            asset | {"name": "base", "digest": str(model_digest(base))},
            asset | {"name": "second", "digest": consortia.digest("second")},
        ],
        jobs=[consortia.job(lora=lora), consortia.job(name="other", base_model="second", lora=lora)],
    )
    assert merge(base) == 2
    assert merge(base, "alice", "--job", "other") == 3
    assert merge(base, "alice", "--job", "missing") == 2
    assert merge(base, "alice", "--job", consortia.job()["name"]) == 0
