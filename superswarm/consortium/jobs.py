"""Jobs: what is trained, on which base model, and how. Each gives one adapter."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from superswarm.consortium.clause import Clause, Line, Name


class Lora(Clause):
    """LoRA (arXiv:2106.09685), in the terms of peft.LoraConfig."""

    rank: Annotated[int, Field(ge=1, le=1024)]
    alpha: Annotated[float, Field(gt=0, le=65_536)]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[tuple[Line, ...], Field(strict=False, min_length=1, max_length=256)]


class Training(Clause):
    """How each trainer trains between two aggregations."""

    local_steps: Annotated[int, Field(ge=1, le=1_000_000)]  # optimiser steps a round
    batch_size: Annotated[int, Field(ge=1, le=65_536)]  # sequences a forward pass
    gradient_accumulation: Annotated[int, Field(ge=1, le=65_536)] = 1  # forward passes an optimiser step
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # over all rounds of the run
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    proximal_mu: Annotated[float, Field(ge=0, le=1000)] = 0.0  # FedProx (arXiv:1812.06127): pull to the round's start
    max_length: Annotated[int, Field(ge=8, le=1_048_576)]  # tokens a sequence; longer ones are cut
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of the frozen base; the adapter stays float32


class Evaluation(Clause):
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 8
    max_examples: Annotated[int, Field(ge=1, le=10_000_000)] = 1000


class Job(Clause):
    """What is trained: one adapter on one base model. Training hyperparameters come from here only."""

    name: Name
    base_model: Name
    task: Literal["causal-lm"] = "causal-lm"
    rounds: Annotated[int, Field(ge=1, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**53)]
    lora: Lora
    training: Training
    evaluation: Evaluation = Evaluation()
