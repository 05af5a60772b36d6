"""What both pinned executors share: a client of Flower's Runtime API, its calls, and heartbeats.

Here, in `transfer.py`, `participants/flower.py` and `coordinator/flower.py` the programs inside TEEs call Flower's
private parts; tests/flower/test_contract.py says at once when an upgrade changes them. The other end is not trusted:
it may send anything, of any size, at any time. Flower's own client would let it redirect requests, send compressed
bombs, and end this process (by a version header, or a 401); this one does not.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClientInterceptor, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

from superswarm.errors import Malformed, Misconfigured, RunStopped, Unavailable
from superswarm.io.heldpolls import WAIT_HEADER
from superswarm.values import LIMITS

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")

HEARTBEAT_SECONDS: Final = 10.0  # Flower gives a task up after 60
FIRST_HEARTBEAT_SECONDS: Final = 2.0  # a short task needs none
ACQUIRE_WAIT_SECONDS: Final = 2.0  # how long the other end may hold a poll; also how soon a stop is noticed
IDLE_SECONDS: Final = 0.2  # between polls, where the other end does not hold them
PATIENCE_SECONDS: Final = 60.0  # how long an outage may last before a call gives up; Flower's runs survive no longer
BACKOFF_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
RESPONSE_BYTES: Final = LIMITS.head_bytes + 64 * 1024**2  # one object; Flower cuts arrays into 5 MiB
ACQUIRE: Final = "/flwr.proto.Runtime/AcquireTask"
RETRY_STATUS: Final = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class RuntimeEndpoint:
    """A Runtime API: a relay's, for the aggregator, or a SuperNode's, for a node or trainer."""

    address: str  # host:port
    authority: bytes  # PEM: the TLS authority that its certificate is under
    secret: bytes = field(repr=False)  # the SuperExec secret: by it the other end knows its executor


class Connection:
    """HTTP to one Runtime API, kept open from task to task. A context manager."""

    def __init__(self, endpoint: RuntimeEndpoint) -> None:
        self._url = f"https://{endpoint.address}"
        self._secret = endpoint.secret
        self._http = httpx.Client(
            verify=_trust(endpoint.authority),
            timeout=30.0,
            follow_redirects=False,
            trust_env=not _is_loopback(endpoint.address),  # a proxy is for the way out
            headers={"accept-encoding": "identity"},
            event_hooks={"response": [_cap]},
        )

    def executor(self) -> RuntimeHttpClient:
        """A client that acquires tasks."""
        secret = SuperExecAuthHttpInterceptor(master_secret=self._secret, protected_methods=frozenset({ACQUIRE}))
        return self._client(secret, ACQUIRE_WAIT_SECONDS)

    def task(self, token: str, *, wait: float = 0.0) -> RuntimeHttpClient:
        """A client that works on one task; the other end may hold its polls for `wait` seconds (see `heldpolls`)."""
        return self._client(RuntimeTokenHttpInterceptor(token), wait)

    def _client(self, auth: ProtobufClientInterceptor, wait: float) -> RuntimeHttpClient:
        client = RuntimeHttpClient(self._url, interceptors=[_Headers(wait), auth], verify=False)  # replaced below
        client._client.close()
        client._client = self._http
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()


def acquire(client: RuntimeHttpClient, task_type: str, stop: threading.Event) -> Iterator[str]:
    """Yield the token of each task of this type, until told to stop. Outages are waited out.

    Raises Misconfigured where waiting will not help: the secret or the TLS authority is wrong.
    """
    failures = 0
    while not stop.is_set():
        began = time.monotonic()
        try:
            answer = client.AcquireTask(AcquireTaskRequest(supported_task_types=[task_type]))
        except (httpx.HTTPError, ValueError) as error:
            _raise_if_hopeless(error)
            if failures == 0:
                log.warning("the Flower runtime cannot be reached; trying again until it can")
            stop.wait(_backoff(failures))
            failures += 1
            continue
        if failures:
            log.info("the Flower runtime can be reached again")
            failures = 0
        if answer.token:
            yield str(answer.token)
        elif time.monotonic() - began < IDLE_SECONDS:
            stop.wait(IDLE_SECONDS)


def call(function: Callable[[T], R], request: T, *, patience: float = PATIENCE_SECONDS) -> R:
    """Call the Runtime API of a task, waiting out short outages.

    Raises RunStopped when the task is no longer known (the operator stopped the run, or an outage was too long),
    Unavailable when patience ends or the other end refuses.
    """
    end = time.monotonic() + patience
    attempt = 0
    while True:
        try:
            return function(request)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status in (401, 403):
                raise RunStopped("the relay has ended this run or task") from None
            if status not in RETRY_STATUS:
                raise Unavailable(f"the relay refuses a call: HTTP {status}") from None
        except httpx.TransportError:
            pass
        except (httpx.RequestError, ValueError):  # compressed, endless, or not protobuf
            raise Malformed("the relay's answer is not what Flower's protocol has there") from None
        pause = _backoff(attempt)
        if time.monotonic() + pause > end:
            raise Unavailable("the relay does not answer") from None
        time.sleep(pause)
        attempt += 1


class Heartbeat:
    """Keeps a task alive from a thread, through outages. `gone` is set once the other end has given the task up."""

    def __init__(self, client: RuntimeHttpClient) -> None:
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flower-heartbeat", daemon=True)
        self.gone = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(1.0)  # it may hang in a call, which ends by its own timeout

    def _run(self) -> None:
        pause = FIRST_HEARTBEAT_SECONDS
        while not self._stop.wait(pause):
            pause = HEARTBEAT_SECONDS
            try:
                known = self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
            except httpx.HTTPStatusError as error:
                known = error.response.status_code not in (401, 403)
                pause = 1.0
            except (httpx.HTTPError, ValueError):
                known, pause = True, 1.0
            except RuntimeError:  # the connection was closed meanwhile
                return
            if not known:
                self.gone.set()
                return


class _Headers:
    """Tells the other end our Flower version, as Flower does, and how long we wait; ignores what it answers."""

    def __init__(self, wait: float) -> None:
        self._headers = dict(RuntimeVersionMetadata.from_local_component("superswarm").as_metadata())
        self._headers[WAIT_HEADER] = str(wait)

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers.update(self._headers)
        return call_next(context)


def _trust(authority: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks names and dates
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=authority.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError):
        raise Misconfigured("the TLS authority is not a PEM certificate") from None
    return context


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _cap(response: httpx.Response) -> None:
    """Refuse answers that are compressed or too long, before they are read."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx.DecodingError("compressed, though not asked for", request=response.request)
    if isinstance(response.stream, httpx.SyncByteStream):  # always, in a synchronous client
        response.stream = _Capped(response.stream)


class _Capped(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._stream:
            size += len(part)
            if size > RESPONSE_BYTES:
                raise httpx.DecodingError("an answer is over its limit")
            yield part

    def close(self) -> None:
        self._stream.close()


def _raise_if_hopeless(error: Exception) -> None:
    if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (401, 403):
        raise Misconfigured("the Flower runtime refuses this executor: the SuperExec secret is not its own") from None
    if isinstance(error, httpx.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        raise Misconfigured(
            "the TLS certificate of the Flower runtime is not for this address under the given authority"
        ) from None


def _backoff(attempt: int) -> float:
    return BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)]
