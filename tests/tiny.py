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
