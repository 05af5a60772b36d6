"""The files of a published adapter: what PEFT reads, and a card for people. No secret is among them."""

from __future__ import annotations

import json
from typing import Any

from superswarm.consortium.aggregation import SETTINGS
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.manifest import Aggregation, Asset, Job, Manifest
from superswarm.updates.adapter import AdapterSpec
from superswarm.values import SIMULATED_WARNING, Digest

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "README.md"


def adapter_config(manifest: Manifest, job: Job) -> bytes:
    """adapter_config.json as peft.LoraConfig writes it, from what the manifest says; the rest is peft's default."""
    lora = job.lora
    targets = list(lora.target_modules)
    whole = lora.alpha.is_integer()
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model(manifest, job).source,
        "revision": None,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if whole else lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": "all-linear" if targets == ["all-linear"] else sorted(targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }
    return json.dumps(config, indent=2, sort_keys=True).encode() + b"\n"


def card(manifest: ApprovedManifest, job: Job, *, run: str, rounds: int, spec: AdapterSpec, weights: Digest) -> bytes:
    """README.md: what the adapter is, which agreement and run it comes from, and how to load it."""
    agreed = manifest.manifest
    base = base_model(agreed, job)
    warning = f"> **{SIMULATED_WARNING}**\n\n" if manifest.simulated else ""
    text = f"""---
library_name: peft
pipeline_tag: text-generation
base_model: {json.dumps(base.source)}
tags: [lora, superswarm]
---
# An adapter of {_plain(agreed.name)}

{warning}A LoRA adapter (arXiv:2106.09685), trained with superswarm on data of the consortium's members, which stayed
with each of them.

| | |
|---|---|
| Consortium | {_plain(agreed.name)} (`{agreed.consortium}`) |
| Manifest | epoch {agreed.epoch}, `{manifest.digest}` |
| Attestation | {agreed.attestation} |
| Run | `{run}` of the job `{job.name}`, {rounds} of {job.rounds} rounds |
| Base model | {_plain(base.source)}, `{base.digest}` |
| LoRA | rank {job.lora.rank}, alpha {job.lora.alpha:g}, on {_plain(", ".join(job.lora.target_modules))} |
| Aggregation | {_aggregation(agreed.aggregation)} |
| Privacy | {agreed.privacy.mechanism} |
| Values | {spec.parameters:,} float32, `{weights}` |

It can tell its recipients something about the data it was trained on, as every model can. It loads on the base model
with the digest above, and on no other:

```python
from peft import PeftModel
model = PeftModel.from_pretrained(base_model, "this folder")
```
"""
    return text.encode()


def _aggregation(clause: Aggregation) -> str:
    given = [(name, getattr(clause, name)) for name in SETTINGS]
    settings = "".join(f", {name} = {value:g}" for name, value in given if value is not None)
    server = f", {clause.optimizer.kind} at the server" if clause.optimizer is not None else ""
    return _plain(f"{clause.rule}{settings}, weighting = {clause.weighting}{server}")


def base_model(manifest: Manifest, job: Job) -> Asset:
    """The asset that the job trains on; a manifest that names none does not exist."""
    asset = manifest.asset(job.base_model)
    if asset is None:
        raise RuntimeError("a manifest without its base model")
    return asset


def _plain(text: str) -> str:
    """Text of the manifest inside a table of Markdown: nothing in it is markup."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>()#+-.!|~&" else char for char in text)
