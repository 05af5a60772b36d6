"""An ASGI layer under which a poll waits for news, instead of returning empty-handed and asking again.

Flower's parties poll: SuperNodes every 3 s, executors every second, the aggregator as it likes. With this layer in
front of a SuperLink's or a SuperNode's app, a client that sends `superswarm-wait: SECONDS` is held until something
has arrived for it. Others are served as before. Nothing is read of a message but whom it is for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Topic: TypeAlias = Hashable

WAIT_HEADER: Final = "superswarm-wait"
LONGEST_WAIT_SECONDS: Final = 20.0  # Flower's clients give up after 30 s
MOST_WAITING: Final = 4096  # polls held at once; more are answered right away
BODY_BYTES: Final = 1024**2  # of a poll or a push's metadata; a longer one is passed on unread


class HeldPolls:
    """Holds polls until a push wakes their topic.

    `polls` says, for a path, which topic a request's body polls, and `empty`, whether its answer said nothing.
    `pushes` says which topics a request's body wakes; `always`, which one it wakes whatever the body, which then
    passes unread. A topic that answered empty, and was not woken since, is held; so no poll is run twice, which
    matters where requests carry a nonce.
    """

    def __init__(
        self,
        app: App,
        *,
        polls: Mapping[str, Callable[[bytes], Topic]],
        empty: Mapping[str, Callable[[bytes], bool]],
        pushes: Mapping[str, Callable[[bytes], Iterable[Topic]]],
        always: Mapping[str, Topic] | None = None,
    ) -> None:
        self._app, self._polls, self._empty, self._pushes = app, polls, empty, pushes
        self._always = always or {}
        self._woken: dict[Topic, int] = {}
        self._told: dict[Topic, int] = {}  # as of which wake-up a topic was last told "nothing"
        self._waiting: dict[Topic, set[asyncio.Event]] = {}
        self._held = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        path = scope.get("path", "") if scope["type"] == "http" else ""
        if path in self._polls:
            await self._poll(path, scope, receive, send)
        elif path in self._pushes:
            await self._push(path, scope, receive, send)
        elif path in self._always:
            answer = _Answer(send)
            await self._app(scope, receive, answer)
            if answer.ok:
                self.wake(self._always[path])
        else:
            await self._app(scope, receive, send)

    def wake(self, *topics: Topic) -> None:
        """Let polls of these topics run now. From the loop's own thread."""
        for topic in topics:
            self._woken[topic] = self._woken.get(topic, 0) + 1
            for event in self._waiting.get(topic, ()):
                event.set()

    def wake_from_thread(self, *topics: Topic) -> None:
        """Let polls of these topics run now. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.wake, *topics)

    def close(self) -> None:
        """Let every held poll go, and hold no more: the server is stopping."""
        self._closed = True
        for events in self._waiting.values():
            for event in events:
                event.set()

    async def _poll(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        body, replay = await _read(receive)
        topic = self._polls[path](body) if body is not None else None
        if body is None or topic is None:
            await self._app(scope, replay, send)
            return
        if not await self._hold(topic, _wait_seconds(scope), receive):
            return  # nobody is there to answer: what arrived is for whoever asks next
        woken = self._woken.get(topic, 0)
        answer = _Answer(send)
        await self._app(scope, replay, answer)
        if answer.ok and self._empty[path](bytes(answer.body)):
            self._told[topic] = woken
        else:
            self._told.pop(topic, None)

    async def _push(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        body, replay = await _read(receive)
        answer = _Answer(send)
        await self._app(scope, replay, answer)
        if answer.ok and body is not None:
            self.wake(*self._pushes[path](body))

    async def _hold(self, topic: Topic, seconds: float, receive: Receive) -> bool:
        """Wait for the topic to be woken; False if the client left meanwhile."""
        if self._told.get(topic) != self._woken.get(topic, 0) or seconds <= 0:
            return True
        if self._held >= MOST_WAITING or self._closed:
            return True
        event = asyncio.Event()
        self._waiting.setdefault(topic, set()).add(event)
        self._held += 1
        news, leaving = asyncio.ensure_future(event.wait()), asyncio.ensure_future(receive())
        try:
            await asyncio.wait({news, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return not leaving.done()
        finally:
            news.cancel()
            leaving.cancel()
            self._held -= 1
            self._waiting[topic].discard(event)
            if not self._waiting[topic]:
                del self._waiting[topic]


class _Answer:
    """Passes an answer on, and remembers its status and, if short, its body."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.ok = False
        self.body = bytearray()

    async def __call__(self, event: Event) -> None:
        if event["type"] == "http.response.start":
            self.ok = 200 <= event["status"] < 300
        elif event["type"] == "http.response.body" and len(self.body) <= BODY_BYTES:
            self.body += event.get("body", b"")[: BODY_BYTES + 1]
        await self._send(event)


async def _read(receive: Receive) -> tuple[bytes | None, Receive]:
    """Read a request's body; return it (None if it is long or the client left) and a `receive` that replays it."""
    events: list[Event] = []
    body = bytearray()
    whole = False
    while len(body) <= BODY_BYTES:
        event = await receive()
        events.append(event)
        if event["type"] != "http.request":
            break
        body += event.get("body", b"")
        if not event.get("more_body", False):
            whole = True
            break

    async def replay() -> Event:
        return events.pop(0) if events else await receive()

    return (bytes(body) if whole and len(body) <= BODY_BYTES else None), replay


def _wait_seconds(scope: Scope) -> float:
    for name, value in scope["headers"]:
        if name == WAIT_HEADER.encode():
            try:
                return min(float(value), LONGEST_WAIT_SECONDS)
            except ValueError:
                return 0.0
    return 0.0
