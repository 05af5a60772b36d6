"""Merging: an adapter becomes part of its base model, for a recipient to whom that model belongs.

LoRA stays with `participants.finetune`, the only module that imports peft; nothing in the adapter's folder says how
it is put on the model. Imports torch.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from participants.finetune import adapter_tensors, with_lora
from participants.loading import load_snapshot
from participants.models import Snapshot
from superswarm.consortium.manifest import Job
from superswarm.errors import Malformed, NotFinite
from superswarm.io.files import explained, new_folder, read_bytes
from superswarm.updates.adapter import Adapter, AdapterSpec, decode_adapter
from superswarm.updates.card import WEIGHTS
from superswarm.values import LIMITS

TYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CONFIG: Final = "config.json"
CONFIG_BYTES: Final = 16 * 1024**2


def merge(base: Snapshot, job: Job, adapter: Path, out: Path) -> None:
    """Write the base model, with the adapter in the folder `adapter` in its weights, to a new folder `out`.

    Computes in float32, and writes safetensors in the base's own type (float32 for GGUF). `out` appears whole or not
    at all. Raises what `load_snapshot` does, WrongShapes, NotFinite or Malformed for an adapter that does not fit,
    DiskFull or Environment.
    """
    stored = _stored_type(base)
    loaded = load_snapshot(base, device="cpu", precision="float32")
    adapted = with_lora(job, loaded)
    _put(adapted, adapter / WEIGHTS)
    try:
        merged = adapted.merge_and_unload(safe_merge=True).to(stored)
    except ValueError:
        raise NotFinite("the adapter's values make weights that are not finite") from None
    with explained(out.parent), new_folder(out) as folder:
        merged.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
        for file in folder.iterdir():
            _sync(file)


def _put(adapted: Any, weights: Path) -> None:
    """Set the LoRA tensors to the adapter's."""
    tensors = adapter_tensors(adapted)
    spec = AdapterSpec(tuple(sorted((name, tuple(tensor.shape)) for name, tensor in tensors.items())))
    values: Adapter = decode_adapter(read_bytes(weights, limit=LIMITS.body_bytes), spec)
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(np.array(values[name])))


def _stored_type(base: Snapshot) -> torch.dtype:
    """The type that the base's configuration names: how merged weights are rounded."""
    if base.gguf is not None:
        return torch.float32
    with base.files.open(CONFIG) as file:
        try:
            config = json.loads(file.read(CONFIG_BYTES))
        except (ValueError, RecursionError):
            raise Malformed(f"the base model's {CONFIG} is not JSON") from None
    named = config.get("dtype", config.get("torch_dtype")) if isinstance(config, dict) else None
    return TYPES.get(str(named), torch.float32)


def _sync(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
