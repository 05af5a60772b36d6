"""Messages in transfer: pulled piece by piece from a Runtime API that may send anything, and pushed to it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from flwr.app import Array, Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PushAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_body,
    get_object_head_values_from_object_content,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, push_objects
from flwr.supercore.runtime import RuntimeHttpClient

from superswarm.errors import Malformed, TooLarge, Unavailable
from superswarm.io.runtime import PATIENCE_SECONDS, call
from superswarm.values import LIMITS

log = logging.getLogger(__name__)
OBJECTS: Final = LIMITS.body_bytes // (1024**2) + 16  # parts of one message
PUSH_ATTEMPTS: Final = 3
PARALLEL: Final = 2  # transfers at once, as Flower has it


class Arrival:
    """One message on its way in. Nothing is held of it until all of it is at the other end."""

    def __init__(self, message_id: str, tree: ObjectTree) -> None:
        self.message_id = message_id
        self._missing = _object_ids(tree)
        self._contents: dict[str, bytes] = {}
        self._room = LIMITS.body_bytes + LIMITS.head_bytes + OBJECTS * 1024
        self.pulled = 0  # bytes

    def advance(
        self,
        client: RuntimeHttpClient,
        node: int,
        run: int,
        *,
        pool: ThreadPoolExecutor,
        patience: float = PATIENCE_SECONDS,
    ) -> bool:
        """Pull what is available; tell whether everything is here. Malformed or TooLarge if it never will be."""

        def pull(object_id: str) -> tuple[str, bytes]:
            request = PullObjectRequest(node=Node(node_id=node), run_id=run, object_id=object_id)
            answer = call(client.PullObject, request, patience=patience)
            if not answer.object_found:
                raise Malformed("the relay has lost a part of a message")
            return object_id, answer.object_content if answer.object_available else b""

        missing = [part for part in self._missing if part not in self._contents]  # an outage may have cut us short
        root, others = missing[:1], missing[1:]
        if not self._keep(map(pull, root)):  # the sender pushes it last
            return False
        self._keep(pool.map(pull, others))
        self._missing = [part for part in others if part not in self._contents]
        return not self._missing

    def _keep(self, parts: Iterable[tuple[str, bytes]]) -> bool:
        """Take parts in; False if one was not there yet."""
        whole = True
        for object_id, content in parts:
            whole &= bool(content)
            if content:
                self._contents[object_id] = content
                self.pulled += len(content)
            if self.pulled > self._room:
                raise TooLarge("a message has more bytes than a parcel may have")
        return whole

    def confirm(self, client: RuntimeHttpClient, node: int, run: int, *, patience: float = PATIENCE_SECONDS) -> None:
        """Let the other end delete the message."""
        request = ConfirmMessageReceivedRequest(
            node=Node(node_id=node), run_id=run, message_object_id=self.message_id
        )
        call(client.ConfirmMessageReceived, request, patience=patience)

    def message(self) -> Message:
        """Put the message together. Malformed for whatever Flower would not have written."""
        _refuse_repetition(self._contents)
        try:
            message = inflate_object_from_contents(self.message_id, self._contents)
        except Exception as error:
            log.debug("a message cannot be put together: %s", type(error).__name__)
            raise Malformed("a message is not put together as Flower does it") from None
        if not isinstance(message, Message):
            raise Malformed("what arrived is not a message")
        message.metadata.__dict__["_message_id"] = self.message_id
        return message


def push(client: RuntimeHttpClient, messages: Sequence[Message], *, node: int, run: int) -> list[str]:
    """Push messages and their objects; objects that the other end has already do not travel again.

    Starts over where an outage leaves it unsaid which objects arrived: a message's id is its digest, so it is not
    delivered twice. Returns the message ids, empty for those that were not accepted.
    """
    with no_object_id_recompute():
        trees, objects = [], dict[str, InflatableObject]()
        for message in messages:
            message.metadata.__dict__["_message_id"] = message.object_id
            trees.append(get_object_tree(message))
            objects.update(get_all_nested_objects(message))
        announced = PushAppMessagesRequest(
            messages_list=[message_to_proto(remove_content_from_message(message)) for message in messages],
            message_object_trees=trees,
        )
        for _ in range(PUSH_ATTEMPTS):
            try:
                return _push(client, announced, objects, node=node, run=run)
            except _NotStoredError:
                continue
    raise Unavailable("the relay does not take a message's parts: sending them takes too long")


class _NotStoredError(Exception):
    """The other end did not expect an object: it has it already, or its patience has ended."""


def _push(
    client: RuntimeHttpClient,
    announced: PushAppMessagesRequest,
    objects: dict[str, InflatableObject],
    *,
    node: int,
    run: int,
) -> list[str]:
    answer = call(client.PushMessages, announced)

    def push_object(object_id: str, content: bytes) -> None:
        request = PushObjectRequest(
            node=Node(node_id=node),
            run_id=run,
            session_id=answer.session_id,
            object_id=object_id,
            object_content=content,
        )
        if not call(client.PushObject, request).stored:
            raise _NotStoredError

    push_objects(objects, push_object, object_ids_to_push=set(answer.objects_to_push), keep_objects=True)
    return [str(id_) for id_ in answer.message_ids]


def _object_ids(tree: ObjectTree) -> list[str]:
    """The ids of a tree, its root first."""
    try:
        ids = list(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))[::-1]
    except RecursionError:
        raise Malformed("a message's parts are nested too deeply") from None
    if len(ids) > OBJECTS:
        raise TooLarge(f"a message claims {len(ids)} parts")
    return ids


def _refuse_repetition(contents: dict[str, bytes]) -> None:
    """Refuse arrays that name few chunks many times: a short message would fill the memory."""
    for content in contents.values():
        try:
            kind, children, _ = get_object_head_values_from_object_content(content)
            if kind != "Array":
                continue
            indices = json.loads(get_object_body(content, Array))["arraychunk_ids"]
            size = sum(len(contents[children[index]]) for index in indices[: OBJECTS + 1])
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise Malformed("a message's array is not written as Flower does it") from None
        if len(indices) > OBJECTS or size > LIMITS.body_bytes + OBJECTS * 1024:
            raise TooLarge("a message's array is larger than a parcel may be")
