"""/health and /metrics: what they say, and that nobody can hold them up."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry, Counter

from superswarm.errors import Environment, PortTaken
from superswarm.io import web
from superswarm.io.config import Address
from superswarm.io.web import Health, StatusServer

ANY = Address("127.0.0.1", 0)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def server(registry: CollectorRegistry) -> Iterator[StatusServer]:
    details = {"round": 2, "members": 3, "key": b"\x00" * 32}
    with StatusServer(
        "participant", ANY, lambda: Health("ok", details), simulated=True, registry=registry
    ) as running:
        yield running


def get(server: StatusServer, path: str, method: str = "GET") -> tuple[int, str]:
    connection = HTTPConnection(server.address.host, server.address.port, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_health_says_what_runs_and_warns(server: StatusServer) -> None:
    status, body = get(server, "/health")
    document = json.loads(body)
    assert status == 200
    assert (document["status"], document["program"], document["protocol"]) == ("ok", "participant", 1)
    assert document["simulated"] is True
    assert "protects nothing" in document["warning"]
    assert document["details"] == {"round": 2, "members": 3, "key": "<32 bytes>"}


@pytest.mark.parametrize("status", ["starting", "degraded", "stopping"])
def test_health_is_not_200_unless_ok(status: web.Status, registry: CollectorRegistry) -> None:
    with StatusServer("relay", ANY, lambda: Health(status), simulated=False, registry=registry) as server:
        code, body = get(server, "/health")
        assert (code, json.loads(body)["status"]) == (503, status)
        assert "warning" not in json.loads(body)


def test_metrics_are_those_of_the_program_only(server: StatusServer, registry: CollectorRegistry) -> None:
    Counter("superswarm_rounds", "Rounds closed.", registry=registry).inc(4)
    status, body = get(server, "/metrics?x=1")
    assert status == 200
    assert "superswarm_rounds_total 4.0" in body
    assert "superswarm_simulated 1.0" in body
    assert 'program="participant"' in body
    assert "python_info" not in body


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/../etc", 404), ("POST", "/health", 501)]
)
def test_nothing_else_is_served(server: StatusServer, method: str, path: str, status: int) -> None:
    assert get(server, path, method)[0] == status


def test_a_taken_port_is_said_plainly(server: StatusServer) -> None:
    with pytest.raises(PortTaken, match=str(server.address.port)):
        StatusServer("relay", server.address, lambda: Health("ok"), simulated=False, registry=CollectorRegistry())


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(Environment):
        StatusServer(
            "relay", Address("192.0.2.1", 0), lambda: Health("ok"), simulated=False, registry=CollectorRegistry()
        )


def test_stop_frees_the_port(registry: CollectorRegistry) -> None:
    server = StatusServer("relay", ANY, lambda: Health("ok"), simulated=False, registry=registry).start()
    address = server.address
    assert get(server, "/health")[0] == 200
    server.stop()
    server.stop()
    again = StatusServer("relay", address, lambda: Health("ok"), simulated=False, registry=CollectorRegistry())
    again.stop()


def test_silent_clients_do_not_block_others(server: StatusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two idle connections stay open; the third client is still answered."""
    idle = [socket.create_connection((server.address.host, server.address.port)) for _ in range(2)]
    assert get(server, "/health")[0] == 200
    for one in idle:
        one.close()


def test_too_many_clients_are_turned_away(server: StatusServer) -> None:
    idle = [socket.create_connection((server.address.host, server.address.port)) for _ in range(web.CLIENTS)]
    for one in idle:
        one.sendall(b"GET")  # begun, and never finished
    with socket.create_connection((server.address.host, server.address.port)) as extra:
        extra.settimeout(5)
        extra.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        try:
            answer = extra.recv(100)
        except ConnectionResetError:
            answer = b""
    for one in idle:
        one.close()
    assert answer == b""


def test_a_health_check_that_fails_is_our_bug_and_leaks_nothing(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Health:
        raise ValueError("Canary")

    with StatusServer("relay", ANY, broken, simulated=False, registry=registry) as server:
        with socket.create_connection((server.address.host, server.address.port)) as client:
            client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert client.recv(100) == b""
        assert get(server, "/metrics")[0] == 200
    assert "Canary" not in caplog.text
