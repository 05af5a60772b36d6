"""`/health` and Prometheus `/metrics` of a program, for its operator's monitoring. Nothing secret is served.

A small HTTP server in a daemon thread, on loopback unless configured otherwise. It answers two paths, reads no body
and takes no input, so it stays out of the way of what the program does.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Literal, Self

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from superswarm import __version__
from superswarm.errors import Environment, PortTaken
from superswarm.io.config import Address
from superswarm.io.logs import logger, safe
from superswarm.values import PROTOCOL_VERSION, SIMULATED_WARNING

Status = Literal["starting", "ok", "degraded", "stopping"]
CLIENT_SECONDS: Final = 5.0  # a client that sends slower is dropped
CLIENTS: Final = 16  # at once; more are turned away
POLL_SECONDS: Final = 0.1  # how soon `stop` is seen
log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """What `/health` says. Details pass the redaction of logs, and hold counts and states only."""

    status: Status
    details: Mapping[str, object] = field(default_factory=dict)


class StatusServer:
    """Serves one program's health and metrics until stopped.

    `registry` is the program's own: nothing of another library appears in it unasked.
    """

    def __init__(
        self,
        program: str,
        bind: Address,
        health: Callable[[], Health],
        *,
        simulated: bool,
        registry: CollectorRegistry,
    ) -> None:
        self._program, self._health, self._simulated, self._registry = program, health, simulated, registry
        labels = ["program", "version", "protocol"]
        about = Gauge("superswarm_info", "1; labels say what runs.", labels, registry=registry)
        about.labels(program, __version__, str(PROTOCOL_VERSION)).set(1)
        help_ = "1 if attestation is simulated and protects nothing."
        Gauge("superswarm_simulated", help_, registry=registry).set(int(simulated))
        self._server = _listen(bind, _handler(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_SECONDS,), name=f"{program}-status", daemon=True
        )

    @property
    def address(self) -> Address:
        """Where it listens, with the real port where 0 was asked for."""
        host, port = self._server.server_address[:2]
        return Address(str(host), port)

    def start(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        if not self.address.loopback:
            log.warning("health and metrics can be reached from other machines", address=str(self.address))
        return self

    def stop(self) -> None:
        """Stop serving and free the port; twice does no harm."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def page(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Answer a path: status, content type, body."""
        match path.partition("?")[0]:
            case "/health":
                health = self._health()
                code = HTTPStatus.OK if health.status == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
                return code, "application/json", json.dumps(self._document(health)).encode() + b"\n"
            case "/metrics":
                return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)
            case _:
                return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"/health and /metrics are served here\n"

    def _document(self, health: Health) -> dict[str, Any]:
        document: dict[str, Any] = {
            "status": health.status,
            "program": self._program,
            "version": __version__,
            "protocol": PROTOCOL_VERSION,
            "simulated": self._simulated,
        }
        if self._simulated:
            document["warning"] = SIMULATED_WARNING
        return document | {"details": safe(dict(health.details))}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 2 * CLIENTS
    block_on_close = False
    allow_reuse_port = False

    def __init__(self, address: Address, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._room = threading.BoundedSemaphore(CLIENTS)
        super().__init__((address.host, address.port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.warning("a status request failed", error=sys.exception())


def _listen(bind: Address, handler: type[BaseHTTPRequestHandler]) -> _Server:
    try:
        return _Server(bind, handler)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(f"another process listens on {bind}; set `http` to a free port, or to off") from None
        raise Environment(f"cannot listen on {bind}: {error.strerror}") from None


def _handler(server: StatusServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_SECONDS
        server_version = "superswarm"
        sys_version = ""

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            status, kind, text = server.page(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if body:
                self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing of requests: what clients send is not ours to print."""

    return Handler
