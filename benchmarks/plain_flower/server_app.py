"""The plain Flower server: FedAvg from flwr.serverapp.strategy over all members, evaluated once, at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import load_file, save_file

from benchmarks.federation.plan import Plan

app = ServerApp()


class Timed(FedAvg):
    """FedAvg that notes when each round begins, and evaluates after the last round only."""

    def __init__(self, rounds: int, members: int) -> None:
        super().__init__(min_train_nodes=members, min_evaluate_nodes=members, min_available_nodes=members)
        self.rounds = rounds
        self.begun: dict[int, float] = {}
        self.closed = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.begun[server_round] = time.time()
        return list(super().configure_train(server_round, arrays, config, grid))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        aggregated: tuple[Any, Any] = super().aggregate_train(server_round, replies)
        self.closed += aggregated[0] is not None
        return aggregated

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if server_round < self.rounds:
            return []
        return list(super().configure_evaluate(server_round, arrays, config, grid))


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, then write the adapter and the times; the times last, for whoever waits for them."""
    began = time.time()
    plan = Plan.read(Path(str(context.run_config["plan"])))
    strategy = Timed(plan.rounds, len(plan.members))
    initial = ArrayRecord({name: Array(values) for name, values in load_file(plan.initial).items()})
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=plan.rounds)
    if result.arrays is None or strategy.closed < plan.rounds:
        raise RuntimeError("the run yielded no adapter")
    out = Path(str(context.run_config["out"]))
    save_file({name: array.numpy() for name, array in result.arrays.items()}, out / "adapter.safetensors")
    times = {"began": began, "begun": strategy.begun, "finished": time.time()}
    losses = {n: dict(m) for n, m in result.evaluate_metrics_clientapp.items()}
    (out / "times.part").write_text(json.dumps(times | {"evaluated": losses}))
    (out / "times.part").rename(out / "times.json")
