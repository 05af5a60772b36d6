from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from superswarm.io.heldpolls import App, Event, HeldPolls, Receive, Scope, Send


class Box:
    """An app with one mailbox a topic: /pull takes what is in the box of the body's name, /push puts it there."""

    def __init__(self) -> None:
        self.boxes: dict[bytes, list[bytes]] = {}
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        answer = b""
        self.calls += 1
        if scope["path"] in ("/push", "/broadcast"):
            self.boxes.setdefault(body, []).append(b"letter")
        elif self.boxes.get(body):
            answer = self.boxes[body].pop()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})


def layer(app: App) -> HeldPolls:
    return HeldPolls(
        app,
        polls={"/pull": lambda body: body},
        empty={"/pull": lambda answer: not answer},
        pushes={"/push": lambda body: [body]},
        always={"/broadcast": b"a"},
    )


async def request(
    app: App, path: str, body: bytes, wait: str | None = None, *, leaving: asyncio.Event | None = None
) -> bytes:
    events: Iterator[Event] = iter([{"type": "http.request", "body": body, "more_body": False}])
    out: list[Event] = []

    async def receive() -> Event:
        for event in events:
            return event
        await (leaving or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(event: Event) -> None:
        out.append(event)

    headers = [(b"superswarm-wait", wait.encode())] if wait is not None else []
    await app({"type": "http", "path": path, "headers": headers}, receive, send)
    return b"".join(event.get("body", b"") for event in out)


async def timed(app: App, body: bytes, wait: str | None) -> tuple[bytes, float]:
    began = time.monotonic()
    return await request(app, "/pull", body, wait), time.monotonic() - began


def test_a_poll_is_held_until_a_push_for_it() -> None:
    async def play() -> None:
        box = Box()
        app = layer(box)
        assert await request(app, "/pull", b"a", "5") == b""  # the first is answered: there may be something already
        poll = asyncio.create_task(timed(app, b"a", "5"))
        await asyncio.sleep(0.05)
        await request(app, "/push", b"b")
        await asyncio.sleep(0.05)
        assert not poll.done()
        await request(app, "/push", b"a")
        answer, seconds = await poll
        assert answer == b"letter"
        assert seconds < 1
        assert box.calls == 4  # no poll ran twice

    asyncio.run(play())


def test_a_client_that_left_takes_nothing() -> None:
    """Or a message would go to a program that was killed, and be lost."""

    async def play() -> None:
        app = layer(Box())
        await request(app, "/pull", b"a", "5")
        leaving = asyncio.Event()
        dead = asyncio.create_task(request(app, "/pull", b"a", "5", leaving=leaving))
        await asyncio.sleep(0.05)
        leaving.set()
        assert await asyncio.wait_for(dead, 1) == b""
        await request(app, "/push", b"a")
        assert await request(app, "/pull", b"a", "5") == b"letter"

    asyncio.run(play())


def test_a_path_may_wake_a_topic_whatever_its_body() -> None:
    async def play() -> None:
        app = layer(Box())
        await request(app, "/pull", b"a", "5")
        poll = asyncio.create_task(timed(app, b"a", "5"))
        await asyncio.sleep(0.05)
        await request(app, "/broadcast", b"a")
        assert (await poll)[0] == b"letter"

    asyncio.run(play())


def test_a_poll_without_the_header_is_not_held() -> None:
    async def play() -> None:
        app = layer(Box())
        for wait in (None, "0", "-1", "nonsense"):
            await request(app, "/pull", b"a", wait)
            answer, seconds = await timed(app, b"a", wait)
            assert answer == b""
            assert seconds < 0.5

    asyncio.run(play())


def test_a_held_poll_is_let_go_in_the_end() -> None:
    async def play() -> None:
        app = layer(Box())
        await request(app, "/pull", b"a", "0.1")
        answer, seconds = await timed(app, b"a", "0.1")
        assert answer == b""
        assert 0.05 < seconds < 1

    asyncio.run(play())


def test_a_push_between_two_polls_is_not_missed() -> None:
    async def play() -> None:
        app = layer(Box())
        await request(app, "/pull", b"a", "5")
        await request(app, "/push", b"a")
        answer, seconds = await timed(app, b"a", "5")
        assert answer == b"letter"
        assert seconds < 0.5

    asyncio.run(play())


def test_stopping_lets_every_poll_go() -> None:
    async def play() -> None:
        app = layer(Box())
        await request(app, "/pull", b"a", "5")
        poll = asyncio.create_task(timed(app, b"a", "5"))
        await asyncio.sleep(0.05)
        app.close()
        assert (await poll)[1] < 1
        assert (await timed(app, b"a", "5"))[1] < 0.5

    asyncio.run(play())


def test_a_thread_may_wake() -> None:
    async def play() -> None:
        box = Box()
        app = layer(box)
        await request(app, "/pull", b"a", "5")
        poll = asyncio.create_task(timed(app, b"a", "5"))
        await asyncio.sleep(0.05)
        box.boxes[b"a"] = [b"letter"]
        await asyncio.to_thread(app.wake_from_thread, b"a")
        assert (await poll)[0] == b"letter"

    asyncio.run(play())


def test_a_long_body_passes_whole_and_unread() -> None:
    async def play() -> None:
        seen: list[int] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            size, more = 0, True
            while more:
                event = await receive()
                size, more = size + len(event["body"]), event["more_body"]
            seen.append(size)

        parts = iter([{"type": "http.request", "body": bytes(2**19), "more_body": n < 7} for n in range(8)])

        async def receive() -> Event:
            return next(parts)

        async def send(event: Event) -> None:
            raise AssertionError(event)

        await layer(app)({"type": "http", "path": "/push", "headers": []}, receive, send)
        assert seen == [2**22]

    asyncio.run(play())
