"""Loading a base model by the safe rules: only approved bytes, no code of its own, nothing from the network."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeAlias

import gguf
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers import modeling_gguf_pytorch_utils as transformers_gguf
from transformers.utils import logging

from participants.models import Snapshot, snapshot
from superswarm.errors import Environment, Malformed
from superswarm.values import Digest

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]

LOADING_ERRORS = (
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)
"""What transformers raises for files that are not what they claim to be."""


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A base model whose files had the digest that the manifest names. Only `load_snapshot` makes one."""

    model: Any  # transformers.PreTrainedModel, frozen, on `device`
    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    device: torch.device
    digest: Digest


def load_base(
    path: Path,
    expected: Digest,
    *,
    device: str = "auto",
    precision: Precision = "auto",
) -> LoadedBase:
    """Load a causal LM and its tokenizer from a folder or GGUF file, which must have the expected digest.

    Raises UnsafeModel, WrongModel or Malformed, and Environment where memory is too small.
    """
    with snapshot(path, expected) as copy:
        return load_snapshot(copy, device=device, precision=precision)


def load_snapshot(copy: Snapshot, *, device: str = "auto", precision: Precision = "auto") -> LoadedBase:
    """Load a causal LM and its tokenizer from approved files in memory, plain or once sealed.

    The weights may go on using the memory of the files, which the kernel keeps for them, and never hold it twice.
    Raises Malformed, and Environment where the device has too little memory.
    """
    # A trainer's log says what superswarm says: libraries' warnings may quote a model or its data.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    model, tokenizer = _from_snapshot(copy, _dtype(precision, where))
    if model.get_output_embeddings() is None:
        raise Malformed("the base model has no output layer: it is no causal LM")
    if tokenizer.eos_token_id is None:
        raise Malformed("the base model's tokenizer has no end-of-sequence token")
    model.requires_grad_(requires_grad=False)
    model.eval()
    return LoadedBase(model.to(where), tokenizer, where, copy.digest)


def _from_snapshot(copy: Snapshot, dtype: torch.dtype) -> tuple[Any, Any]:
    safe: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    weights: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if copy.gguf is not None:
        safe["gguf_file"] = copy.gguf
        # Dequantised at once: a model that stays marked as quantised can be neither trained nor saved.
        weights = {"dtype": dtype, "quantization_config": GgufConfig(dequantize=True)}
    try:
        with _gguf_read_once():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                copy.folder, **safe, **weights, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(copy.folder, **safe)
    except torch.OutOfMemoryError:
        raise Environment("the device has too little memory for the base model") from None
    except LOADING_ERRORS as error:
        # their text may quote the files
        raise Malformed(f"the base model does not load as a causal LM: {type(error).__name__}") from None
    model, info = loaded
    # What the files lack, transformers would draw at random, and every trainer would have another base model.
    lacking = len(info["missing_keys"]) + len(info["mismatched_keys"])
    if lacking:
        raise Malformed(f"the base model's files lack {lacking} of the tensors of a causal LM")
    return model, tokenizer


def _dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The frozen base's type. `auto`: bfloat16 where the hardware multiplies it, else float32."""
    if precision == "float32" or (precision == "auto" and not _multiplies_bfloat16(device)):
        return torch.float32
    return torch.bfloat16


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


@contextmanager
def _gguf_read_once() -> Iterator[None]:
    """Let transformers parse a GGUF file once, not five times, map its names once, not once a module, and in silence.

    Takes the load of SmolLM2-135M (Q4_1) from 18 s to 6 s of one core. Holds for this load only.
    """
    tqdm = transformers_gguf.tqdm  # type: ignore[attr-defined]  # its name for it
    changes: list[tuple[ModuleType, str, Any]] = [
        (gguf, "GGUFReader", functools.lru_cache(maxsize=1)(gguf.GGUFReader)),
        (gguf, "get_tensor_name_map", functools.lru_cache(maxsize=1)(gguf.get_tensor_name_map)),
        (transformers_gguf, "tqdm", functools.partial(tqdm, disable=True)),
    ]
    plain = [getattr(module, name) for module, name, _ in changes]
    for module, name, changed in changes:
        setattr(module, name, changed)
    try:
        yield
    finally:
        for (module, name, _), original in zip(changes, plain, strict=True):
            setattr(module, name, original)
