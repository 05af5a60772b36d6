"""The real SuperLink, two real SuperNodes, both pinned executors. One relay for all: it takes seconds to start."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import stat
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from coordinator.bundle import inert_bundle
from coordinator.flower import serve as serve_aggregator
from coordinator.mailroom import Delivery, Mailroom, Outgoing
from coordinator.relay import Relay, RelaySettings
from participants.flower import serve as serve_participant
from participants.supernode import SuperNode, SuperNodeSettings, enroll
from superswarm.errors import Malformed, Misconfigured, PortTaken, RunStopped
from superswarm.io.flowerenv import free_loopback_port
from superswarm.io.runtime import Connection, RuntimeEndpoint, acquire
from superswarm.wire import Parcel

pytestmark = pytest.mark.e2e
CANARY = "canary-3f9c1d"
SENT = b"sent-8a21e7"  # what we do send: proves that the search for the canary would find it
MIB = 1024**2
Program = Callable[[Mailroom, str], None]


@dataclass
class Lab:
    relay: Relay
    supernodes: list[SuperNode]
    peers: list[int]
    idle_peers: list[int]  # connected once, and no more
    stop: threading.Event
    threads: list[threading.Thread] = field(default_factory=list)

    def run(self, program: Program, *, bundle: bytes | None = None) -> tuple[str, str]:
        """Start a run, serve it here, and return what the relay says of it: outcome and detail."""
        raised: list[BaseException] = []

        def guarded(room: Mailroom, run: str, config: object) -> None:
            assert config == {"grant": "G"}
            try:
                while set(self.peers) > room.peers():
                    time.sleep(0.05)
                program(room, run)
            except BaseException as error:
                raised.append(error)
                raise

        with self.relay.control() as control:
            run = control.start_run({"grant": "G"}) if bundle is None else start_bundle(control, bundle)
            serve_aggregator(self.relay.endpoint(), guarded, threading.Event(), once=True)
            for error in raised:
                if not isinstance(error, RunStopped):
                    raise error
            row = control.run(run)
        assert row.status == "finished"
        return row.outcome, row.detail


def start_bundle(control: object, bundle: bytes) -> int:
    request = StartRunRequest(fab=Fab(content=bundle), override_config=user_config_to_proto({"grant": "G"}))
    return int(control._client.StartRun(request).run_id)  # type: ignore[attr-defined]


def handle(run: int, kind: str, parcel: Parcel) -> Parcel:
    match kind:
        case "echo":
            return Parcel(b"re:" + parcel.head, parcel.body)
        case "refuse":
            raise Malformed(CANARY)
        case "crash":
            raise ValueError(CANARY)
        case _:
            raise AssertionError(kind)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("lab")
    stop = threading.Event()
    with Relay(RelaySettings(state=root / "relay", port=free_loopback_port())) as relay:
        with relay.control() as control:
            ids = [control.admit(enroll(root / f"key{i}"), f"node {i}") for i in range(4)]
            assert control.admit(enroll(root / "key0")) == ids[0]
        for i in (2, 3):
            connect_once(relay, root / f"key{i}")
        supernodes = [
            SuperNode(
                SuperNodeSettings(
                    relay=relay.endpoint().address,
                    relay_authority=relay.authority_file,
                    key=root / f"key{i}",
                    state=root / f"supernode{i}",
                )
            )
            for i in range(2)
        ]
        lab = Lab(relay, supernodes, ids[:2], ids[2:], stop)
        starting = [threading.Thread(target=supernode.start) for supernode in supernodes]
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        try:
            for supernode in supernodes:
                lab.threads.append(
                    threading.Thread(target=serve_participant, args=(supernode.endpoint, handle, stop), daemon=True)
                )
                lab.threads[-1].start()
            yield lab
        finally:
            stop.set()
            for thread in lab.threads:
                thread.join(10)
            for supernode in supernodes:
                supernode.stop()


def fleet_client(relay: Relay, key: ec.EllipticCurvePrivateKey) -> FleetHttpClient:
    trust = relay.authority_file.read_bytes()
    interceptors = [NodeAuthHttpInterceptor(key, key.public_key())]
    return FleetHttpClient.from_server_address(relay.endpoint().address, False, trust, interceptors)


def connect_once(relay: Relay, key_file: Path) -> None:
    key = load_ssh_private_key(key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    with fleet_client(relay, key) as client:
        request = ActivateNodeRequest(public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=30)
        client.DeactivateNode(DeactivateNodeRequest(node_id=client.ActivateNode(request).node_id))


def settle(room: Mailroom, tickets: list[str], *, seconds: float = 60) -> list[Delivery]:
    out: list[Delivery] = []
    end = time.monotonic() + seconds
    while len(out) < len(tickets):
        assert time.monotonic() < end, "no reply in time"
        out += room.collect(tickets)
    return sorted(out, key=lambda delivery: delivery.peer)


def exchange(room: Mailroom, peers: list[int], kind: str, parcel: Parcel) -> list[Parcel | None]:
    tickets = room.post_all([Outgoing(peer, kind, parcel) for peer in sorted(peers)], ttl=600)
    return [delivery.parcel for delivery in settle(room, tickets)]


def hostile_bundle(marker: Path) -> bytes:
    """A bundle like ours, whose apps exist and leave a mark when they are imported."""
    code = f"open({str(marker)!r}, 'w').close()\n"
    with zipfile.ZipFile(io.BytesIO(inert_bundle({"grant": ""}))) as inert:
        files = {name: inert.read(name) for name in inert.namelist()}
    files["nothing_to_run.py"] = code.encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as bundle:
        for name, data in files.items():
            bundle.writestr(name, data)
    return out.getvalue()


def test_parcels_travel_and_a_hostile_bundle_is_never_run(lab: Lab, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    bundle = hostile_bundle(marker)
    with zipfile.ZipFile(io.BytesIO(bundle)) as files:  # whoever ran it would leave the mark
        exec(files.read("nothing_to_run.py"), {})  # noqa: S102
    marker.unlink()

    def program(room: Mailroom, run: str) -> None:
        assert exchange(room, lab.peers, "echo", Parcel(SENT)) == [Parcel(b"re:" + SENT)] * 2
        body = os.urandom(12 * MIB)
        assert exchange(room, lab.peers, "echo", Parcel(b"big", body)) == [Parcel(b"re:big", body)] * 2

    assert lab.run(program, bundle=bundle) == ("completed", "")
    assert not marker.exists()


def test_a_shared_body_is_stored_once(lab: Lab) -> None:
    counts: list[int] = []

    def program(room: Mailroom, run: str) -> None:
        letters = [Outgoing(peer, "echo", Parcel(b"%d" % peer, BODY)) for peer in lab.idle_peers]
        room.post_all(letters, ttl=600)
        room.post(lab.idle_peers[0], "echo", Parcel(b"again", BODY), ttl=600)
        with sqlite3.connect(f"file:{lab.relay.log_file.with_name('state.db')}?mode=ro", uri=True) as database:
            ((count,),) = database.execute("SELECT COUNT(*) FROM objects WHERE length(content) > 1048576").fetchall()
        counts.append(count)

    lab.run(program)
    assert counts == [3]  # 12 MiB in chunks of 5, for three messages to two peers


BODY = os.urandom(12 * MIB)


def test_errors_leave_as_a_fixed_word_and_no_text_reaches_the_relay(lab: Lab) -> None:
    def program(room: Mailroom, run: str) -> None:
        room.post(lab.idle_peers[0], "echo", Parcel(SENT), ttl=600)
        assert exchange(room, lab.peers, "refuse", Parcel(b"")) == [None, None]
        assert exchange(room, lab.peers, "crash", Parcel(b"")) == [None, None]
        raise RunStopped(CANARY)

    assert lab.run(program) == ("failed", "RunStopped")
    stored = everything(lab.relay.log_file.parent) + b"".join(everything(s.log_file.parent) for s in lab.supernodes)
    assert SENT in stored
    assert CANARY.encode() not in stored


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_the_relay_may_die_during_a_run(lab: Lab) -> None:
    def program(room: Mailroom, run: str) -> None:
        assert exchange(room, lab.peers, "echo", Parcel(b"before")) == [Parcel(b"re:before")] * 2
        child = lab.relay._child
        assert child is not None
        os.kill(child.pid, signal.SIGKILL)
        assert exchange(room, lab.peers, "echo", Parcel(b"after")) == [Parcel(b"re:after")] * 2

    assert lab.run(program) == ("completed", "")
    assert lab.relay.restarts == 1


def test_a_supernode_that_dies_comes_back(lab: Lab) -> None:
    """And is never away to the relay, which would drop what is addressed to it."""

    def program(room: Mailroom, run: str) -> None:
        assert exchange(room, lab.peers, "echo", Parcel(b"back")) == [Parcel(b"re:back")] * 2

    assert lab.run(program) == ("completed", "")  # both are connected
    child, left = lab.supernodes[0]._child, departures(lab)
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    end = time.monotonic() + 30
    while lab.supernodes[0].restarts == 0 and time.monotonic() < end:
        time.sleep(0.05)
    assert lab.run(program) == ("completed", "")
    assert departures(lab) == left


def departures(lab: Lab) -> list[tuple[int, str | None]]:
    """When each node last left, as the relay has it."""
    with sqlite3.connect(f"file:{lab.relay.log_file.with_name('state.db')}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT node_id, last_deactivated_at FROM node ORDER BY node_id").fetchall()
    assert sum(left is None for _, left in rows) >= len(lab.peers)
    return rows


def test_the_operator_stops_a_run(lab: Lab) -> None:
    reached = threading.Event()

    def program(room: Mailroom, run: str) -> None:
        with lab.relay.control() as control:
            assert control.stop_run(int(run))
            assert not control.stop_run(int(run))
        ticket = room.post(lab.idle_peers[0], "echo", Parcel(b""), ttl=60)
        while True:
            room.collect([ticket])
            reached.set()

    assert lab.run(program) == ("stopped", "")
    assert not reached.is_set()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/list-nodes",
        "/v1/control/start-run",
        "//v1/control/list-nodes",
        "/v1/fleet/../control/list-nodes",
        "/v1/fleet/register-node",
        "/v1/runtime/start-automation",
        "/docs",
        "/openapi.json",
        "/health",
    ],
)
def test_a_stranger_reaches_no_control_call(lab: Lab, path: str) -> None:
    trust = str(lab.relay.authority_file)
    with httpx.Client(verify=trust, trust_env=False) as client:  # type: ignore[arg-type]
        for method in ("POST", "GET"):
            request = client.build_request(method, f"https://{lab.relay.endpoint().address}{path}")
            request.url = request.url.copy_with(raw_path=path.encode())
            assert client.send(request).status_code == 404


def test_the_operators_socket_is_the_operators(lab: Lab) -> None:
    socket = lab.relay.log_file.with_name("control.sock")
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(lab.relay.secret_file.stat().st_mode) == 0o600


def test_a_stranger_is_no_aggregator(lab: Lab) -> None:
    ours = lab.relay.endpoint()
    stranger = RuntimeEndpoint(ours.address, ours.authority, b"another secret")
    with Connection(stranger) as connection, pytest.raises(Misconfigured, match="secret"):
        next(acquire(connection.executor(), "flwr-serverapp", threading.Event()))


def test_a_supernode_that_was_not_admitted_stays_out(lab: Lab) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = public_key_to_bytes(key.public_key())
    with fleet_client(lab.relay, key) as client:
        for call, request in (
            (client.ActivateNode, ActivateNodeRequest(public_key=public, heartbeat_interval=30)),
            (client.RegisterNode, RegisterNodeFleetRequest(public_key=public)),
            (client.PullMessages, PullMessagesRequest(node=Node(node_id=lab.peers[0]))),  # in a member's name
        ):
            with pytest.raises(httpx.HTTPStatusError) as refused:
                call(request)
            assert 400 <= refused.value.response.status_code < 500
    with lab.relay.control() as control:
        assert len(control.nodes()) == 4


def test_a_second_relay_on_the_port_is_told_so(lab: Lab, tmp_path: Path) -> None:
    port = int(lab.relay.endpoint().address.rpartition(":")[2])
    with pytest.raises(PortTaken, match=str(port)):
        Relay(RelaySettings(state=tmp_path, port=port)).start()


def test_the_relay_counts(lab: Lab) -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(lab.relay)
    page = generate_latest(registry).decode()
    assert "superswarm_relay_nodes_registered 4.0" in page
    assert "superswarm_relay_nodes_online 2.0" in page
    assert "superswarm_relay_runs_open 0.0" in page
