"""The SuperNode beside a node or trainer: Flower's process, started, watched and stopped by the program it serves.

It connects outward to the relay, and serves its executor on loopback only, over TLS and behind a fresh secret. It is
outside the trust boundary: it sees what the relay sees.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from participants.flower import SuperNodeEndpoint
from participants.supernode_child import NODE_FILE
from superswarm.errors import Environment, Misconfigured
from superswarm.io.certificates import ensure_server_files, node_key
from superswarm.io.files import SECRET, write_bytes
from superswarm.io.flowerenv import flower_environment, free_loopback_port
from superswarm.io.processes import Child, spawn

log = logging.getLogger(__name__)
READY_SECONDS: Final = 60.0
WATCH_SECONDS: Final = 0.5
RESTART_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_SECONDS: Final = 60.0  # a SuperNode that ran this long starts its next life without delay
LOG_BYTES: Final = 8 * 1024**2
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperNodeSettings:
    """What a SuperNode needs."""

    relay: str  # host:port
    relay_authority: Path  # PEM, from the operator
    key: Path  # EC, OpenSSH; its public half is registered at the relay
    state: Path  # a folder of its own, made if missing


def enroll(key: Path) -> str:
    """Make, or keep, a SuperNode's key; return the public line that the operator registers (also in `KEY.pub`)."""
    key.parent.mkdir(parents=True, exist_ok=True)
    return node_key(key)


class SuperNode:
    """A SuperNode that runs until stopped: restarted when it ends, killed with its program.

    Use as a context manager; the endpoint stays the same over restarts.
    """

    def __init__(self, settings: SuperNodeSettings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._child: Child | None = None
        self._watcher = threading.Thread(target=self._watch, name="supernode-watch", daemon=True)
        self._lock = threading.Lock()
        self.restarts = 0

    @property
    def running(self) -> bool:
        """Whether the process runs now; it may still be connecting."""
        return self._child is not None and self._child.running

    @property
    def endpoint(self) -> SuperNodeEndpoint:
        """Where its executor connects."""
        return self._endpoint

    @property
    def log_file(self) -> Path:
        return self._settings.state / "supernode.log"

    def start(self, stop: threading.Event | None = None) -> Self:
        """Start it; return once its executor can connect. `stop` abandons the wait."""
        settings = self._settings
        for file in (settings.relay_authority, settings.key):
            if not file.is_file():
                raise Misconfigured(f"{file} is not a file")
        try:
            self._prepare()
            self._launch()
            self._await_ready(stop or threading.Event())
        except BaseException:  # Ctrl-C too: `with` has not begun yet
            self.stop()
            raise
        self._watcher.start()
        return self

    def stop(self) -> None:
        """Stop it. Twice does no harm."""
        self._stop.set()
        if self._watcher.is_alive():
            self._watcher.join()
        with self._lock:
            if self._child is not None:
                self._child.stop()
        shutil.rmtree(self._run_folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _run_folder(self) -> Path:
        return self._settings.state / "run"  # this program's lifetime only: TLS keys, secret, Flower's home

    def _prepare(self) -> None:
        """Make fresh TLS files and a fresh secret for the loopback API."""
        folder = self._run_folder
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise Environment(f"cannot make {folder}: {error.strerror}") from None
        self._tls = ensure_server_files(folder, [LOOPBACK, "localhost"], prefix="runtime")
        secret = secrets.token_bytes(32)
        write_bytes(folder / "superexec.secret", secret, mode=SECRET)
        self._port = free_loopback_port()
        self._endpoint = SuperNodeEndpoint(f"{LOOPBACK}:{self._port}", self._tls.authority.read_bytes(), secret)

    def _command(self) -> list[str]:
        settings, folder = self._settings, self._run_folder
        return [
            *(sys.executable, "-m", "participants.supernode_child"),
            *("--superlink", settings.relay),
            *("--root-certificates", str(settings.relay_authority.absolute())),
            *("--auth-supernode-private-key", str(settings.key.absolute())),
            *("--isolation", "process"),
            *("--host", LOOPBACK),
            *("--port", str(self._port)),
            *("--ssl-certfile", str(self._tls.certificate.absolute())),
            *("--ssl-keyfile", str(self._tls.key.absolute())),
            *("--ssl-ca-certfile", str(self._tls.authority.absolute())),
            *("--superexec-auth-secret-file", str((folder / "superexec.secret").absolute())),
        ]

    def _launch(self) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        home = self._run_folder / "flwr"
        home.mkdir(exist_ok=True)
        environment = flower_environment(home.absolute()) | {
            NODE_FILE: str((self._settings.state / "node-id").absolute()),
        }
        with self._lock:
            if self._stop.is_set():
                return
            self._child = spawn(self._command(), name="supernode", log=self.log_file, environment=environment)

    def _await_ready(self, stop: threading.Event) -> None:
        """Wait until the loopback API answers. The relay may still be away: the SuperNode keeps trying."""
        import httpx

        end = time.monotonic() + READY_SECONDS
        with httpx.Client(verify=False, trust_env=False, timeout=2.0) as client:  # noqa: S501 - only "does it answer"
            while not stop.is_set():
                if self._child is None or not self._child.running:
                    raise Environment(f"the SuperNode ended at once; its log is {self.log_file}")
                try:
                    client.get(f"https://{self._endpoint.address}/health")
                except httpx.TransportError:
                    if time.monotonic() > end:
                        raise Environment(f"the SuperNode does not get ready; its log is {self.log_file}") from None
                    stop.wait(0.05)
                else:
                    return

    def _watch(self) -> None:
        """Start it again when it ends: after an outage, a refused key, a crash."""
        attempt, began = 0, time.monotonic()
        while not self._stop.wait(WATCH_SECONDS):
            if self.running:
                continue
            if time.monotonic() - began > STEADY_SECONDS:
                attempt = 0
            log.warning("the SuperNode ended; starting it again. Its log is %s", self.log_file)
            if self._stop.wait(RESTART_SECONDS[min(attempt, len(RESTART_SECONDS) - 1)]):
                return
            attempt, began = attempt + 1, time.monotonic()
            self.restarts += 1
            self._launch()
