"""The participant's side of Flower: an executor that runs only what is installed, and never what a bundle brings.

Stands in place of Flower's SuperExec and `flwr-clientapp`, which install and run the code that a run ships, in a new
process per message. This one lives as long as its program, so model and keys stay in memory. It reads of a task the
run's id, the message's type and its parcel; bundle, context and configuration are not looked at. What leaves is a
parcel, or an error's fixed word.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

from flwr.app import Error as FlowerErrorReply
from flwr.app import Message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import message_from_proto
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullTaskInputRequest, PushTaskOutputRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.runtime import RuntimeHttpClient

from superswarm.errors import Error, Malformed, RunStopped, Unavailable
from superswarm.io.parcels import from_record, to_record
from superswarm.io.runtime import Connection, Heartbeat, RuntimeEndpoint, acquire, call
from superswarm.io.traces import place
from superswarm.io.transfer import PARALLEL, Arrival, push
from superswarm.wire import Parcel

log = logging.getLogger(__name__)
SuperNodeEndpoint: TypeAlias = RuntimeEndpoint
Handler: TypeAlias = Callable[[int, str, Parcel], Parcel]
ARRIVAL_SECONDS: Final = 600.0  # for the rest of a message whose first part the SuperNode has
KIND_PREFIX: Final = "query."
INTERNAL: Final = "InternalError"


def serve(endpoint: SuperNodeEndpoint, handle: Handler, stop: threading.Event) -> None:
    """Answer messages with `handle(flower run id, kind, parcel)`, one at a time, until told to stop.

    Outages of the SuperNode or the relay are waited out; a reply that can no longer be delivered is dropped. A
    handler's Error leaves as its code; anything else is a bug of ours, leaves as "InternalError", and is logged here
    by its type and place only, since an exception's text may hold data.
    """
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="flower-pull") as pool, Connection(endpoint) as connection:
        for token in acquire(connection.executor(), TaskType.CLIENT_APP, stop):
            _work(connection.task(token), handle, pool)


def _work(client: RuntimeHttpClient, handle: Handler, pool: ThreadPoolExecutor) -> None:
    """Do one task, whatever happens to it; only the operator's Ctrl-C ends the program."""
    try:
        with Heartbeat(client):
            _answer(client, handle, pool)
    except RunStopped:
        log.info("a task ended before its reply was delivered")
    except (Unavailable, Malformed) as error:
        log.warning("a task failed: %s", error)


def _answer(client: RuntimeHttpClient, handle: Handler, pool: ThreadPoolExecutor) -> None:
    task = call(client.PullTaskInput, PullTaskInputRequest())
    run, node = int(task.run.run_id), int(task.context.node_id)
    pulled = call(client.PullMessages, PullAppMessagesRequest())
    if len(pulled.messages_list) != 1 or len(pulled.message_object_trees) != 1:
        raise Malformed("a task has no message")
    request = message_from_proto(pulled.messages_list[0])  # its metadata, without the content
    arrival = Arrival(request.metadata.message_id, pulled.message_object_trees[0])
    _wait_for(arrival, client, node, run, pool)
    outcome = _outcome(handle, run, arrival)
    push(client, [_reply(outcome, request)], node=node, run=run)
    done = PushTaskOutputRequest(sub_status=SubStatus.COMPLETED)
    if isinstance(outcome, str):
        done = PushTaskOutputRequest(sub_status=SubStatus.FAILED, details=outcome)
    call(client.PushTaskOutput, done)


def _wait_for(arrival: Arrival, client: RuntimeHttpClient, node: int, run: int, pool: ThreadPoolExecutor) -> None:
    end = time.monotonic() + ARRIVAL_SECONDS
    while not arrival.advance(client, node, run, pool=pool):
        if time.monotonic() > end:
            raise Unavailable("a message did not arrive whole")
        time.sleep(0.05)
    arrival.confirm(client, node, run)


def _outcome(handle: Handler, run: int, arrival: Arrival) -> Parcel | str:
    """Handle one message: the reply, or the fixed word of what went wrong."""
    try:
        kind, parcel = _read(arrival.message())
        return handle(run, kind, parcel)
    except Error as error:
        log.warning("refused a message: %s", error)
        return error.code
    except Exception as error:
        log.error("a bug: %s", place(error))  # noqa: TRY400 - its text and locals stay out of the log
        return INTERNAL


def _read(message: Message) -> tuple[str, Parcel]:
    kind = message.metadata.message_type
    if not kind.startswith(KIND_PREFIX) or not message.has_content():
        raise Malformed("not a message of this protocol")
    return kind.removeprefix(KIND_PREFIX), from_record(message.content)


def _reply(outcome: Parcel | str, request: Message) -> Message:
    if isinstance(outcome, Parcel):
        return Message(to_record(outcome), reply_to=request)
    return Message(FlowerErrorReply(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=outcome), reply_to=request)
