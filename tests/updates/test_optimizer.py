"""The server's step: as in the papers, as Flower's and torch's, the same bits everywhere, and never half done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superswarm.consortium.aggregation import Adaptive, Momentum, Optimizer
from superswarm.errors import NotFinite, WrongShapes
from superswarm.updates.adapter import Adapter, AdapterSpec, decode_adapter, encode_adapter
from superswarm.updates.optimizer import FIRST, SECOND, ServerOptimizer
from superswarm.values import Digest

SPEC = AdapterSpec((("a.lora_A", (3, 5)), ("a.lora_B", (7,))))
FEDAVGM = Momentum(kind="fedavgm", learning_rate=0.5, momentum=0.9)
NESTEROV = Momentum(kind="nesterov", learning_rate=0.7, momentum=0.9)
ADAM = Adaptive(kind="fedadam", learning_rate=0.01, beta1=0.9, beta2=0.99, tau=0.001)
YOGI = Adaptive(kind="fedyogi", learning_rate=0.01, beta1=0.9, beta2=0.99, tau=0.001)
ALL: list[Optimizer | None] = [None, FEDAVGM, NESTEROV, ADAM, YOGI]


def name_of(clause: Optimizer | None) -> str:
    return "none" if clause is None else clause.kind


def draw(seed: int, scale: float = 1.0) -> Adapter:
    rng = np.random.default_rng(seed)
    return {name: (rng.standard_t(3, shape) * scale).astype(np.float32) for name, shape in SPEC.shapes}


def rounds(clause: Optimizer | None, deltas: list[Adapter]) -> list[Adapter]:
    """The global adapter before the first round, and after each."""
    optimizer = ServerOptimizer(clause, SPEC)
    held = [optimizer.start(draw(0))]
    for delta in deltas:
        held.append(optimizer.step(held[-1], delta))
    return [optimizer.adapter(one) for one in held]


def close(ours: Adapter, theirs: dict[str, Any], tolerance: float = 2e-6) -> None:
    for name, _ in SPEC.shapes:
        assert ours[name].dtype == np.float32
        np.testing.assert_allclose(ours[name], theirs[name], rtol=tolerance, atol=tolerance)


DELTAS = [draw(seed, 0.05) for seed in range(1, 7)]


# --- what others compute ------------------------------------------------------------------------------------------


def test_without_an_optimiser_the_mean_is_added() -> None:
    before, after = rounds(None, DELTAS[:1])
    for name, _ in SPEC.shapes:
        np.testing.assert_array_equal(after[name], before[name] + DELTAS[0][name])
    assert ServerOptimizer(None, SPEC).held == SPEC


@pytest.mark.parametrize("clause", [FEDAVGM, NESTEROV], ids=name_of)
def test_momentum_is_that_of_torch(clause: Momentum) -> None:
    import torch

    values = {name: torch.tensor(array.copy(), requires_grad=True) for name, array in draw(0).items()}
    sgd = torch.optim.SGD(
        values.values(), lr=clause.learning_rate, momentum=clause.momentum, nesterov=clause.kind == "nesterov"
    )
    for delta, ours in zip(DELTAS, rounds(clause, DELTAS)[1:], strict=True):
        for name, value in values.items():
            value.grad = -torch.tensor(delta[name])
        sgd.step()
        close(ours, {name: value.detach().numpy() for name, value in values.items()})


def flower_rounds(strategy: Any, before_round: Any = lambda *_: None) -> list[dict[str, Any]]:
    """What a strategy of Flower makes of the same mean updates: its global arrays after each round."""
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

    arrays = {name: array.astype(np.float64) for name, array in draw(0).items()}
    after = []
    for number, delta in enumerate(DELTAS, start=1):
        record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
        strategy.current_arrays = record if hasattr(strategy, "momentum_vector") else dict(arrays)
        before_round(strategy, number)
        trained = ArrayRecord({name: Array(arrays[name] + delta[name]) for name in arrays})
        content = RecordDict({"arrays": trained, "metrics": MetricRecord({"num-examples": 1})})
        reply = SimpleNamespace(content=content, has_error=lambda: False)  # what a strategy reads of a Message
        result, _ = strategy.aggregate_train(number, [reply])
        arrays = {name: result[name].numpy() for name in arrays}
        after.append(arrays)
    return after


def test_fedavgm_is_flowers() -> None:
    from flwr.serverapp.strategy import FedAvgM

    theirs = flower_rounds(FedAvgM(server_learning_rate=0.5, server_momentum=0.9))
    for one, two in zip(rounds(FEDAVGM, DELTAS)[1:], theirs, strict=True):
        close(one, two)


def start_at_tau_squared(strategy: Any, number: int) -> None:
    """Flower starts the second moment at zero; the paper at τ² or more."""
    if number == 1:
        strategy.v_t = {name: np.full(shape, strategy.tau**2) for name, shape in SPEC.shapes}


def test_fedyogi_is_flowers_but_for_the_start() -> None:
    from flwr.serverapp.strategy import FedYogi

    strategy = FedYogi(eta=0.01, beta_1=0.9, beta_2=0.99, tau=0.001)
    theirs = flower_rounds(strategy, start_at_tau_squared)
    for one, two in zip(rounds(YOGI, DELTAS)[1:], theirs, strict=True):
        close(one, two)


def test_fedadam_is_flowers_but_for_the_start_and_its_bias_correction() -> None:
    """Flower corrects Adam's bias, as if it were the next round; arXiv:2003.00295 does not."""
    from flwr.serverapp.strategy import FedAdam

    def uncorrected(strategy: Any, number: int) -> None:
        start_at_tau_squared(strategy, number)
        strategy.eta = 0.01 * (1 - 0.9 ** (number + 1)) / np.sqrt(1 - 0.99 ** (number + 1))

    theirs = flower_rounds(FedAdam(eta=0.01, beta_1=0.9, beta_2=0.99, tau=0.001), uncorrected)
    for one, two in zip(rounds(ADAM, DELTAS)[1:], theirs, strict=True):
        close(one, two)


def test_the_first_adaptive_step_is_that_of_the_paper() -> None:
    for clause in (ADAM, YOGI):
        before, after = rounds(clause, DELTAS[:1])
        delta = DELTAS[0]["a.lora_B"].astype(np.float64)
        start = np.full_like(delta, 1e-6)
        fresh = 0.01 * delta**2
        second = 0.99 * start + fresh if clause is ADAM else start - fresh * np.sign(start - delta**2)
        step = 0.01 * 0.1 * delta / (np.sqrt(second) + 0.001)
        np.testing.assert_allclose(after["a.lora_B"], before["a.lora_B"] + step, rtol=1e-6, atol=1e-7)


# --- what is held -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clause", ALL, ids=name_of)
def test_whoever_holds_the_bytes_makes_the_same_next_bytes(clause: Optimizer | None) -> None:
    """An aggregator that was restarted, or a trainer that replicates the step."""
    optimizer = ServerOptimizer(clause, SPEC)
    held = optimizer.start(draw(0))
    for delta in DELTAS:
        elsewhere = decode_adapter(encode_adapter(held), ServerOptimizer(clause, SPEC).held)
        again = ServerOptimizer(clause, SPEC).step(elsewhere, delta)
        held = optimizer.step(held, delta)
        assert encode_adapter(held) == encode_adapter(again)


@pytest.mark.parametrize(
    ("clause", "digest"),
    [(FEDAVGM, "bfd1fb7c37ff"), (NESTEROV, "ec8792475780"), (ADAM, "179148cef435"), (YOGI, "81a639b8a727")],
    ids=["fedavgm", "nesterov", "fedadam", "fedyogi"],
)
def test_the_steps_never_change_between_versions(clause: Optimizer, digest: str) -> None:
    values = SPEC.views(np.arange(-11, 11, dtype=np.float32) / np.float32(7))
    optimizer = ServerOptimizer(clause, SPEC)
    held = optimizer.start(values)
    for _ in range(3):
        held = optimizer.step(held, values)
    assert Digest.of(encode_adapter(held)).short == digest


@pytest.mark.parametrize(("clause", "vectors"), [(None, 0), (FEDAVGM, 1), (NESTEROV, 1), (ADAM, 2), (YOGI, 2)])
def test_the_state_is_one_or_two_vectors(clause: Optimizer | None, vectors: int) -> None:
    optimizer = ServerOptimizer(clause, SPEC)
    held = optimizer.start(draw(0))
    assert optimizer.held.parameters == (1 + vectors) * SPEC.parameters
    assert AdapterSpec.of(held) == optimizer.held
    assert AdapterSpec.of(optimizer.adapter(held)) == SPEC


@settings(deadline=None)
@given(st.sampled_from(ALL), st.floats(-(2.0**50), 2.0**50, width=32), st.floats(-(2.0**50), 2.0**50, width=32))
def test_the_second_moment_stays_positive_and_nothing_overflows(
    clause: Optimizer | None, one: float, two: float
) -> None:
    optimizer = ServerOptimizer(clause, SPEC)
    held = optimizer.start(draw(0))
    for value in (one, two, one):
        held = optimizer.step(held, {name: np.full(shape, value, np.float32) for name, shape in SPEC.shapes})
    if SECOND in held:
        assert (held[SECOND] > 0).all()
    assert all(np.isfinite(array).all() for array in held.values())


@pytest.mark.parametrize("clause", ALL, ids=name_of)
@pytest.mark.parametrize("value", [np.nan, np.inf, float(np.finfo(np.float32).max)])
def test_a_step_to_no_number_is_refused_and_changes_nothing(clause: Optimizer | None, value: float) -> None:
    optimizer = ServerOptimizer(clause, SPEC)
    held = optimizer.step(optimizer.start(draw(0)), DELTAS[0])
    for name in held:
        if name != SECOND:
            held[name][...] = np.float32(1e38)
    before = encode_adapter(held)
    with pytest.raises(NotFinite):
        optimizer.step(held, {name: np.full(shape, value, np.float32) for name, shape in SPEC.shapes})
    assert encode_adapter(held) == before


def test_shapes_are_checked() -> None:
    optimizer = ServerOptimizer(FEDAVGM, SPEC)
    held = optimizer.start(draw(0))
    with pytest.raises(WrongShapes):
        optimizer.start({"a.lora_A": draw(0)["a.lora_A"]})
    with pytest.raises(WrongShapes):
        optimizer.step(optimizer.adapter(held), DELTAS[0])
    with pytest.raises(WrongShapes):
        optimizer.step({**held, FIRST: held[FIRST][:-1]}, DELTAS[0])
    with pytest.raises(WrongShapes):
        optimizer.step(held, {name: array.astype(np.float64) for name, array in DELTAS[0].items()})  # type: ignore[misc]
