"""A member's dataset as training sees it: token sequences, and the batches of a round."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from jinja2 import TemplateError

from participants.examples import Example
from superswarm.errors import Malformed

WINDOW: Final = 16  # batches among which sequences of like length are brought together
PLAIN_SEPARATOR: Final = "\n"


@dataclass(frozen=True, slots=True)
class Tokens:
    """One example as a model sees it: `ids[:start]` is the prompt, `ids[start:]` the completion that is learnt."""

    ids: tuple[int, ...]
    start: int
    cut: bool = False  # it was longer than the job allows

    @property
    def learnt(self) -> int:
        """Tokens that count in the loss."""
        return len(self.ids) - self.start


class TextFormat:
    """How this base model's tokenizer turns an example into tokens: by its chat template, or else plainly.

    Prompt and completion become tokens apart from each other, so that training and generation see the same prompt.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._chat = bool(tokenizer.chat_template)
        begins = [] if self._chat else tokenizer("")["input_ids"]
        self._begin = begins[:1] if begins[:1] == [tokenizer.bos_token_id] else []

    def examples(self, examples: Sequence[Example]) -> list[Tokens]:
        """Tokens of every example, each at most `max_length` long, the completion kept as whole as possible."""
        prompts = self._ids([self._prompt(example.prompt) for example in examples])
        completions = self._ids([self._completion(example) for example in examples])
        return [self._cut([*self._begin, *p], c) for p, c in zip(prompts, completions, strict=True)]

    def prompt(self, prompt: str) -> list[int]:
        """Tokens after which a model generates the completion."""
        return [*self._begin, *self._ids([self._prompt(prompt)])[0]]

    def _prompt(self, prompt: str) -> str:
        if not self._chat:
            return prompt + PLAIN_SEPARATOR
        return self._render([{"role": "user", "content": prompt}], more=True)

    def _completion(self, example: Example) -> str:
        """What the model must write: the completion and whatever ends a turn, up to the end-of-sequence token."""
        end = str(self._tokenizer.eos_token)
        if not self._chat:
            return example.completion + end
        turns = [{"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.completion}]
        whole, prompt = self._render(turns, more=False), self._prompt(example.prompt)
        text = whole.removeprefix(prompt) if whole.startswith(prompt) else example.completion
        if text.strip() == example.completion.strip():
            text = example.completion + end  # the template does not end a turn, or is not its own prefix
        head, found, _ = text.partition(end)
        return head + found

    def _render(self, turns: list[dict[str, str]], *, more: bool) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=more)
            )  # in transformers' sandbox (jinja2.sandbox.ImmutableSandboxedEnvironment)
        except (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            raise Malformed("the base model's chat template does not take a user's turn and an answer") from None

    def _ids(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def _cut(self, prompt: list[int], completion: list[int]) -> Tokens:
        kept = max(1, self._max_length - len(completion))  # the prompt's end matters most; one token must remain
        cut = len(prompt) > kept
        prompt = prompt[-kept:]
        room = self._max_length - len(prompt)
        return Tokens((*prompt, *completion[:room]), len(prompt), cut or len(completion) > room)


def round_batches(data: Sequence[Tokens], *, seed: int, round_: int, batches: int, size: int) -> list[list[Tokens]]:
    """The batches of one round, a pure function of its arguments: rounds go on where the last one stopped.

    Every epoch is another order of the data. Within a window of batches, sequences of like length share a batch, to
    pad less; the batches of a window come in random order.
    """
    start = (round_ - 1) * batches * size
    drawn = list(islice(_stream(data, seed, start), batches * size))
    shuffle = random.Random(f"superswarm/batches/{seed}/{round_}")  # noqa: S311 (an order, not a secret)
    result: list[list[Tokens]] = []
    for at in range(0, len(drawn), WINDOW * size):
        window = sorted(drawn[at : at + WINDOW * size], key=lambda tokens: len(tokens.ids))
        grouped = [window[i : i + size] for i in range(0, len(window), size)]
        shuffle.shuffle(grouped)
        result += grouped
    return result


def _stream(data: Sequence[Tokens], seed: int, start: int) -> Iterator[Tokens]:
    """The data without end from position `start`, each epoch in its own order."""
    epoch, skip = divmod(start, len(data))
    while True:
        order = list(range(len(data)))
        random.Random(f"superswarm/epoch/{seed}/{epoch}").shuffle(order)  # noqa: S311 (an order, not a secret)
        for index in order[skip:]:
            yield data[index]
        epoch, skip = epoch + 1, 0
