"""The opened folder is one that PEFT itself loads: same weights, same answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superswarm.io.results import ResultFolder, open_result
from superswarm.updates.card import CONFIG
from superswarm.updates.publish import publish
from superswarm.values import MemberId
from tests import consortia

torch = pytest.importorskip("torch", reason="needs torch: pip install 'superswarm[participant]'")
peft = pytest.importorskip("peft", reason="needs peft: pip install 'superswarm[participant]'")
transformers = pytest.importorskip("transformers")

SIGNER = consortia.signing_key("aggregator session")


def tiny() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=64
    )
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["all-linear"]])
def test_peft_loads_the_opened_folder(tmp_path: Path, targets: list[str]) -> None:
    lora = {"rank": 4, "alpha": 8.0, "target_modules": targets}
    manifest = consortia.approved(jobs=[consortia.job(lora=lora)])
    trained = peft.get_peft_model(
        tiny(),
        peft.LoraConfig(
            r=4, lora_alpha=8, target_modules=targets if len(targets) > 1 else targets[0], task_type="CAUSAL_LM"
        ),
    )
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
    state = peft.get_peft_model_state_dict(trained)
    adapter = {name: value.float().numpy().astype(np.float32) for name, value in state.items()}

    raw = publish(adapter, manifest=manifest, job=manifest.manifest.jobs[0], run="run-1", rounds=1, signer=SIGNER)
    folder = ResultFolder(tmp_path / "results")
    folder.store("run-1", raw, SIGNER.public)
    out = tmp_path / "adapter"
    open_result(
        folder.results()[0][0].path, consortia.kem_key("alice"), MemberId("alice"), out, expected_signer=SIGNER.public
    )

    loaded = peft.PeftModel.from_pretrained(tiny(), str(out))
    tokens = torch.arange(12).reshape(1, 12)
    with torch.no_grad():
        expected, got = trained.eval()(tokens).logits, loaded.eval()(tokens).logits
        assert torch.equal(expected, got)
        assert not torch.allclose(got, tiny().eval()(tokens).logits)
    known = set(peft.LoraConfig.__dataclass_fields__)
    assert set(json.loads((out / CONFIG).read_bytes())) <= known
