"""Datasets as training sees them: tokens, and the batches of a round."""

from __future__ import annotations

from collections import Counter

import pytest

from participants.datasets import TextFormat, Tokens, round_batches
from participants.examples import Example
from superswarm.errors import Malformed
from tests.tiny import tiny_tokenizer

CANARY = "canary-5f1b"


def decode(tokenizer, ids) -> str:
    return tokenizer.decode(list(ids))


def test_chat_template_ends_the_answer_at_the_end_token() -> None:
    tokenizer = tiny_tokenizer(chat=True)
    [tokens] = TextFormat(tokenizer, 256).examples([Example("hi", "yes")])
    assert decode(tokenizer, tokens.ids[: tokens.start]) == "<|user|>hi<eos><|assistant|>"
    assert decode(tokenizer, tokens.ids[tokens.start :]) == "yes<eos>"
    assert TextFormat(tokenizer, 256).prompt("hi") == list(tokens.ids[: tokens.start])


def test_without_a_chat_template_the_format_is_plain() -> None:
    tokenizer = tiny_tokenizer(chat=False)
    [tokens] = TextFormat(tokenizer, 256).examples([Example("hi", "yes")])
    assert decode(tokenizer, tokens.ids[: tokens.start]) == "hi\n"
    assert decode(tokenizer, tokens.ids[tokens.start :]) == "yes<eos>"


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        ("{% for m in messages %}[{{ m.content | trim }}]<eos>\n{% endfor %}", "[yes]<eos>"),  # text after the end
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "yes<eos>"),  # no end of a turn
        ("{{ messages[-1].role }}:{{ messages[-1].content }}", "yes<eos>"),  # not a prefix of itself
    ],
)
def test_answers_end_whatever_the_template_does(template: str, answer: str) -> None:
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = template
    [tokens] = TextFormat(tokenizer, 256).examples([Example("hi", "yes")])
    assert decode(tokenizer, tokens.ids[tokens.start :]) == answer


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no') }}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",  # leaves the sandbox
        "{{ messages.append(1) }}",
        "{% for x in range(10**9) %}{% endfor %}",
    ],
)
def test_chat_templates_run_in_a_sandbox(template: str) -> None:
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = template
    with pytest.raises(Malformed):
        TextFormat(tokenizer, 256).examples([Example(CANARY, "yes")])


def test_long_examples_keep_their_completion_and_the_end_of_their_prompt() -> None:
    tokenizer = tiny_tokenizer(chat=False)
    text = TextFormat(tokenizer, 10)
    long_prompt, long_both, fits = text.examples(
        [Example("0123456789", "abc"), Example("0123456789", "abcdefghijklmn"), Example("01234", "abc")]
    )
    assert decode(tokenizer, long_prompt.ids) == "56789\nabc<eos>"
    assert decode(tokenizer, long_both.ids) == "\nabcdefghi"
    assert (long_both.start, long_both.learnt) == (1, 9)
    assert [long_prompt.cut, long_both.cut, fits.cut] == [True, True, False]


def items(count: int) -> list[Tokens]:
    return [Tokens(tuple(range(2 + i % 7)), 1) for i in range(count)]


def test_batches_are_a_function_of_seed_and_round() -> None:
    data = items(23)
    one = round_batches(data, seed=1, round_=2, batches=5, size=4)
    assert one == round_batches(data, seed=1, round_=2, batches=5, size=4)
    assert one != round_batches(data, seed=2, round_=2, batches=5, size=4)
    assert one != round_batches(data, seed=1, round_=3, batches=5, size=4)
    assert [len(batch) for batch in one] == [4] * 5


def test_rounds_go_on_where_the_last_one_stopped() -> None:
    data = [Tokens((0, i), 1) for i in range(10)]
    seen = Counter(
        tokens.ids
        for round_ in (1, 2, 3)
        for batch in round_batches(data, seed=5, round_=round_, batches=5, size=2)
        for tokens in batch
    )
    assert set(seen.values()) == {3}


def test_sequences_of_like_length_share_a_batch() -> None:
    batches = round_batches(items(56), seed=1, round_=1, batches=14, size=4)
    assert max(len({len(tokens.ids) for tokens in batch}) for batch in batches) <= 2


def test_a_set_smaller_than_a_batch_repeats() -> None:
    [batch] = round_batches(items(3), seed=1, round_=1, batches=1, size=8)
    assert len(batch) == 8
