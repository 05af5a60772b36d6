"""Fine-tuning on tiny models of three families, through the real loader, tokenizer and peft."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from participants import finetune
from participants.examples import Example
from participants.finetune import Finetuner, initial_adapter, learning_rate
from participants.loading import LoadedBase, load_base
from participants.models import model_digest
from superswarm.consortium.manifest import Job
from superswarm.errors import (
    Malformed,
    Misconfigured,
    NotFinite,
    UnsafeModel,
    WrongModel,
    WrongShapes,
)
from superswarm.io.results import ResultFolder, open_result
from superswarm.updates.adapter import Adapter, AdapterSpec, encode_adapter
from superswarm.updates.publish import publish
from superswarm.values import Digest, MemberId
from tests import consortia
from tests.tiny import TARGETS, Family, tiny_model

FAMILIES: tuple[Family, ...] = ("llama", "gpt2", "qwen2")


def job(
    targets: tuple[str, ...] = TARGETS["llama"], *, dropout: float = 0.0, rounds: int = 2, **training: Any
) -> Job:
    plan = {"local_steps": 6, "batch_size": 4, "learning_rate": 0.01, "max_length": 64, "precision": "float32"}
    return Job.model_validate(
        {
            "name": "tiny",
            "base_model": "tiny",
            "rounds": rounds,
            "seed": 11,
            "lora": {"rank": 4, "alpha": 8, "dropout": dropout, "target_modules": list(targets)},
            "training": plan | training,
            "evaluation": {"batch_size": 3, "max_examples": 5},
        }
    )


@pytest.fixture(scope="module")
def data() -> list[Example]:
    return [Example(f"{'so ' * (i % 4)}what is {i}", f"it is {i * i}") for i in range(14)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: tiny_model(root / family, family=family, chat=family != "gpt2") for family in FAMILIES}


def base_of(folder: Path) -> LoadedBase:
    return load_base(folder, model_digest(folder), device="cpu", precision="float32")


@pytest.fixture
def tuner(folders: dict[Family, Path], data: list[Example]) -> Finetuner:
    return Finetuner(job(), base_of(folders["llama"]), data, data)


def same(a: Adapter, b: Adapter) -> bool:
    return encode_adapter(a) == encode_adapter(b)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_lowers_the_loss_on_each_family(
    family: Family, folders: dict[Family, Path], data: list[Example]
) -> None:
    tuner = Finetuner(job(TARGETS[family], local_steps=20), base_of(folders[family]), data, data)
    start = tuner.initial()
    seen: list[tuple[int, int]] = []
    trained, report = tuner.train(start, 1, lambda step, steps, _: seen.append((step, steps)))
    assert seen == [(step, 20) for step in range(1, 21)]
    assert tuner.evaluate(start).loss == pytest.approx(tuner.evaluate(None).loss, rel=1e-6)
    assert tuner.evaluate(trained).loss < tuner.evaluate(None).loss - 0.2
    assert (report.steps, report.examples, report.cut) == (20, 14, 0)
    assert AdapterSpec.of(trained) == tuner.spec
    assert all(".lora_A.weight" in name or ".lora_B.weight" in name for name in trained)


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_the_published_adapter(
    family: Family, folders: dict[Family, Path], data: list[Example], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plan = job(TARGETS[family])
    tuner = Finetuner(plan, base_of(folders[family]), data, data)
    trained, _ = tuner.train(tuner.initial(), 1)
    tables = plan.model_dump(mode="json") | {"base_model": "base"}
    signer = consortia.signing_key("aggregator session")
    manifest = consortia.approved(jobs=[tables])
    raw = publish(trained, manifest=manifest, job=manifest.manifest.jobs[0], run="run-1", rounds=1, signer=signer)
    results = ResultFolder(tmp_path / "results")
    results.store("run-1", raw, signer.public)
    sealed = results.results()[0][0].path
    out = tmp_path / "adapter"
    open_result(sealed, consortia.kem_key("alice"), MemberId("alice"), out, expected_signer=signer.public)

    def plain() -> Any:
        return AutoModelForCausalLM.from_pretrained(folders[family], dtype=torch.float32).eval()

    ids = torch.arange(20).reshape(1, 20)
    with torch.no_grad():
        logits = PeftModel.from_pretrained(plain(), str(out)).eval()(ids).logits
        assert torch.equal(logits, tuner._model(ids).logits)
        assert not torch.allclose(logits, plain()(ids).logits)


def reference_loss(tuner: Finetuner, data: list[Example]) -> float:
    """transformers' own loss, with labels, padding and a mask, a mean over learnt tokens."""
    tokens = tuner._format.examples(data)
    width = max(len(item.ids) for item in tokens)
    ids = torch.tensor([[*item.ids, *[0] * (width - len(item.ids))] for item in tokens])
    mask = torch.tensor([[1] * len(item.ids) + [0] * (width - len(item.ids)) for item in tokens])
    labels = torch.full_like(ids, -100)
    for row, item in enumerate(tokens):
        labels[row, item.start : len(item.ids)] = ids[row, item.start : len(item.ids)]
    with torch.no_grad():
        return float(tuner._model(input_ids=ids, attention_mask=mask, labels=labels).loss)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_transformers(family: Family, folders: dict[Family, Path], data: list[Example]) -> None:
    tuner = Finetuner(job(TARGETS[family]), base_of(folders[family]), data, data)
    trained, _ = tuner.train(tuner.initial(), 1)
    scored = tuner.score(trained, tuner.train_tokens)
    assert scored.loss == pytest.approx(reference_loss(tuner, data), rel=1e-5)


def test_accumulated_batches_train_as_one(folders: dict[Family, Path], data: list[Example]) -> None:
    whole = Finetuner(job(batch_size=8), base_of(folders["llama"]), data, data)
    parts = Finetuner(job(batch_size=4, gradient_accumulation=2), base_of(folders["llama"]), data, data)
    batch = whole.train_tokens[:8]
    whole._load(whole.initial())
    parts._load(parts.initial())
    assert whole._backward([batch]) == pytest.approx(parts._backward([batch[:4], batch[4:]]), rel=1e-6)
    for a, b in zip(whole._model.parameters(), parts._model.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_training_is_a_function_of_job_data_adapter_and_round(
    dropout: float, folders: dict[Family, Path], data: list[Example]
) -> None:
    one = Finetuner(job(dropout=dropout), base_of(folders["llama"]), data, data)
    two = Finetuner(job(dropout=dropout), base_of(folders["llama"]), data, data)
    one.train(one.initial(), 2)  # leaves nothing behind
    torch.rand(7)
    first, _ = one.train(one.initial(), 1)
    second, _ = two.train(two.initial(), 1)
    assert same(first, second)
    assert not same(first, two.train(two.initial(), 2)[0])


def test_the_base_model_stays_as_it_was(tuner: Finetuner) -> None:
    base = {name: p.clone() for name, p in tuner._model.named_parameters() if not p.requires_grad}
    before = tuner.evaluate(None)
    tuner.train(tuner.initial(), 1)
    assert all(torch.equal(p, dict(tuner._model.named_parameters())[name]) for name, p in base.items())
    assert dataclasses.replace(tuner.evaluate(None), seconds=0) == dataclasses.replace(before, seconds=0)


def test_every_trainer_starts_from_the_same_bytes(tuner: Finetuner) -> None:
    start = tuner.initial()
    assert same(start, initial_adapter(tuner.spec, 11))
    assert not same(start, initial_adapter(tuner.spec, 12))
    for name, array in start.items():
        if "lora_B" in name:
            assert not array.any()
        else:  # uniform in ±1/√inputs, as peft draws it
            bound = 1 / math.sqrt(array.shape[1])
            assert 0.8 * bound < np.abs(array).max() <= bound
            assert np.std(array) == pytest.approx(bound / math.sqrt(3), rel=0.2)


def test_the_start_never_changes_between_versions() -> None:
    spec = AdapterSpec((("x.lora_A.weight", (2, 3)), ("x.lora_B.weight", (3, 2))))
    assert Digest.of(encode_adapter(initial_adapter(spec, 1))).short == "e58991fe8a6f"


def test_right_answers_are_counted_as_generation_would_write_them(folders: dict[Family, Path]) -> None:
    data = [Example("name", "ada"), Example("town", "oslo")]
    plan = job(("all-linear",), local_steps=100, learning_rate=0.02, batch_size=2)
    tuner = Finetuner(plan, base_of(folders["llama"]), data, data)
    trained, _ = tuner.train(tuner.initial(), 1)
    written = [tuner.generate(trained, one.prompt, 8) == one.completion for one in data]
    assert tuner.evaluate(trained).exact == sum(written) == 2
    assert tuner.evaluate(None).exact == 0


def test_held_out_examples_are_capped_by_the_job(tuner: Finetuner, data: list[Example]) -> None:
    report = tuner.evaluate(None)
    assert report.examples == 5
    assert tuner.evaluate_on(None, data).loss == report.loss


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused(tuner: Finetuner, poison: float) -> None:
    start = tuner.initial()
    name = next(iter(start))
    start[name] = start[name].copy()
    start[name][0, 0] = poison
    with pytest.raises(NotFinite):
        tuner.train(start, 1)
    with pytest.raises(NotFinite):
        tuner.evaluate(start)


def test_a_diverging_run_stops(folders: dict[Family, Path], data: list[Example]) -> None:
    base = base_of(folders["llama"])
    with torch.no_grad():
        base.model.get_output_embeddings().weight[0, 0] = math.inf
    tuner = Finetuner(job(), base, data, data)
    with pytest.raises(NotFinite):
        tuner.train(tuner.initial(), 1)
    with pytest.raises(NotFinite):
        tuner.evaluate(None)


def test_adapters_of_another_shape_are_refused(tuner: Finetuner) -> None:
    start = tuner.initial()
    with pytest.raises(WrongShapes):
        tuner.evaluate({name: array[:1] for name, array in start.items()})
    with pytest.raises(WrongShapes):
        tuner.train(dict(list(start.items())[1:]), 1)


@pytest.mark.parametrize("targets", [("no_such_layer",), ("embed_tokens",)])
def test_layers_that_lora_does_not_fit_are_said(
    targets: tuple[str, ...], folders: dict[Family, Path], data: list[Example]
) -> None:
    with pytest.raises(Misconfigured, match="target_modules"):
        Finetuner(job(targets), base_of(folders["llama"]), data, data)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_learning_rate_follows_its_schedule_over_all_rounds(schedule: str, rates: list[float]) -> None:
    plan = job(schedule=schedule, learning_rate=1.0, warmup_steps=2).training
    assert [learning_rate(plan, step, 6) for step in range(6)] == pytest.approx(rates, abs=1e-6)


def test_a_bfloat16_base_trains_a_float32_adapter(folders: dict[Family, Path], data: list[Example]) -> None:
    folder = folders["llama"]
    base = load_base(folder, model_digest(folder), device="cpu", precision="bfloat16")
    tuner = Finetuner(job(local_steps=20), base, data, data)
    trained, _ = tuner.train(tuner.initial(), 1)
    assert {p.dtype for p in tuner._model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in tuner._model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert tuner.evaluate(trained).loss < tuner.evaluate(None).loss - 0.2


def test_another_model_than_the_approved_one_does_not_load(folders: dict[Family, Path]) -> None:
    with pytest.raises(WrongModel):
        load_base(folders["llama"], model_digest(folders["qwen2"]), device="cpu")


def test_a_pickle_beside_the_weights_is_refused(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model")
    digest = model_digest(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsafeModel):
        load_base(folder, digest, device="cpu")


def test_broken_weights_are_malformed(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Malformed, match="does not load"):
        load_base(folder, model_digest(folder), device="cpu")


def test_weights_that_are_not_all_there_are_malformed(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.self_attn.q_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Malformed, match="lack 1 of the tensors"):
        load_base(folder, model_digest(folder), device="cpu")


def test_a_tokenizer_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    """transformers before 5.23 opened the paths that tokenizer_config.json names."""
    folder = tiny_model(tmp_path / "model")
    outside = tmp_path / "outside.json"
    outside.write_text((folder / "tokenizer.json").read_text().replace("<eos>", "<evil>"))
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_file": str(outside)}))
    base = load_base(folder, model_digest(folder), device="cpu")
    assert "<evil>" not in base.tokenizer.get_vocab()


class TestFedProx:
    def moved(self, folders: dict[Family, Path], data: Path, mu: float) -> float:
        tuner = Finetuner(job(proximal_mu=mu), base_of(folders["llama"]), data, data)
        start = tuner.initial()
        trained, _ = tuner.train(start, 1)
        return math.sqrt(sum(float(np.square(trained[name] - start[name]).sum()) for name in start))

    def test_the_update_shrinks_as_mu_grows(self, folders: dict[Family, Path], data: Path) -> None:
        sizes = [self.moved(folders, data, mu) for mu in (0.0, 1.0, 10.0, 100.0)]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] < 0.6 * sizes[0]

    def test_mu_of_zero_changes_no_bit(
        self, folders: dict[Family, Path], data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr("participants.finetune._add_proximal_gradient")
        written = Finetuner(job(proximal_mu=0.0), base_of(folders["llama"]), data, data)
        silent = Finetuner(job(), base_of(folders["llama"]), data, data)
        first, _ = written.train(written.initial(), 1)
        second, _ = silent.train(silent.initial(), 1)
        assert same(first, second)

    def test_its_gradient_is_that_of_the_term_in_the_loss(self, tuner: Finetuner) -> None:
        mu, batch = 0.3, tuner.train_tokens[:4]
        tuner._load(tuner.initial())
        parameters = [p for p in tuner._model.parameters() if p.requires_grad]
        start = [torch.full_like(p, 0.01) for p in parameters]
        term = mu / 2 * sum((p - s).square().sum() for p, s in zip(parameters, start, strict=True))
        tuner._backward([batch])
        plain = [p.grad.clone() for p in parameters]
        wanted = torch.autograd.grad(term, parameters)
        finetune._add_proximal_gradient(parameters, start, mu)
        for p, before, extra in zip(parameters, plain, wanted, strict=True):
            torch.testing.assert_close(p.grad, before + extra)

    def test_it_is_no_part_of_the_reported_loss(self, folders: dict[Family, Path], data: Path) -> None:
        plan: dict[str, Any] = {"local_steps": 1}
        near = Finetuner(job(**plan), base_of(folders["llama"]), data, data)
        far = Finetuner(job(proximal_mu=1000.0, **plan), base_of(folders["llama"]), data, data)
        assert near.train(near.initial(), 1)[1].loss == far.train(far.initial(), 1)[1].loss
