"""The relay's child process: Flower's SuperLink behind our gate. `python -m coordinator.superlink SETTINGS.json`.

Serves one app twice: to members and the aggregator over TLS, what `gate.PUBLIC` lists; to the operator, everything,
on a Unix socket in the state folder that only the operator's account can open. The SuperLink itself is Flower's,
unchanged, configured by its own command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

import uvicorn

from coordinator.gate import PublicGate, held, shorten
from superswarm.io.heldpolls import App

CONTROL_SOCKET: Final = "control.sock"
GRACE_SECONDS: Final = 3
BACKLOG: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the relay hands its child."""

    state: str
    host: str
    port: int
    authority: str
    certificate: str
    key: str
    secret: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


def arguments(settings: Settings) -> list[str]:
    """The `flower-superlink` command line."""
    return [
        "flower-superlink",
        *("--host", settings.host),
        *("--port", str(settings.port)),
        *("--isolation", "process"),
        *("--ssl-certfile", settings.certificate),
        *("--ssl-keyfile", settings.key),
        *("--ssl-ca-certfile", settings.authority),
        *("--superexec-auth-secret-file", settings.secret),
        "--enable-supernode-auth",
        *("--database", str(Path(settings.state) / "state.db")),
    ]


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = Settings.from_json(Path(sys.argv[1]).read_text())
    os.chdir(settings.state)
    os.umask(0o077)
    sys.argv = arguments(settings)
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan, _parse_superlink_lifespan_config
    from flwr.superlink.main import create_app

    logging.getLogger("flwr").setLevel(logging.WARNING)
    app = create_app(_parse_superlink_lifespan_config(), SuperLinkLifespan)
    shorten(app.user_middleware)
    with asyncio.Runner(loop_factory=uvicorn.Config(app).get_loop_factory()) as runner:  # uvloop, where installed
        runner.run(_serve(app, settings))


async def _serve(app: App, settings: Settings) -> None:
    polls = held(app)

    class Server(uvicorn.Server):
        """A uvicorn server that leaves signals to us: there are two of them."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    public = Server(
        uvicorn.Config(
            PublicGate(polls),
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.key,
            backlog=BACKLOG,
        )
    )
    control = Server(
        uvicorn.Config(
            polls,
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )

    def stop() -> None:
        polls.close()
        public.should_exit = control.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    with _public_socket(settings.host, settings.port) as outer, _control_socket() as inner:
        serving = asyncio.create_task(public.serve(sockets=[outer]))
        while not public.started and not serving.done():
            await asyncio.sleep(0.02)
        if not serving.done():
            await control.serve(sockets=[inner])
        await serving


def _public_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


def _control_socket() -> socket.socket:
    """A socket in the working folder: a whole path may be too long for one (unix(7))."""
    path = Path(CONTROL_SOCKET)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(CONTROL_SOCKET)
    path.chmod(0o600)
    return listener


if __name__ == "__main__":
    main()
