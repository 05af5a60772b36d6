"""Which of the SuperLink's paths a stranger may reach, and what wakes whose poll. Pure ASGI: nothing is copied.

Flower serves its Fleet, Runtime and Control APIs on one port. SuperNodes and the aggregator authenticate on the
first two; the open-source Control API admits anybody, so it is served on the operator's socket alone. An allow-list:
a path that an upgrade adds is closed until somebody opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.runtime_pb2 import (
    AcquireTaskResponse,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
)
from google.protobuf.message import DecodeError
from starlette.middleware import Middleware

from superswarm.io.heldpolls import App, HeldPolls, Receive, Scope, Send, Topic

FLEET: Final = "/v1/fleet/"
RUNTIME: Final = "/v1/runtime/"
PUBLIC: Final = frozenset(
    {
        *(
            FLEET + path
            for path in (
                "activate-node",
                "deactivate-node",
                "send-node-heartbeat",
                "pull-messages",
                "push-messages",
                "pull-object",
                "push-object",
                "confirm-message-received",
                "get-run",
                "get-fab",
            )
        ),
        *(
            RUNTIME + path
            for path in (
                "acquire-task",
                "pull-task-input",
                "push-task-output",
                "send-task-heartbeat",
                "get-nodes",
                "pull-messages",
                "push-messages",
                "pull-object",
                "push-object",
                "confirm-message-received",
            )
        ),
    }
)
CONTROL_LAYERS: Final = frozenset(
    {
        "ControlSensitiveResponseMiddleware",
        "ControlAuthenticationMiddleware",
        "ControlLicenseMiddleware",
        "ControlEventLogMiddleware",
    }
)
IDLE_LAYERS: Final = frozenset({"RuntimeTracingMiddleware", "FleetEventLogMiddleware"})
START_RUN: Final = "/v1/control/start-run"
TASKS: Final = "tasks"
REPLIES: Final = "replies"


class PublicGate:
    """Passes the paths that members and the aggregator need; every other path does not exist."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (
            scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in PUBLIC
        ):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1008})


class OnlyControl:
    """Runs a middleware for the Control API only."""

    def __init__(self, app: App, inner: Callable[..., App], *args: Any, **kwargs: Any) -> None:
        self._app, self._inner = app, inner(app, *args, **kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        control = scope["type"] != "http" or scope["path"].startswith("/v1/control/")
        await (self._inner if control else self._app)(scope, receive, send)


def shorten(layers: list[Middleware]) -> None:
    """Keep the SuperLink's Control layers from the calls that they are not for: there are many, and each costs.

    Six of the nine layers around every call concern the Control API, or event logs and tracing, which are off here.
    """
    layers[:] = [
        Middleware(OnlyControl, layer.cls, *layer.args, **layer.kwargs)
        if getattr(layer.cls, "__name__", "") in CONTROL_LAYERS
        else layer
        for layer in layers
        if getattr(layer.cls, "__name__", "") not in IDLE_LAYERS
    ]


def held(app: App) -> HeldPolls:
    """Let SuperNodes' and the aggregator's polls wait for news at the relay."""
    return HeldPolls(
        app,
        polls={
            FLEET + "pull-messages": _polling_node,
            RUNTIME + "pull-messages": lambda _: REPLIES,
            RUNTIME + "acquire-task": lambda _: TASKS,
        },
        empty={
            FLEET + "pull-messages": _no_request,
            RUNTIME + "pull-messages": _no_reply,
            RUNTIME + "acquire-task": _no_task,
        },
        pushes={RUNTIME + "push-messages": _addressees},
        always={FLEET + "push-messages": REPLIES, FLEET + "push-object": REPLIES, START_RUN: TASKS},
    )


def _polling_node(body: bytes) -> Topic:
    try:
        return int(PullMessagesRequest.FromString(body).node.node_id)
    except DecodeError:
        return None


def _addressees(body: bytes) -> Iterable[Topic]:
    try:
        messages = PushAppMessagesRequest.FromString(body).messages_list
    except DecodeError:
        return []
    return [int(message.metadata.dst_node_id) for message in messages]


def _no_request(body: bytes) -> bool:
    return not PullMessagesResponse.FromString(body).messages_list


def _no_reply(body: bytes) -> bool:
    return not PullAppMessagesResponse.FromString(body).messages_list


def _no_task(body: bytes) -> bool:
    return not AcquireTaskResponse.FromString(body).token
