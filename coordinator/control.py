"""What the operator asks of a running relay: register SuperNodes, start and stop runs, list both.

Speaks Flower's Control API over the relay's Unix socket. Whoever may open the socket is the operator.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from coordinator.bundle import inert_bundle
from coordinator.superlink import CONTROL_SOCKET
from superswarm.errors import Environment, Malformed, Misconfigured, Unavailable

T = TypeVar("T")
R = TypeVar("R")
KEY: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
RUNS_LISTED: Final = 1000


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A registered SuperNode. Its name is the operator's note, and proves nothing."""

    node: int
    name: str
    status: str  # registered, online, offline
    public_key: bytes


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the relay knows it: one attempt."""

    run: int
    status: str  # pending, starting, running, finished
    outcome: str  # once finished: completed, failed, stopped
    detail: str  # a failed run's fixed word
    pending_at: str
    finished_at: str


class RelayControl:
    """A connection to a running relay's operator socket. Use as a context manager."""

    def __init__(self, state: Path) -> None:
        self._folder: int | None = None
        try:
            self._folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise Environment(
                f"cannot open the relay's folder {state}: {error.strerror}; name it (--state), or start the relay "
                "first (superswarm coordinator up)"
            ) from None
        # A socket's whole path may be too long (unix(7)): go through the folder's descriptor where there is /proc.
        short = f"/proc/self/fd/{self._folder}/{CONTROL_SOCKET}"
        path = short if Path("/proc/self/fd").is_dir() else str(state / CONTROL_SOCKET)
        self._client = ControlHttpClient("http://relay")
        self._client._client.close()
        self._client._client = httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=30.0, trust_env=False)

    def close(self) -> None:
        self._client.close()
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def healthy(self) -> bool:
        """Whether the relay answers."""
        with contextlib.suppress(httpx.TransportError):
            return self._client._client.get("http://relay/health").status_code == httpx.codes.OK
        return False

    def admit(self, public_key: str, name: str = "") -> int:
        """Register a SuperNode by its OpenSSH public key; return its node id. Twice gives the same id."""
        key = parse_public_key(public_key)
        known = {row.public_key: row.node for row in self.nodes()}
        if key in known:
            return known[key]
        return int(_call(self._client.RegisterNode, RegisterNodeRequest(public_key=key, name=name)).node_id)

    def expel(self, node: int) -> None:
        """Forget a SuperNode: it can no longer connect."""
        _call(self._client.UnregisterNode, UnregisterNodeRequest(node_id=node))

    def nodes(self) -> list[NodeRow]:
        """All SuperNodes that are registered."""
        answer = _call(self._client.ListNodes, ListNodesRequest())
        return [NodeRow(node.node_id, node.name, node.status, node.public_key) for node in answer.nodes_info]

    def start_run(self, config: Mapping[str, str]) -> int:
        """Start a run; the aggregator gets `config` as untrusted text. Returns Flower's run id."""
        for key in config:
            if not KEY.fullmatch(key):
                raise ValueError(f"not a key: {key!r}")
        request = StartRunRequest(fab=Fab(content=inert_bundle(config)))
        for key, value in user_config_to_proto(dict(config)).items():
            request.override_config[key].CopyFrom(value)
        run = int(_call(self._client.StartRun, request).run_id)
        if run == 0:
            raise Unavailable("the relay did not start the run")
        return run

    def stop_run(self, run: int) -> bool:
        """Stop a run; False if it had already ended."""
        try:
            return bool(_call(self._client.StopRun, StopRunRequest(run_id=run)).success)
        except _AlreadyFinished:
            return False

    def runs(self) -> list[RunRow]:
        """The latest runs, youngest first."""
        answer = _call(self._client.ListRuns, ListRunsRequest(limit=RUNS_LISTED))
        rows = [
            RunRow(
                run.run_id,
                run.status.status,
                run.status.sub_status,
                run.status.details,
                run.pending_at,
                run.finished_at,
            )
            for run in answer.run_dict.values()
        ]
        return sorted(rows, key=lambda row: row.pending_at, reverse=True)

    def run(self, run: int) -> RunRow:
        """One run."""
        for row in self.runs():
            if row.run == run:
                return row
        raise Misconfigured(f"the relay knows no run {run}")


class _AlreadyFinished(Unavailable):
    """The run had ended before it was stopped."""


def parse_public_key(line: str) -> bytes:
    """Read an OpenSSH public key of the kind that Flower's SuperNodes have; return it as Flower stores it."""
    try:
        key = load_ssh_public_key(line.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("not an OpenSSH public key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Malformed("a SuperNode's key is an elliptic-curve key (ecdsa-sha2-nistp256)")
    return bytes(public_key_to_bytes(key))


def _call(function: Callable[[T], R], request: T) -> R:
    with _translated():
        return function(request)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Say in our errors what Flower's Control API answers."""
    from flwr.supercore.error import ApiErrorCode, FlowerError

    try:
        yield
    except httpx.TransportError:
        raise Environment("no relay is running here (or another user's): start it with `coordinator up`") from None
    except httpx.HTTPStatusError as error:
        told = FlowerError.from_json(error.response.text)
        if told is not None and told.code == ApiErrorCode.RUN_ALREADY_FINISHED:
            raise _AlreadyFinished("the run had already ended") from None
        if told is not None and told.code in (ApiErrorCode.RUN_ID_NOT_FOUND, ApiErrorCode.NODE_NOT_FOUND):
            raise Misconfigured("the relay knows no run or SuperNode of this number") from None
        raise Unavailable(f"the relay refuses: HTTP {error.response.status_code}") from None
