"""Base models of some 30,000 parameters, made on the fly, that go through the real loader, tokenizer and peft."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Family = Literal["llama", "gpt2", "qwen2"]

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TARGETS: dict[Family, tuple[str, ...]] = {
    "llama": ("q_proj", "v_proj", "down_proj"),
    "gpt2": ("c_attn",),
    "qwen2": ("q_proj", "v_proj", "down_proj"),
}
"""Layers that a test may put LoRA on."""


def tiny_model(folder: Path, *, family: Family = "llama", chat: bool = True, seed: int = 0) -> Path:
    """Write a random causal LM (one byte a token, 27,000 to 42,000 parameters, safetensors) into `folder`.

    The same arguments write the same bytes, so its digest is stable. With `chat` the tokenizer has a chat template.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer(chat=chat)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(family, vocabulary=len(tokenizer), end=tokenizer.eos_token_id, pad=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    return folder


def tiny_tokenizer(*, chat: bool):
    """One byte a token, `<eos>` and `<pad>`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    raw = Tokenizer(models.BPE(vocab=letters, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>")
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _model(family: Family, *, vocabulary: int, end: int, pad: int):
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    # Wider than usual, so that the output layer, which LoRA leaves alone, can be sure of a token.
    spread = {"initializer_range": 0.3}
    ends = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}
    if family == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=2, n_positions=256, **spread, **ends)
        )
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        **spread,
        **ends,
    }
    if family == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(tie_word_embeddings=False, **shape))
    return LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **shape))


def tiny_gguf(file: Path, *, seed: int = 0) -> Path:
    """Write a random Llama of the same size as one GGUF file (float32) with its tokenizer."""
    import gguf
    import torch
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, "ab", "<eos>", "<pad>"]
    width, inner, layers, heads, key_heads = 32, 64, 2, 2, 1
    shapes = {"token_embd.weight": (len(tokens), width), "output_norm.weight": (width,)}
    for layer in range(layers):
        shapes |= {f"blk.{layer}.{name}_norm.weight": (width,) for name in ("attn", "ffn")}
        shapes |= {f"blk.{layer}.attn_{name}.weight": (width, width) for name in ("q", "output")}
        shapes |= {f"blk.{layer}.attn_{name}.weight": (width * key_heads // heads, width) for name in ("k", "v")}
        shapes |= {f"blk.{layer}.ffn_{name}.weight": (inner, width) for name in ("gate", "up")}
        shapes[f"blk.{layer}.ffn_down.weight"] = (width, inner)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 2) + [3, 3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(len(tokens) - 2)
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_pad_token_id(len(tokens) - 1)
    generator = torch.Generator().manual_seed(seed)
    for name, shape in shapes.items():
        values = torch.ones(shape) if "norm" in name else torch.randn(shape, generator=generator) * 0.3
        writer.add_tensor(name, values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
