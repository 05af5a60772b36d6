"""The aggregator's side of Flower: a mailroom over a Grid, and an executor that runs only what is installed.

The executor stands in place of Flower's SuperExec and `flwr-serverapp`, which run the code that a run ships, send all
its output to the SuperLink, and push its context and exceptions there. This one reads of a task the run's id and its
override configuration (as untrusted text), and pushes a status: COMPLETED, or FAILED with an error's fixed word.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

from flwr.app import Error as FlowerError
from flwr.app import Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode, SubStatus
from flwr.common.serde import message_from_proto, user_config_from_proto
from flwr.proto.runtime_pb2 import (
    GetNodesRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import TaskType
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.runtime import RuntimeHttpClient

from coordinator.mailroom import Delivery, Mailroom, Outgoing
from superswarm.errors import Error, Malformed, RunStopped, Unavailable
from superswarm.io.parcels import from_record, sealed_array, to_record
from superswarm.io.runtime import PATIENCE_SECONDS, Connection, Heartbeat, RuntimeEndpoint, acquire, call
from superswarm.io.traces import place
from superswarm.io.transfer import PARALLEL, Arrival, push
from superswarm.wire import Parcel

log = logging.getLogger(__name__)
RelayEndpoint: TypeAlias = RuntimeEndpoint
Program: TypeAlias = Callable[[Mailroom, str, Mapping[str, str]], None]
KIND = re.compile(r"[a-z][a-z_]{0,31}")
COLLECT_WAIT_SECONDS: Final = 0.25  # how long the relay may hold a pull that finds nothing
PULL_PATIENCE_SECONDS: Final = 0.0  # an outage shows as "nothing yet"; the round's deadline decides
COLLECT_BYTES: Final = 4 * 1024**2  # a larger reply is the last that one `collect` takes: memory stays flat
REPORT_SECONDS: Final = 2.0  # to tell the relay of an interruption
INTERNAL: Final = "InternalError"
INTERRUPTED: Final = "Interrupted"


class GridMailroom:
    """A Mailroom over Flower's Grid. Flower's message ids are the tickets.

    What the relay says of a reply (its sender, its type) is not read: a ticket belongs to the peer that was posted
    to, and the parcel either opens under that peer's session key or does not.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._waiting: dict[str, int] = {}  # ticket → peer
        self._failed: set[str] = set()  # tickets that the relay refused to take
        self._unsent = 0

    def peers(self) -> frozenset[int]:
        try:
            return frozenset(int(node) for node in self._grid.get_node_ids())
        except RunNotRunningException:
            raise RunStopped("the operator stopped the run") from None

    def post(self, peer: int, kind: str, parcel: Parcel, *, ttl: float) -> str:
        return self.post_all([Outgoing(peer, kind, parcel)], ttl=ttl)[0]

    def post_all(self, letters: Sequence[Outgoing], *, ttl: float) -> list[str]:
        messages = self._messages(letters, ttl)
        try:
            ids = list(self._grid.push_messages(messages))
        except RunNotRunningException:
            raise RunStopped("the operator stopped the run") from None
        if len(ids) != len(letters):
            raise Unavailable("the relay did not take the messages: they are too large for it")
        return [self._issue(letter.peer, id_) for letter, id_ in zip(letters, ids, strict=True)]

    def collect(self, tickets: Collection[str]) -> list[Delivery]:
        wanted = {ticket for ticket in tickets if ticket in self._waiting}
        deliveries = [self._close(ticket, None) for ticket in sorted(wanted & self._failed)]
        wanted -= self._failed
        if not wanted:
            return deliveries
        try:
            replies = deque(self._grid.pull_messages(sorted(wanted)))
        except RunNotRunningException:
            raise RunStopped("the operator stopped the run") from None
        while replies:  # each reply is let go before the next is read
            reply = replies.popleft()
            ticket = reply.metadata.reply_to_message_id
            if ticket in wanted:
                wanted.discard(ticket)
                deliveries.append(self._close(ticket, _read(reply)))
        return deliveries

    def _messages(self, letters: Sequence[Outgoing], ttl: float) -> list[Message]:
        bodies = {id(letter.parcel.body): sealed_array(letter.parcel.body) for letter in letters}
        messages = []
        for letter in letters:
            if not KIND.fullmatch(letter.kind):
                raise ValueError(f"not a kind of message: {letter.kind!r}")
            record = to_record(letter.parcel, body=bodies[id(letter.parcel.body)])
            metadata = Metadata(
                run_id=self._grid.run.run_id,
                message_id="",
                src_node_id=SUPERLINK_NODE_ID,
                dst_node_id=letter.peer,
                reply_to_message_id="",
                group_id="",
                created_at=time.time(),
                ttl=ttl,
                message_type=f"query.{letter.kind}",
            )
            metadata.delivered_at = ""
            messages.append(make_message(metadata, content=record))  # Message() would read its run from a global
        return messages

    def _issue(self, peer: int, message_id: str | None) -> str:
        if message_id:
            self._waiting[message_id] = peer
            return message_id
        self._unsent += 1
        ticket = f"unsent-{self._unsent}"
        self._waiting[ticket] = peer
        self._failed.add(ticket)
        return ticket

    def _close(self, ticket: str, parcel: Parcel | None) -> Delivery:
        self._failed.discard(ticket)
        return Delivery(self._waiting.pop(ticket), ticket, parcel)


def _read(reply: Message) -> Parcel | None:
    """Read a reply; None where the peer or the relay failed, or where it is not a parcel."""
    if not reply.has_content():
        return None
    try:
        return from_record(reply.content)
    except Error:
        return None


class RelayGrid(Grid):
    """A Grid over a real SuperLink that never blocks on a message still on its way, nor holds more than it must.

    Flower's HttpGrid waits for a reply's last byte before it returns any, sleeps seconds between tries, and ends the
    process on a 401.
    """

    def __init__(self, client: RuntimeHttpClient, run: Run, heartbeat: Heartbeat) -> None:
        self._client, self._run, self._heartbeat = client, run, heartbeat
        self._arriving: dict[str, tuple[Message, Arrival]] = {}  # by the ticket that it answers
        self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="flower-pull")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        self._require_running()
        return [int(node.node_id) for node in call(self._client.GetNodes, GetNodesRequest()).nodes]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._require_running()
        return push(self._client, list(messages), node=SUPERLINK_NODE_ID, run=self._run.run_id)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self._require_running()
        wanted = set(message_ids)
        replies = self._take(wanted)
        if not replies and (unannounced := wanted - set(self._arriving)):
            self._ask(unannounced)
            replies = self._take(wanted)
        return replies

    def _take(self, wanted: Collection[str]) -> list[Message]:
        """Take the replies that are whole, a few large ones at most: the rest waits at the relay, not here."""
        replies, size = [], 0
        for ticket in [ticket for ticket in self._arriving if ticket in wanted]:
            arrival = self._arriving[ticket][1]
            reply = self._advance(ticket)
            size += arrival.pulled
            if reply is not None:
                del self._arriving[ticket]
                replies.append(reply)
            if size > COLLECT_BYTES:
                break
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError("the mailroom posts and collects")

    def _require_running(self) -> None:
        if self._heartbeat.gone.is_set():
            raise RunNotRunningException

    def _ask(self, tickets: Collection[str]) -> None:
        """Ask which replies have been announced. The relay tells each only once."""
        request = PullAppMessagesRequest(message_ids=sorted(tickets))
        try:
            answer = call(self._client.PullMessages, request, patience=PULL_PATIENCE_SECONDS)
        except (Unavailable, Malformed):
            return
        for proto, tree in zip(answer.messages_list, answer.message_object_trees, strict=False):
            try:
                announced = message_from_proto(proto)
                arrival = Arrival(announced.metadata.message_id, tree)
            except Exception as error:
                log.warning("an announced reply cannot be read: %s", type(error).__name__)
                continue
            if (ticket := announced.metadata.reply_to_message_id) in tickets:
                self._arriving.setdefault(ticket, (announced, arrival))

    def _advance(self, ticket: str) -> Message | None:
        """Pull what there is of a reply: the reply, once whole; an error in its place, if it never will be."""
        announced, arrival = self._arriving[ticket]
        run = self._run.run_id
        try:
            if not arrival.advance(
                self._client, SUPERLINK_NODE_ID, run, pool=self._pool, patience=PULL_PATIENCE_SECONDS
            ):
                return None
            arrival.confirm(self._client, SUPERLINK_NODE_ID, run, patience=PULL_PATIENCE_SECONDS)
            message = arrival.message()
        except Unavailable:
            return None  # an outage: what came is kept
        except Malformed as error:
            log.warning("a reply cannot be read: %s", error)
            return make_message(announced.metadata, error=FlowerError(ErrorCode.MESSAGE_UNAVAILABLE, error.code))
        return message


def serve(endpoint: RelayEndpoint, run: Program, stop: threading.Event, *, once: bool = False) -> None:
    """Run `run(mailroom, flower run id, configuration)` for each run that the operator starts, until told to stop.

    The configuration is what the operator submitted, as text: it proves nothing that is not signed inside it. In
    `run`, every call of the mailroom raises RunStopped once the operator has stopped the run. With `once`, return
    after one run.
    """
    with Connection(endpoint) as connection:
        for token in acquire(connection.executor(), TaskType.SERVER_APP, stop):
            _work(connection.task(token, wait=COLLECT_WAIT_SECONDS), run)
            if once:
                return


def _work(client: RuntimeHttpClient, run: Program) -> None:
    try:
        with Heartbeat(client) as heartbeat:
            task = call(client.PullTaskInput, PullTaskInputRequest())
            grid = RelayGrid(client, Run.create_empty(run_id=task.run.run_id), heartbeat)
            try:
                code = _outcome(run, GridMailroom(grid), str(task.run.run_id), _texts(task.run.override_config))
            except BaseException:  # Ctrl-C: the relay need not wait for heartbeats to stay away
                with contextlib.suppress(Error):
                    _report(client, INTERRUPTED, patience=REPORT_SECONDS)
                raise
            finally:
                grid.close()
            _report(client, code)
    except RunStopped:
        log.info("the run has ended at the relay")
    except (Unavailable, Malformed) as error:
        log.warning("the run's outcome did not reach the relay: %s", error)


def _report(client: RuntimeHttpClient, code: str, *, patience: float = PATIENCE_SECONDS) -> None:
    status = SubStatus.FAILED if code else SubStatus.COMPLETED
    call(client.PushTaskOutput, PushTaskOutputRequest(sub_status=status, details=code), patience=patience)


def _outcome(run: Program, mailroom: Mailroom, flower_run: str, texts: Mapping[str, str]) -> str:
    """Run it: "" if all went well, or the fixed word of what went wrong."""
    try:
        run(mailroom, flower_run, texts)
    except Error as error:
        log.error("the run failed: %s", error)  # noqa: TRY400 - the text says it
        return error.code
    except Exception as error:
        log.error("a bug: %s", place(error))  # noqa: TRY400 - its text and locals stay out of the log
        return INTERNAL
    return ""


def _texts(config: Mapping[str, object]) -> dict[str, str]:
    return {key: value for key, value in user_config_from_proto(config).items() if isinstance(value, str)}
