"""The trainer's learner: fine-tuning, seen as the protocol sees it."""

from __future__ import annotations

from participants.finetune import Finetuner
from superswarm.io.progress import progress
from superswarm.updates.adapter import Adapter, AdapterSpec


class FinetuneLearner:
    """LoRA fine-tuning on one member's data, with a progress bar a round."""

    def __init__(self, finetuner: Finetuner, steps: int) -> None:
        self._finetuner, self._steps = finetuner, steps

    @property
    def spec(self) -> AdapterSpec:
        return self._finetuner.spec

    @property
    def examples(self) -> int:
        return self._finetuner.examples

    def initial(self) -> Adapter:
        return self._finetuner.initial()

    def train(self, adapter: Adapter, round_: int) -> tuple[Adapter, float]:
        with progress(f"round {round_}", self._steps) as bar:
            trained, report = self._finetuner.train(adapter, round_, lambda *_: bar.advance())
        return trained, report.loss

    def evaluate(self, adapter: Adapter) -> float:
        return self._finetuner.evaluate(adapter).loss
