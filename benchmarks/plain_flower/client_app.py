"""The plain Flower client: scores the incoming adapter, trains it, sends it back. In the open.

Flower starts this in a new process for every message, so the model is loaded for every message: from a folder of
safetensors that was dequantised beforehand, which takes a second where superswarm's GGUF file takes six.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.federation.plan import Plan
from participants.learners import Learner
from superswarm.updates.adapter import Adapter

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Score what came in, as superswarm's trainers do in each round, then train it."""
    learner = _learner(context)
    adapter = _adapter(message)
    eval_loss = learner.evaluate(adapter)
    round_: Any = message.content.config_records["config"]["server-round"]
    trained, loss = learner.train(adapter, round_)
    arrays = ArrayRecord({name: Array(values) for name, values in trained.items()})
    metrics = MetricRecord({"train_loss": loss, "eval_loss": eval_loss, "num-examples": learner.examples})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Score the final adapter."""
    learner = _learner(context)
    loss = learner.evaluate(_adapter(message))
    metrics = MetricRecord({"eval_loss": loss, "num-examples": learner.examples})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _adapter(message: Message) -> Adapter:
    return {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}


def _learner(context: Context) -> Learner:
    plan = Plan.read(Path(str(context.run_config["plan"])))
    return plan.learner(str(context.node_config["member"]))
