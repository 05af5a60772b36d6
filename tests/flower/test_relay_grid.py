"""RelayGrid against a relay that is slow, overloaded or dishonest."""

from __future__ import annotations

from typing import Any

import httpx
from flwr.app import Message
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedResponse,
    ObjectTree,
    PullObjectResponse,
    PushObjectResponse,
)
from flwr.proto.message_pb2 import (
    Message as MessageProto,
)
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.run import Run

from coordinator.flower import GridMailroom, RelayGrid
from coordinator.mailroom import Delivery, Outgoing
from superswarm.io.parcels import to_record
from superswarm.io.runtime import Heartbeat
from superswarm.wire import Parcel

MIB = 1024**2


class Relay:
    """Stands where the SuperLink is: takes every message, and replies with what a test lays out."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.announced: list[tuple[MessageProto, ObjectTree]] = []
        self.confirmed: list[str] = []
        self.down = False

    def reply(self, ticket: str, parcel: Parcel, *, uploaded: bool = True) -> dict[str, bytes]:
        metadata = Metadata(1, "", 7, 1, ticket, "", 0.0, 60.0, "query.echo")
        metadata.delivered_at = ""
        message: Message = make_message(metadata, content=to_record(parcel))
        parts = {id_: part.deflate() for id_, part in get_all_nested_objects(message).items()}
        self.objects |= parts if uploaded else dict.fromkeys(parts, b"")
        proto = message_to_proto(message)
        proto.metadata.message_id = message.object_id
        self.announced.append((proto, get_object_tree(message)))
        return parts

    def PushMessages(self, request: Any) -> PushAppMessagesResponse:  # noqa: N802
        return PushAppMessagesResponse(message_ids=[m.metadata.message_id for m in request.messages_list])

    def PushObject(self, request: Any) -> PushObjectResponse:  # noqa: N802
        return PushObjectResponse(stored=True)

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:  # noqa: N802
        self._answer()
        protos, trees = [proto for proto, _ in self.announced], [tree for _, tree in self.announced]
        self.announced = []
        return PullAppMessagesResponse(messages_list=protos, message_object_trees=trees)

    def PullObject(self, request: Any) -> PullObjectResponse:  # noqa: N802
        self._answer()
        content = self.objects.get(request.object_id)
        return PullObjectResponse(
            object_found=content is not None, object_available=bool(content), object_content=content or b""
        )

    def ConfirmMessageReceived(self, request: Any) -> ConfirmMessageReceivedResponse:  # noqa: N802
        self._answer()
        self.confirmed.append(request.message_object_id)
        return ConfirmMessageReceivedResponse()

    def _answer(self) -> None:
        if self.down:
            raise httpx.ConnectError("down")


def room(relay: Relay) -> GridMailroom:
    heartbeat = Heartbeat(relay)  # type: ignore[arg-type]
    return GridMailroom(RelayGrid(relay, Run.create_empty(run_id=1), heartbeat))  # type: ignore[arg-type]


def post(mailroom: GridMailroom, peers: int) -> list[str]:
    return mailroom.post_all([Outgoing(peer, "echo", Parcel(b"%d" % peer)) for peer in range(peers)], ttl=60)


def test_large_replies_are_taken_one_at_a_time() -> None:
    relay = Relay()
    mailroom = room(relay)
    tickets = post(mailroom, 4)
    for number, ticket in enumerate(tickets):
        relay.reply(ticket, Parcel(b"", bytes([number]) * 6 * MIB))
    taken = []
    while len(taken) < 4:
        deliveries = mailroom.collect(tickets)
        assert len(deliveries) == 1  # and the others' bytes are still at the relay
        assert len(relay.confirmed) == len(taken) + 1
        taken += deliveries
    assert sorted(d.peer for d in taken) == [0, 1, 2, 3]
    assert all(d.parcel is not None and len(d.parcel.body) == 6 * MIB for d in taken)


def test_small_replies_are_taken_together() -> None:
    relay = Relay()
    mailroom = room(relay)
    tickets = post(mailroom, 9)
    for ticket in tickets:
        relay.reply(ticket, Parcel(b"small"))
    assert len(mailroom.collect(tickets)) == 9


def test_a_reply_that_is_still_on_its_way_holds_up_no_other() -> None:
    relay = Relay()
    mailroom = room(relay)
    slow, quick = post(mailroom, 2)
    parts = relay.reply(slow, Parcel(b"slow"), uploaded=False)
    relay.reply(quick, Parcel(b"quick"))
    assert [d.parcel for d in mailroom.collect([slow, quick])] == [Parcel(b"quick")]
    assert mailroom.collect([slow]) == []
    relay.objects |= parts
    assert mailroom.collect([slow]) == [Delivery(0, slow, Parcel(b"slow"))]


def test_an_outage_is_nothing_yet() -> None:
    relay = Relay()
    mailroom = room(relay)
    (ticket,) = post(mailroom, 1)
    relay.reply(ticket, Parcel(b"reply"))
    relay.down = True
    assert mailroom.collect([ticket]) == []
    relay.down = False
    assert [d.parcel for d in mailroom.collect([ticket])] == [Parcel(b"reply")]


def test_what_the_relay_makes_up_fails_at_most_its_own_ticket() -> None:
    relay = Relay()
    mailroom = room(relay)
    lost, nested, good = post(mailroom, 3)
    relay.objects.clear()
    parts = relay.reply(lost, Parcel(b"lost"))
    del relay.objects[next(iter(parts))]
    relay.reply("nobody asked", Parcel(b"surprise"))
    relay.announced.append((MessageProto(), ObjectTree()))
    relay.reply(nested, Parcel(b"nested"))
    proto, _ = relay.announced.pop()
    deep = ObjectTree(object_id="0")
    for number in range(1, 90):
        deep = ObjectTree(object_id=str(number), children=[deep] * 2 if number < 3 else [deep])
    relay.announced.append((proto, deep))
    relay.reply(good, Parcel(b"good"))
    deliveries = {d.ticket: d.parcel for d in mailroom.collect([lost, nested, good])}
    assert deliveries[good] == Parcel(b"good")
    assert deliveries[lost] is None
    assert deliveries[nested] is None
    assert set(deliveries) == {lost, nested, good}
