"""Flower's own secure aggregation, SecAgg+ (Bell et al. 2020): its workflow and its client mod, on a grid in memory.

It belongs to Flower's older interface (`flwr.server.workflow`, `flwr.client.mod`); neither its Message API strategies
nor its executors use it. Its code runs here as it is. What is set for it: a complete graph as long as superswarm has
one, superswarm's threshold, equal weights, and the largest value of all updates as its clipping range, which no real
deployment knows beforehand: its quantisation then is as fine as it can be. Masks come of NumPy's generator, seeded
with 32 bits: what it costs is comparable, what it protects is not.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.secure.cohort import Tolerance
from benchmarks.secure.draws import Draws, Truth, Vector
from benchmarks.secure.gauge import Gauge
from benchmarks.secure.link import Other, take

COLLECT: Final = "collect_masked_vectors"
RUN: Final = 1
SERVER: Final = 1  # its node
FIRST: Final = 2  # the first client's node; the others follow
CONFIGS: Final = "secaggplus_configs"


class CannotRun(RuntimeError):
    """This installation lacks what is to be measured; the message is recorded as the result."""


class FlowerMembers:
    """The process of all clients: each handles its messages with Flower's mod."""

    def __init__(self) -> None:
        self.gauge = Gauge()

    def begin(self, draws: Draws, members: int) -> float:
        """Make the clients; the largest value of all their updates."""
        from flwr.app import Context, RecordDict

        _quiet()
        self.draws, self.truth = draws, Truth(draws.parameters)
        self.up = [0] * members
        self.contexts = {
            FIRST + number: Context(
                run_id=RUN, node_id=FIRST + number, node_config={}, state=RecordDict(), run_config={}, series_id=0
            )
            for number in range(members)
        }
        return max(float(np.abs(draws.of(number)).max()) for number in range(members))

    def handle(self, node: int, message: Path) -> Path:
        from flwr.client.mod import secaggplus_mod

        received = pickle.loads(take(message))  # noqa: S301 - our own process wrote it
        stage = str(received.content.config_records[CONFIGS]["stage"])
        answer: Any = self._answer(node, received) if stage == COLLECT else None
        phase = "mask" if stage == COLLECT else "protocol"
        with self.gauge.growth("client"), self.gauge.time(phase, str(node)):
            reply = secaggplus_mod(received, self.contexts[node], lambda _message, _context: answer)
        self.up[node - FIRST] += _bytes_of(reply)
        message.write_bytes(pickle.dumps(reply, protocol=5))
        return message

    def error(self, mean: Path) -> float:
        return self.truth.error(np.frombuffer(take(mean), np.float64))

    def report(self) -> dict[str, Any]:
        return {**self.gauge.report(), "up": self.up}

    def _answer(self, node: int, received: Any) -> Any:
        """What the client's own app returns after training."""
        from flwr.app import Message
        from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
        from flwr.compat.common.recorddict_compat import fitres_to_recorddict

        update = self.draws.of(node - FIRST)
        self.truth.add(update)
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([update]), 1, {})
        return Message(fitres_to_recorddict(result, keep_input=False), reply_to=received)


class Grid:
    """Flower's grid, as far as the workflow uses it: hands messages to the clients' process and waits."""

    def __init__(self, members: Other, bodies: Path, gone: Iterable[int], gauge: Gauge) -> None:
        self.members, self.bodies, self.gone, self.gauge = members, bodies, frozenset(gone), gauge
        self.lost: set[int] = set()
        self.down: dict[int, int] = {}

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:
        del timeout
        replies = []
        with self.gauge.time("transport"):
            for message in messages:
                node = message.metadata.dst_node_id
                if node in self.gone and str(message.content.config_records[CONFIGS]["stage"]) == COLLECT:
                    self.lost.add(node)
                if node in self.lost:
                    continue
                self.down[node] = self.down.get(node, 0) + _bytes_of(message)
                file = self.bodies / "message"
                file.write_bytes(pickle.dumps(message, protocol=5))
                replies.append(pickle.loads(take(self.members.call("handle", node, file))))  # noqa: S301 - ours
        return replies


class FlowerServer:
    """The aggregator: Flower's workflow, in this process."""

    def __init__(self, draws: Draws, members: int, bodies: Path, gone: int) -> None:
        self.draws, self.members, self.bodies = draws, members, bodies
        self.gone = range(FIRST + members - gone, FIRST + members)
        self.gauge = Gauge()

    def play(self, clients: Other) -> float:
        """One round of its four stages; the relative error of the mean."""
        range_ = clients.call("begin", self.draws, self.members)
        self.grid: Any = Grid(clients, self.bodies, self.gone, self.gauge)
        workflow, context, state = self._workflow(range_)
        stages = {
            "protocol": (workflow.setup_stage, workflow.share_keys_stage),
            "sum": (workflow.collect_masked_vectors_stage,),
            "recover": (workflow.unmask_stage,),
        }
        self.gauge.start()
        for phase, steps in stages.items():
            for step in steps:
                with self.gauge.time(phase):
                    if not step(self.grid, context, state):
                        raise CannotRun(f"Flower's SecAgg+ gave up in {step.__name__}")
                self._take_off_transport(phase)
        return float(clients.call("error", self._write(context)))

    def _workflow(self, range_: float) -> tuple[Any, Any, Any]:
        try:
            from flwr.app import ConfigRecord, Context, RecordDict
            from flwr.common import ndarrays_to_parameters
            from flwr.compat.common.recorddict_compat import parameters_to_arrayrecord
            from flwr.server import SimpleClientManager
            from flwr.server.compat.grid_client_proxy import GridClientProxy
            from flwr.server.compat.legacy_context import LegacyContext
            from flwr.server.strategy import FedAvg
            from flwr.server.workflow import SecAggPlusWorkflow
            from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState
            from flwr.supercore.task_identity import TaskIdentity
        except ImportError as error:
            raise CannotRun(f"this Flower lacks a part of SecAgg+: {error}") from None
        _quiet()
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, SERVER, RUN
        manager = SimpleClientManager()
        for node in range(FIRST, FIRST + self.members):
            manager.register(GridClientProxy(node, self.grid, RUN))
        plain = Context(run_id=RUN, node_id=SERVER, node_config={}, state=RecordDict(), run_config={}, series_id=0)
        strategy = FedAvg(min_fit_clients=self.members, min_available_clients=self.members)
        context = LegacyContext(plain, strategy=strategy, client_manager=manager)
        context.state.config_records["config"] = ConfigRecord({"current_round": 1})
        context.state.array_records["parameters"] = parameters_to_arrayrecord(
            ndarrays_to_parameters([np.zeros(self.draws.parameters, np.float32)]), keep_input=False
        )
        threshold = min(Tolerance.of(self.members).threshold, self.members - 1)
        workflow = SecAggPlusWorkflow(
            num_shares=self.members,
            reconstruction_threshold=threshold,
            max_weight=1.0,
            clipping_range=range_,
        )
        return workflow, context, WorkflowState()

    def _take_off_transport(self, phase: str) -> None:
        """Waiting for the clients, and carrying their messages between processes, belong to no phase."""
        wall, cpu = self.gauge.spent.pop("transport")[""]
        before = self.gauge.spent[phase][""]
        self.gauge.spent[phase][""] = (before[0] - wall, before[1] - cpu)

    def _write(self, context: Any) -> Path:
        mean: Vector = context.state.array_records["parameters"].to_numpy_ndarrays()[0]
        file = self.bodies / "mean"
        file.write_bytes(mean.astype(np.float64).data)
        return file


def _quiet() -> None:
    """Flower logs each step of each round to standard error; only its errors are wanted."""
    logging.getLogger("flwr").setLevel(logging.ERROR)


def _bytes_of(message: Any) -> int:
    """What the message's content takes on the wire, values alone."""
    content = message.content
    arrays = sum(len(array.data) for record in content.array_records.values() for array in record.values())
    configs = sum(_size(value) for record in content.config_records.values() for value in record.values())
    return arrays + configs


def _size(value: Any) -> int:
    if isinstance(value, list):
        return sum(_size(one) for one in value)
    return len(value) if isinstance(value, bytes | str) else 8
