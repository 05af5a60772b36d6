"""The SuperNode's process: Flower's, with shorter waits. `python -m participants.supernode_child FLAGS...`.

Takes `flower-supernode`'s own flags. Flower's SuperNode asks the SuperLink for messages every 3 s, looks for replies
every 0.5 s, and its executors ask it for tasks as often as they like. Here the relay holds the SuperNode's poll, the
SuperNode holds its executor's, and what is left of sleeping is short. Outside the trust boundary: it carries
ciphertext, and nothing is believed because it says so.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import Any, Final

import httpx
from flwr.proto.fleet_pb2 import ActivateNodeResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskResponse

from superswarm.io.heldpolls import LONGEST_WAIT_SECONDS, WAIT_HEADER, HeldPolls

NODE_FILE: Final = "SUPERSWARM_NODE_FILE"  # where the node's id is kept from life to life
TASKS: Final = "tasks"
ACQUIRE_TASK: Final = "/v1/runtime/acquire-task"
LOOK_SECONDS: Final = 0.02  # between looks for a reply in this process's memory
ASK_SECONDS: Final = 0.25  # between polls of a relay that does not hold them


class ShortSleeps:
    """Stands in for `time` in Flower's SuperNode loop."""

    @staticmethod
    def sleep(seconds: float) -> None:
        time.sleep(LOOK_SECONDS if seconds < 1 else ASK_SECONDS)


def quicken() -> None:
    """Shorten the waits of this process's SuperNode. Every name that it replaces is checked to exist."""
    import flwr.supernode.fleet_http_connection as connection
    import flwr.supernode.main as api
    import flwr.supernode.start_client_internal as loop

    polls: list[HeldPolls] = []
    create_app, pull = api.create_app, loop._pull_and_store_message
    pull_objects, client = vars(loop)["pull_objects"], vars(connection)["FleetHttpClient"]

    def create_held_app(*args: Any, **kwargs: Any) -> HeldPolls:
        polls.append(hold_tasks(create_app(*args, **kwargs)))
        return polls[-1]

    def pull_and_wake(**kwargs: Any) -> int | None:
        run = pull(**kwargs)
        if run is not None:
            for held in polls:
                held.wake_from_thread(TASKS)
        return run

    replace(api, "create_app", create_held_app)
    replace(loop, "_pull_and_store_message", pull_and_wake)
    replace(loop, "pull_objects", functools.partial(pull_objects, initial_backoff=0.05, backoff_cap=0.5))
    replace(loop, "time", ShortSleeps)
    node_file = os.environ.get(NODE_FILE)
    replace(connection, "FleetHttpClient", patient(client, Path(node_file) if node_file else None))


def hold_tasks(app: Any) -> HeldPolls:
    """Let the executor's polls wait for a task."""
    return HeldPolls(
        app,
        polls={ACQUIRE_TASK: lambda _: TASKS},
        empty={ACQUIRE_TASK: lambda body: not AcquireTaskResponse.FromString(body).token},
        pushes={},
    )


def patient(client: type[Any], node_file: Path | None) -> type[Any]:
    """Flower's Fleet client, asking the relay to hold its polls, and taking its place back after a crash.

    A SuperLink refuses a SuperNode that it still counts as connected, for up to a minute. The one that has the file
    with the node's id in its own folder was that SuperNode: it goes on with the heartbeats of its former life. It
    does not say that it left first: a SuperLink drops what is addressed to a node that is away, be it for a moment.
    """

    class PatientFleetClient(client):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._client.headers[WAIT_HEADER] = str(LONGEST_WAIT_SECONDS)

        def ActivateNode(self, request: Any) -> Any:  # noqa: N802 - Flower's name
            if node_file is None:
                return super().ActivateNode(request)
            known = self._go_on(node_file, request.heartbeat_interval)
            response = known or super().ActivateNode(request)
            node_file.write_text(str(response.node_id))
            return response

        def _go_on(self, node_file: Path, interval: float) -> ActivateNodeResponse | None:
            """The place of the former life, if the relay still knows it."""
            try:
                node = Node(node_id=int(node_file.read_text()))
                beat = SendNodeHeartbeatRequest(node=node, heartbeat_interval=interval)
                known = self.SendNodeHeartbeat(beat).success
            except (OSError, ValueError, httpx.HTTPError):  # no former life, or of another relay or key
                return None
            return ActivateNodeResponse(node_id=node.node_id) if known else None

    return PatientFleetClient


def replace(module: Any, name: str, new: object) -> None:
    if not hasattr(module, name):
        raise AttributeError(f"{module.__name__} has no {name}: this Flower is not the one that was tested")
    setattr(module, name, new)


def main() -> None:
    """Run `flower-supernode`."""
    from flwr.supernode.cli.flower_supernode import flower_supernode

    quicken()
    flower_supernode()


if __name__ == "__main__":
    main()
