"""The relay: Flower's SuperLink as a mailbox. It holds ciphertext, sizes and times, and no key that opens any of it.

The state folder holds everything: restarting with the same one continues with the same members and runs.
"""

from __future__ import annotations

import secrets
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric

from coordinator.control import RelayControl
from coordinator.flower import RelayEndpoint
from coordinator.superlink import Settings
from superswarm.errors import Environment, Error
from superswarm.io.certificates import ServerFiles, ensure_server_files
from superswarm.io.files import SECRET, write_bytes
from superswarm.io.flowerenv import flower_environment, require_free_port
from superswarm.io.processes import Child, spawn
from superswarm.io.supervised import Supervised


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """How a relay runs."""

    state: Path
    host: str = "127.0.0.1"
    port: int = 8443
    names: Sequence[str] = ("localhost", "127.0.0.1")  # under which members reach it


@dataclass(frozen=True, slots=True)
class Tally:
    """What a relay's operator sees in passing: numbers only."""

    registered: int
    online: int
    runs_open: int
    runs: int
    messages: int  # waiting to be fetched, requests and replies
    stored_bytes: int  # the database with its log


class Relay(Supervised):
    """A SuperLink that runs until stopped: restarted when it ends, killed with its program.

    Runs that are open fail unless it is back within a minute.
    """

    name = "relay"

    def __init__(self, settings: RelaySettings) -> None:
        super().__init__()
        self._settings = settings

    @property
    def authority_file(self) -> Path:
        """The certificate that members and the aggregator pin. Public."""
        return self._settings.state / "relay-ca.crt"

    @property
    def secret_file(self) -> Path:
        """The secret by which the relay knows its aggregator. For the aggregator's operator only; opens nothing."""
        return self._settings.state / "superexec.secret"

    @property
    def log_file(self) -> Path:
        return self._settings.state / "relay.log"

    def endpoint(self, name: str | None = None) -> RelayEndpoint:
        """Where the aggregator connects: `name` (default: the first of the certificate's) and this relay's port."""
        address = f"{name or self._settings.names[0]}:{self._settings.port}"
        return RelayEndpoint(address, self.authority_file.read_bytes(), self.secret_file.read_bytes())

    def control(self) -> RelayControl:
        """A connection to the operator's socket."""
        return RelayControl(self._settings.state)

    def tally(self) -> Tally:
        """Count what there is. Environment if the relay does not answer."""
        with self.control() as control:
            nodes, runs = control.nodes(), control.runs()
        return Tally(
            registered=len(nodes),
            online=sum(node.status == "online" for node in nodes),
            runs_open=sum(run.status != "finished" for run in runs),
            runs=len(runs),
            messages=stored_messages(self._database),
            stored_bytes=sum(path.stat().st_size for path in self._settings.state.glob("state.db*")),
        )

    def collect(self) -> Iterable[Metric]:
        """Be a Prometheus collector: register it with a CollectorRegistry."""
        try:
            tally = self.tally()
        except Error:
            tally = None
        yield GaugeMetricFamily("superswarm_relay_up", "1 if the relay answers.", value=int(tally is not None))
        yield GaugeMetricFamily("superswarm_relay_restarts", "Times the SuperLink was restarted.", self.restarts)
        if tally is None:
            return
        for name, text, value in (
            ("nodes_registered", "SuperNodes that may connect.", tally.registered),
            ("nodes_online", "SuperNodes that are connected.", tally.online),
            ("runs_open", "Runs that have not ended.", tally.runs_open),
            ("messages_stored", "Sealed messages that wait to be fetched.", tally.messages),
            ("stored_bytes", "Size of the relay's database in bytes.", tally.stored_bytes),
        ):
            yield GaugeMetricFamily(f"superswarm_relay_{name}", text, value)

    @property
    def _database(self) -> Path:
        return self._settings.state / "state.db"

    def _prepare(self) -> None:
        """Make what is missing in the state folder; what is there stays."""
        settings, folder = self._settings, self._settings.state
        require_free_port(settings.host, settings.port, hint="stop the other process, or configure another port")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
            (folder / "flwr").mkdir(exist_ok=True)
        except OSError as error:
            raise Environment(f"cannot make {folder}: {error.strerror}") from None
        tls: ServerFiles = ensure_server_files(folder, settings.names, prefix="relay")
        if not self.secret_file.exists():
            write_bytes(self.secret_file, secrets.token_hex(32).encode(), mode=SECRET)
        superlink = Settings(
            state=str(folder.absolute()),
            host=settings.host,
            port=settings.port,
            authority=str(tls.authority.absolute()),
            certificate=str(tls.certificate.absolute()),
            key=str(tls.key.absolute()),
            secret=str(self.secret_file.absolute()),
        )
        write_bytes(self._superlink_file, superlink.to_json().encode(), mode=SECRET, replace=True)

    @property
    def _superlink_file(self) -> Path:
        return self._settings.state.absolute() / "superlink.json"

    def _spawn(self) -> Child:
        return spawn(
            [sys.executable, "-m", "coordinator.superlink", str(self._superlink_file)],
            name=self.name,
            log=self.log_file,
            environment=flower_environment(self._settings.state.absolute() / "flwr"),
        )

    def _answers(self) -> bool:
        with self.control() as control:
            return control.healthy()


def stored_messages(database: Path) -> int:
    """Count the messages in a SuperLink's database, without disturbing it."""
    try:
        with sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0) as connection:
            ((count,),) = connection.execute(
                "SELECT (SELECT COUNT(*) FROM message_ins) + (SELECT COUNT(*) FROM message_res)"
            ).fetchall()
    except sqlite3.Error as error:
        raise Environment(f"cannot read the relay's database: {error}") from None
    return int(count)
