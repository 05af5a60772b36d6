"""Messages of secure rounds, changed at random: they are refused by errors on purpose, and no sum is wrong."""

from __future__ import annotations

from dataclasses import fields, replace
from random import Random
from typing import Any

import pytest

from superswarm.errors import Error
from superswarm.updates.secure.total import check_total
from superswarm.values import MemberId
from tests.hesums import HeMembers, HePlay
from tests.hesums import manifest as he_manifest
from tests.securesums import MOST, Members, Play, manifest

MASKED, ENCRYPTED = Members(manifest(5, 4, 1, 1)), HeMembers(he_manifest(5))
numbers = iter(range(1, 10**6))
TRIES = 12


def changed(message: Any, random: Random) -> Any:
    """The same message, or bytes, with one thing changed."""
    if isinstance(message, bytes):
        return changed_bytes(message, random)
    if isinstance(message, tuple):  # a message and its body
        which = random.randrange(len(message))
        return tuple(changed(part, random) if i == which else part for i, part in enumerate(message))
    name = random.choice([field.name for field in fields(message)] or [""])
    return replace(message, **{name: changed_value(getattr(message, name), random)}) if name else message


def changed_value(value: Any, random: Random) -> Any:
    match value:
        case bytes():
            return changed_bytes(value, random)
        case tuple():
            blobs = list(value)
            match random.randrange(4):
                case 0:
                    random.shuffle(blobs)
                case 1:
                    blobs = blobs[:-1]
                case 2:
                    blobs.append(random.randbytes(random.choice([0, 1, 32, 66, 3373])))
                case _:
                    blobs = [changed_bytes(blob, random) for blob in blobs]
            return tuple(blobs)
        case int():
            return random.choice([0, value + 1, 2**61 - 1, 2**63 - 1])
        case _:
            return random.choice(["", "mallory", "m000", "m004", value + "x"])


def changed_bytes(data: bytes, random: Random) -> bytes:
    match random.randrange(5):
        case 0:
            return b""
        case 1:
            return data[:-1]
        case 2:
            return data + random.randbytes(1)
        case 3:
            return random.randbytes(len(data))
        case _:
            at = random.randrange(max(1, len(data)))
            return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :] if data else b"\1"


class Liar:
    """Changes what passes at one step: to or from one member, or all of them."""

    def __init__(self, step: str, seed: int) -> None:
        self.step, self.random = step, Random(seed)
        self.whom = self.random.choice([*MASKED.names, None])

    def __call__(self, step: str, name: MemberId, message: Any) -> Any:
        hit = step == self.step and message is not None and self.whom in (name, None)
        return changed(message, self.random) if hit else message


@pytest.mark.parametrize("direction", ["to members", "from members"])
@pytest.mark.parametrize("step", ["advertise", "share", "mask", "sign", "unmask"])
@pytest.mark.parametrize("seed", range(TRIES))
def test_a_changed_message_of_a_masked_round_gives_no_wrong_sum(direction: str, step: str, seed: int) -> None:
    liar = Liar(step, seed)
    hooks: dict[str, Any] = {"hook" if direction == "to members" else "answers": liar}
    play = Play(MASKED, round_=next(numbers), **hooks)
    try:
        total, found = play.run()
        name = next(name for name in MASKED.names if name not in play.refusals)
        context, code = MASKED.context(play.number), MASKED.code(play.number)
        taken = check_total(
            MASKED.standings[name],
            total,
            found.to_bytes(),
            context=context,
            code=code,
            most=MOST,
            known=play.sides[name].unmasked,
        )
    except Error:
        return
    assert found.to_bytes() == MASKED.expected(taken.survivors, play.number).to_bytes()


@pytest.mark.parametrize("step", ["deal", "receive", "encrypt", "sign", "decrypt", "take"])
@pytest.mark.parametrize("seed", range(TRIES))
def test_a_changed_message_of_an_encrypted_round_gives_no_wrong_sum(step: str, seed: int) -> None:
    play = HePlay(ENCRYPTED, round_=next(numbers), hook=Liar(step, seed))
    try:
        play.run()
    except Error:
        return
    if play.sums:
        play.check()


@pytest.mark.parametrize("seed", range(TRIES))
def test_a_changed_sum_is_refused(seed: int) -> None:
    random = Random(seed)
    play = Play(MASKED, round_=next(numbers))
    total, found = play.run()
    name = MASKED.names[seed % 5]
    said, body = changed((total, found.to_bytes()), random)
    context, code = MASKED.context(play.number), MASKED.code(play.number)
    for known in (None, play.sides[name].unmasked):
        try:
            taken = check_total(
                MASKED.standings[name], said, body, context=context, code=code, most=MOST, known=known
            )
        except Error:
            continue
        assert (body, taken.survivors) == (found.to_bytes(), frozenset(MASKED.names))
