"""Fine-tuning: LoRA on a frozen causal LM, as one member's trainer does it between two aggregations.

The only module that imports peft. Hyperparameters come from the manifest's job and nowhere else.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

from participants.datasets import TextFormat, Tokens, round_batches
from participants.examples import Example
from participants.loading import LoadedBase
from superswarm.consortium.manifest import Job, Training
from superswarm.errors import Misconfigured, NotFinite
from superswarm.updates.adapter import Adapter, AdapterSpec

Progress: TypeAlias = Callable[[int, int, float], None]
"""Called after each optimiser step with the step of this round, the steps of the round, and the step's loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """One round of one trainer. `loss` is the mean a learnt token, over the round, before each step."""

    examples: int  # in the member's training split: its weight in the average
    cut: int  # of them longer than the job's max_length, and so cut
    steps: int
    loss: float
    tokens: int  # that went through the model, padding included
    clipped: int  # steps whose gradient was over max_gradient_norm
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport:
    """An adapter scored on the member's held-out split."""

    loss: float  # mean a learnt token
    exact: int  # examples that greedy generation answers word for word
    examples: int
    tokens: int  # learnt tokens scored
    seconds: float


class Finetuner:
    """A base model with one LoRA adapter, a member's two splits, and the job. Holds plaintext: lives in the TEE."""

    def __init__(
        self, job: Job, base: LoadedBase, train: Sequence[Example], test: Sequence[Example], *, threads: int = 1
    ) -> None:
        """Tokenise both splits and put LoRA on the base, which this object then owns.

        `threads` is set for the whole process: torch takes every core by default, and trainers that share a machine
        then slow each other down fivefold.
        """
        torch.set_num_threads(threads)
        self._job = job
        self._base = base
        self._format = TextFormat(base.tokenizer, job.training.max_length)
        self.train_tokens = self._format.examples(train)
        self.test_tokens = self._format.examples(test[: job.evaluation.max_examples])
        self._model = with_lora(job, base)
        self._values = adapter_tensors(self._model)
        self.spec = AdapterSpec(tuple(sorted((name, tuple(t.shape)) for name, t in self._values.items())))

    @property
    def examples(self) -> int:
        """Examples in the training split."""
        return len(self.train_tokens)

    def initial(self) -> Adapter:
        """The adapter that every trainer starts from, the same on every machine: see `initial_adapter`."""
        return initial_adapter(self.spec, self._job.seed)

    def train(self, adapter: Adapter, round_: int, progress: Progress | None = None) -> tuple[Adapter, TrainReport]:
        """Train `adapter` for the job's local steps, as round `round_` (from 1) of the run.

        The learning rate follows the schedule over all rounds. The optimiser starts afresh each round: its state
        belongs to the values that this trainer had, not to the average that it now starts from. The reported loss is
        that of the data, without the proximal term. Raises NotFinite if the loss or a gradient is not a number; the
        adapter that was passed in is unharmed.
        """
        began = time.monotonic()
        self._load(adapter)
        plan, run_steps = self._job.training, self._job.rounds * self._job.training.local_steps
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(parameters, lr=0.0, weight_decay=plan.weight_decay, fused=True)
        start = [p.detach().clone() for p in parameters] if plan.proximal_mu else []
        batches = round_batches(
            self.train_tokens,
            seed=self._job.seed,
            round_=round_,
            batches=plan.local_steps * plan.gradient_accumulation,
            size=plan.batch_size,
        )
        losses, tokens, clipped = [], 0, 0
        with self._training(round_):
            for step in range(plan.local_steps):
                rate = learning_rate(plan, (round_ - 1) * plan.local_steps + step, run_steps)
                optimiser.param_groups[0]["lr"] = rate
                micro = batches[step * plan.gradient_accumulation : (step + 1) * plan.gradient_accumulation]
                losses.append(self._backward(micro))
                if plan.proximal_mu:
                    _add_proximal_gradient(parameters, start, plan.proximal_mu)
                norm = torch.nn.utils.clip_grad_norm_(parameters, plan.max_gradient_norm).item()
                if not math.isfinite(norm):
                    raise NotFinite(f"the gradient of step {step + 1} of round {round_} is not finite")
                optimiser.step()
                optimiser.zero_grad()
                clipped += norm > plan.max_gradient_norm
                tokens += sum(len(batch) * max(len(item.ids) for item in batch) for batch in micro)
                if progress is not None:
                    progress(step + 1, plan.local_steps, losses[-1])
        report = TrainReport(
            examples=len(self.train_tokens),
            cut=sum(item.cut for item in self.train_tokens),
            steps=plan.local_steps,
            loss=math.fsum(losses) / len(losses),
            tokens=tokens,
            clipped=clipped,
            seconds=time.monotonic() - began,
        )
        return self._unload(), report

    def evaluate(self, adapter: Adapter | None) -> EvalReport:
        """Score an adapter, or the base model alone, on the held-out split."""
        return self.score(adapter, self.test_tokens)

    def evaluate_on(self, adapter: Adapter | None, examples: Sequence[Example]) -> EvalReport:
        """Score an adapter, or the base model alone, on another held-out split."""
        return self.score(adapter, self._format.examples(examples[: self._job.evaluation.max_examples]))

    def score(self, adapter: Adapter | None, data: Sequence[Tokens]) -> EvalReport:
        """Mean loss a learnt token, and exact answers: an answer whose every token is the likeliest one after those
        before it is what greedy generation writes (up to rounding), so nothing need be generated.
        """
        began = time.monotonic()
        ordered = sorted(data, key=lambda item: len(item.ids))
        size = self._job.evaluation.batch_size
        total, exact = 0.0, 0
        with self._scoring(adapter):
            for at in range(0, len(ordered), size):
                batch = ordered[at : at + size]
                logits, labels = self._logits(batch)
                total += _token_losses(logits, labels).sum().item()
                right = torch.split(logits.argmax(-1) == labels, [item.learnt for item in batch])
                exact += sum(bool(answer.all()) for answer in right)
        tokens = sum(item.learnt for item in ordered)
        if not math.isfinite(total):
            raise NotFinite("the evaluation's loss is not finite")
        return EvalReport(
            loss=total / tokens,
            exact=exact,
            examples=len(ordered),
            tokens=tokens,
            seconds=time.monotonic() - began,
        )

    def generate(self, adapter: Adapter | None, prompt: str, max_new_tokens: int = 64) -> str:
        """The completion that greedy decoding writes, under an adapter or the base model alone."""
        ids = torch.tensor([self._format.prompt(prompt)], device=self._base.device)
        with self._scoring(adapter):
            written = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                pad_token_id=self._base.tokenizer.eos_token_id,
            )
        return str(self._base.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)).strip()

    def _backward(self, micro: Sequence[Sequence[Tokens]]) -> float:
        """Add one optimiser step's gradients, and return its loss: a mean over all its learnt tokens."""
        learnt = sum(item.learnt for batch in micro for item in batch)
        total = 0.0
        for batch in micro:
            loss = _token_losses(*self._logits(batch)).sum() / learnt
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        if not math.isfinite(total):
            raise NotFinite("the training loss is not finite")
        return total

    def _logits(self, batch: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, V) that predict the N learnt tokens of a batch, example after example, and those tokens (N,).

        Padding stands on the right, where a causal model's earlier tokens do not see it: no mask is needed. Only
        hidden states that predict a learnt token reach the output layer, the costliest of a small model.
        """
        width = max(len(item.ids) for item in batch)
        fill = self._base.tokenizer.eos_token_id
        ids = torch.tensor([[*item.ids, *[fill] * (width - len(item.ids))] for item in batch])  # (B, T)
        predicts = torch.zeros(ids.shape, dtype=torch.bool)
        for row, item in enumerate(batch):
            predicts[row, item.start - 1 : len(item.ids) - 1] = True
        labels = ids[predicts.roll(1, dims=1)].to(self._base.device)  # (N,)
        predicts = predicts.to(self._base.device)

        def select(_: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return (args[0][predicts].unsqueeze(0), *args[1:])  # (B, T, H) → (1, N, H)

        hook = self._model.get_output_embeddings().register_forward_pre_hook(select)
        try:
            logits = self._model(input_ids=ids.to(self._base.device), use_cache=False).logits  # (1, N, V)
        finally:
            hook.remove()
        return logits[0].float(), labels

    @contextmanager
    def _training(self, round_: int) -> Iterator[None]:
        """Dropout on, its noise a function of seed and round."""
        devices = [self._base.device] if self._base.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(_number(f"superswarm/dropout/{self._job.seed}/{round_}"))
            self._model.train()
            try:
                yield
            finally:
                self._model.eval()
                self._model.zero_grad(set_to_none=True)

    @contextmanager
    def _scoring(self, adapter: Adapter | None) -> Iterator[None]:
        with torch.no_grad():
            if adapter is None:
                with self._model.disable_adapter():
                    yield
            else:
                self._load(adapter)
                yield

    def _load(self, adapter: Adapter) -> None:
        self.spec.check(adapter)
        with torch.no_grad():
            for name, tensor in self._values.items():
                tensor.copy_(torch.from_numpy(np.array(adapter[name])))

    def _unload(self) -> Adapter:
        adapter = {name: tensor.cpu().numpy().copy() for name, tensor in self._values.items()}
        self.spec.check(adapter)
        return adapter


def learning_rate(plan: Training, step: int, steps: int) -> float:
    """The rate at `step` (from 0) of `steps` in the whole run: linear warm-up, then the schedule down to zero."""
    if step < plan.warmup_steps:
        return plan.learning_rate * (step + 1) / plan.warmup_steps
    done = (step - plan.warmup_steps) / max(1, steps - plan.warmup_steps)
    match plan.schedule:
        case "constant":
            return plan.learning_rate
        case "linear":
            return plan.learning_rate * (1 - done)
        case "cosine":
            return plan.learning_rate * (1 + math.cos(math.pi * done)) / 2


def _add_proximal_gradient(parameters: list[Any], start: list[torch.Tensor], mu: float) -> None:
    """FedProx (arXiv:1812.06127): the gradient of μ/2·‖w - w₀‖², w₀ being what the round began from.

    Added in closed form, which is what the term in the loss would give, without a graph over all parameters. Before
    clipping, since it is part of the gradient that is clipped.
    """
    with torch.no_grad():
        for parameter, began in zip(parameters, start, strict=True):
            parameter.grad.add_(parameter - began, alpha=mu)


def initial_adapter(spec: AdapterSpec, seed: int) -> Adapter:
    """LoRA's start (arXiv:2106.09685, section 4.1): B zero, A uniform in ±1/√inputs, as peft draws it.

    Uses no library's float generator, whose streams may change: Philox words keyed by SHA-256 of seed and tensor
    name, the top 24 bits of each taken as a fraction. So every machine and version starts from the same bytes.
    """
    start = {name: np.zeros(shape, np.float32) for name, shape in spec.shapes}
    for name, array in start.items():
        if name.endswith("lora_A.weight"):
            array[:] = _uniform(name, array.shape, seed)
    return start


def _uniform(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    key = _number(f"superswarm/initial/{seed}/{name}")
    words = np.random.Philox(key=key).random_raw(math.prod(shape))  # 64 bits each
    fractions = (words >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - np.float32(1)  # [-1, 1)
    inputs = math.prod(shape[1:])
    return (fractions / np.float32(math.sqrt(inputs))).reshape(shape)


def _number(label: str) -> int:
    return int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "big")


def _token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")  # (N,)


def with_lora(job: Job, base: LoadedBase) -> Any:
    """The base with float32 LoRA layers. It is on its device already: moved later, they go wrong (opacus #820)."""
    targets = list(job.lora.target_modules)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=job.lora.rank,
        lora_alpha=job.lora.alpha,  # type: ignore[arg-type]  # any number works
        lora_dropout=job.lora.dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        bias="none",
    )
    try:
        return get_peft_model(base.model, config, autocast_adapter_dtype=True)
    except ValueError:
        raise Misconfigured(f"job.lora.target_modules {targets} match no layer that LoRA fits on") from None


def adapter_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The LoRA tensors under the names of adapter_model.safetensors; they share the model's memory."""
    tensors: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    if any(not name.endswith(("lora_A.weight", "lora_B.weight")) or t.dim() != 2 for name, t in tensors.items()):
        raise Misconfigured("job.lora.target_modules names a layer that is not linear")
    return tensors
