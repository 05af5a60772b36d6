"""An in-process Grid: the relay and its peers in one process, through Flower's wire format.

Peers are handlers `(flower run id, kind, parcel) -> parcel`, called in threads, one message at a time each, as the
pinned client executor does. `Tamper` is a dishonest relay.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.run import Run, RunNotRunningException

from superswarm import errors
from superswarm.io.parcels import from_record, to_record
from superswarm.wire import Parcel
from tests.clock import Clock

Handler = Callable[[int, str, Parcel], Parcel]
RUN = 7


@dataclass(frozen=True, slots=True)
class Transit:
    """One message as the relay sees it. `number` counts what was sent to this peer in this direction, from 0."""

    peer: int
    kind: str
    number: int
    parcel: Parcel


class Tamper:
    """A relay's power over messages. The honest one; attacks override a method.

    Each method returns what is delivered in place of one message: none, the same, another, or several in order.
    Several requests are all handled, and the last one's reply answers; of several replies the first is delivered
    now, the others when the aggregator next asks for that ticket (a relay may well repeat itself).
    """

    def request(self, transit: Transit) -> list[Transit]:
        return [transit]

    def reply(self, transit: Transit) -> list[Transit]:
        return [transit]


class Recorder(Tamper):
    """Keeps what passed, in order, and may be asked to act as another relay behind it."""

    def __init__(self, inner: Tamper | None = None) -> None:
        self.inner = inner or Tamper()
        self.requests: list[Transit] = []
        self.replies: list[Transit] = []

    def request(self, transit: Transit) -> list[Transit]:
        self.requests.append(transit)
        return self.inner.request(transit)

    def reply(self, transit: Transit) -> list[Transit]:
        self.replies.append(transit)
        return self.inner.reply(transit)


class Relay(Tamper):
    """A dishonest relay from two functions, for attacks that fit on a line."""

    def __init__(
        self,
        request: Callable[[Transit], list[Transit]] | None = None,
        reply: Callable[[Transit], list[Transit]] | None = None,
    ) -> None:
        self._request, self._reply = request, reply

    def request(self, transit: Transit) -> list[Transit]:
        return self._request(transit) if self._request else [transit]

    def reply(self, transit: Transit) -> list[Transit]:
        return self._reply(transit) if self._reply else [transit]


def drop(*kinds: str, peers: Collection[int] | None = None) -> Callable[[Transit], list[Transit]]:
    """Deliver everything but these kinds (to or from these peers)."""

    def hook(transit: Transit) -> list[Transit]:
        hit = transit.kind in kinds and (peers is None or transit.peer in peers)
        return [] if hit else [transit]

    return hook


def lose_first(kind: str, *, peer: int | None = None) -> Callable[[Transit], list[Transit]]:
    """Deliver everything but the first message of this kind (to or from this peer)."""
    lost: list[Transit] = []

    def hook(transit: Transit) -> list[Transit]:
        if lost or transit.kind != kind or peer not in (None, transit.peer):
            return [transit]
        lost.append(transit)
        return []

    return hook


def flip(
    kind: str, *, part: str = "body", peers: Collection[int] | None = None
) -> Callable[[Transit], list[Transit]]:
    """Change the last bit of the head or body of this kind."""

    def hook(transit: Transit) -> list[Transit]:
        data = getattr(transit.parcel, part)
        if transit.kind != kind or not data or (peers is not None and transit.peer not in peers):
            return [transit]
        return [replace(transit, parcel=replace(transit.parcel, **{part: data[:-1] + bytes([data[-1] ^ 1])}))]

    return hook


class InProcessGrid(Grid):
    """A Grid whose nodes are handlers in this process. Use as a context manager, or call `close`."""

    def __init__(
        self,
        handlers: Mapping[int, Handler],
        tamper: Tamper | None = None,
        *,
        run_id: int = RUN,
        clock: Clock | None = None,
    ) -> None:
        self._handlers = dict(handlers)
        self._clock = clock or Clock()
        self._tamper = tamper or Tamper()
        self._run = Run.create_empty(run_id=run_id)
        self._pool = ThreadPoolExecutor(max_workers=max(4, len(handlers)))
        self._one_at_a_time = {peer: threading.Lock() for peer in handlers}
        self._lock = threading.RLock()
        self._counts: dict[tuple[int, bool], int] = {}
        self._pending: dict[str, Future[list[Message]]] = {}
        self._left_over: dict[str, list[Message]] = {}
        self.offline: set[int] = set()
        self.stopped = False

    def __enter__(self) -> InProcessGrid:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def stop_run(self) -> None:
        """The operator stops the run."""
        self.stopped = True

    # --- flwr.serverapp.Grid ---------------------------------------------------------------------------------------

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
        return [peer for peer in self._handlers if peer not in self.offline]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._require_running()
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = message.object_id
            wire = message_to_proto(message).SerializeToString()
            ids.append(message.object_id)
            self._clock.work()
            self._pending[message.object_id] = self._pool.submit(self._deliver, wire)
            self._pending[message.object_id].add_done_callback(lambda _: self._clock.done())
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self._require_running()
        out: list[Message] = []
        for id_ in message_ids:
            out += self._left_over.pop(id_, [])
            if (future := self._pending.get(id_)) is not None and future.done():
                del self._pending[id_]
                first, *others = [*future.result(), None]
                out += [first] if first is not None else []
                self._left_over[id_] = [other for other in others if other is not None]
        return out

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        ids, end = set(self.push_messages(messages)), time.monotonic() + (timeout or 60)
        out: list[Message] = []
        while ids and time.monotonic() < end:
            got = list(self.pull_messages(sorted(ids)))
            out += got
            ids -= {message.metadata.reply_to_message_id for message in got}
            time.sleep(0.002)
        return out

    # --- the relay and its peers -----------------------------------------------------------------------------------

    def _require_running(self) -> None:
        if self.stopped:
            raise RunNotRunningException

    def _deliver(self, wire: bytes) -> list[Message]:
        """Carry one request to its peer and the replies back. No reply at all: the ticket never answers."""
        message = parse_wire(wire)
        peer, kind = message.metadata.dst_node_id, message.metadata.message_type.removeprefix("query.")
        if peer not in self._handlers or peer in self.offline:
            return [Message(Error(ErrorCode.NODE_UNAVAILABLE, "offline"), reply_to=message)]
        with self._lock:
            requests = self._tamper.request(
                Transit(peer, kind, self._count(peer, outward=True), from_record(message.content))
            )
        answer: Parcel | Error | None = None
        for request in requests:
            answer = self._handle(request)
        if answer is None:
            return []
        if isinstance(answer, Error):
            return [Message(answer, reply_to=message)]
        with self._lock:
            replies = self._tamper.reply(Transit(peer, kind, self._count(peer, outward=False), answer))
        return [
            parse_wire(message_to_proto(Message(to_record(reply.parcel), reply_to=message)).SerializeToString())
            for reply in replies
        ]

    def _handle(self, request: Transit) -> Parcel | Error:
        if request.peer not in self._handlers:
            return Error(ErrorCode.NODE_UNAVAILABLE, "offline")
        turn = self._one_at_a_time[request.peer]
        with self._clock.pause():
            turn.acquire()
        try:
            return self._handlers[request.peer](self._run.run_id, request.kind, request.parcel)
        except errors.Error as error:
            return Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, error.code)
        finally:
            turn.release()

    def _count(self, peer: int, *, outward: bool) -> int:
        number = self._counts.get((peer, outward), 0)
        self._counts[peer, outward] = number + 1
        return number


def parse_wire(wire: bytes) -> Message:
    from flwr.proto.message_pb2 import Message as ProtoMessage

    return message_from_proto(ProtoMessage.FromString(wire))
