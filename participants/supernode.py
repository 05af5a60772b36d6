"""The SuperNode beside a node or trainer: Flower's process, started, watched and stopped by the program it serves.

It connects outward to the relay, and serves its executor on loopback only, over TLS and behind a fresh secret. It is
outside the trust boundary: it sees what the relay sees.
"""

from __future__ import annotations

import secrets
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from participants.flower import SuperNodeEndpoint
from participants.supernode_child import NODE_FILE
from superswarm.errors import Environment, Misconfigured
from superswarm.io.certificates import ensure_server_files, node_key
from superswarm.io.files import SECRET, write_bytes
from superswarm.io.flowerenv import flower_environment, free_loopback_port
from superswarm.io.processes import Child, spawn
from superswarm.io.supervised import Supervised

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


class SuperNode(Supervised):
    """A SuperNode that runs until stopped: restarted when it ends, killed with its program.

    The endpoint stays the same over restarts. The relay may be away: the SuperNode keeps trying.
    """

    name = "SuperNode"

    def __init__(self, settings: SuperNodeSettings) -> None:
        super().__init__()
        self._settings = settings

    @property
    def endpoint(self) -> SuperNodeEndpoint:
        """Where its executor connects."""
        return self._endpoint

    @property
    def log_file(self) -> Path:
        return self._settings.state / "supernode.log"

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self._run_folder, ignore_errors=True)

    @property
    def _run_folder(self) -> Path:
        return self._settings.state / "run"  # this program's lifetime only: TLS keys, secret, Flower's home

    def _prepare(self) -> None:
        """Make fresh TLS files and a fresh secret for the loopback API."""
        for file in (self._settings.relay_authority, self._settings.key):
            if not file.is_file():
                raise Misconfigured(f"{file} is not a file")
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

    def _spawn(self) -> Child:
        home = self._run_folder / "flwr"
        home.mkdir(exist_ok=True)
        environment = flower_environment(home.absolute()) | {
            NODE_FILE: str((self._settings.state / "node-id").absolute()),
        }
        return spawn(self._command(), name="supernode", log=self.log_file, environment=environment)

    def _answers(self) -> bool:
        """Whether the loopback API that its executor needs does."""
        import httpx

        try:
            with httpx.Client(verify=False, trust_env=False, timeout=2.0) as client:  # noqa: S501 - "does it answer?"
                client.get(f"https://{self._endpoint.address}/health")
        except httpx.TransportError:
            return False
        return True
