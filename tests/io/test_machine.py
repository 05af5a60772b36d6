"""What `superswarm doctor` looks at, each on a machine where it is wrong."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fake_nvml import FakeNvml

from superswarm import cli
from superswarm.io import linux, machine
from superswarm.io.clocks import ManualClock, SystemClock
from superswarm.io.config import Address
from superswarm.io.machine import Level


def test_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finding = machine.check_port("http", Address("127.0.0.1", port))
        assert finding.level is Level.PROBLEM
        assert str(port) in finding.what
        assert "http" in finding.do
    assert machine.check_port("http", Address("127.0.0.1", port)).level is Level.OK


@pytest.mark.parametrize(("now", "level"), [(0.0, Level.PROBLEM), (4.2e9, Level.PROBLEM), (1.8e9, Level.OK)])
def test_an_impossible_clock(now: float, level: Level) -> None:
    assert machine.check_clock(ManualClock(now)).level is level


def test_the_disk(tmp_path: Path) -> None:
    assert machine.check_disk("state", tmp_path / "not" / "yet", needed=1).level is Level.OK
    full = machine.check_disk("state", tmp_path, needed=2**60)
    assert (full.level, "free" in full.do) == (Level.PROBLEM, True)
    (tmp_path / "file").write_text("")
    assert machine.check_disk("state", tmp_path / "file").level is Level.PROBLEM
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        assert machine.check_disk("state", tmp_path / "closed").level is Level.PROBLEM


HOSTS = ["localhost", "127.0.0.1", "relay.example.org"]


@pytest.mark.parametrize(
    ("environment", "caught"),
    [
        ({}, []),
        ({"HTTPS_PROXY": ""}, []),
        ({"NO_PROXY": ""}, []),
        ({"HTTPS_PROXY": "http://proxy:3128"}, HOSTS),
        ({"https_proxy": "http://proxy:3128", "NO_PROXY": "localhost,127.0.0.1"}, ["relay.example.org"]),
        ({"ALL_PROXY": "http://proxy:3128", "no_proxy": "localhost, 127.0.0.1, .example.org"}, []),
        ({"HTTP_PROXY": "http://proxy:3128", "no_proxy": "*"}, []),
        ({"HTTP_PROXY": "http://proxy:3128", "no_proxy": "localhost,127.0.0.1,ample.org"}, ["relay.example.org"]),
    ],
)
def test_proxies_that_catch_our_traffic(environment: dict[str, str], caught: list[str]) -> None:
    (finding,) = machine.check_proxy(environment, HOSTS)
    assert finding.level is (Level.WARNING if caught else Level.OK)
    assert "proxy:3128" not in finding.what + finding.do  # a proxy's address may hold a password
    for host in caught:
        assert host in finding.do


def test_memory_that_others_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "is_dumpable", lambda: True)
    assert machine.check_core_dumps().level is Level.WARNING
    monkeypatch.setattr(linux, "is_dumpable", lambda: False)
    assert machine.check_core_dumps().level is Level.OK


def test_files_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.check_memory_files().level is Level.OK
    monkeypatch.setattr("superswarm.io.memory.PROC", Path("/nowhere"))
    assert machine.check_memory_files().level is Level.PROBLEM


@pytest.mark.parametrize("lockable", [False, True])
def test_swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lockable: bool) -> None:
    monkeypatch.setattr(linux, "may_lock_everything", lambda: lockable)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/swaps").write_text("Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n")
    swap = machine.check_swap(tmp_path)
    assert swap.level is Level.WARNING
    assert "/dev/sda2" in swap.what
    assert ("memlock" in swap.do) is not lockable
    (tmp_path / "proc/swaps").write_text("Filename Type Size Used Priority\n/dev/zram0 partition 1 0 100\n")
    assert machine.check_swap(tmp_path).level is Level.OK
    assert machine.check_swap(tmp_path / "elsewhere").level is Level.WARNING


def test_private_files(tmp_path: Path) -> None:
    key = tmp_path / "member.keys"
    assert machine.check_secret_file("keys", key).level is Level.PROBLEM
    key.write_text("")
    key.chmod(0o640)
    finding = machine.check_secret_file("keys", key)
    assert (finding.level, finding.do) == (Level.PROBLEM, f"chmod 600 {key}")
    key.chmod(0o600)
    assert machine.check_secret_file("keys", key).level is Level.OK
    assert machine.check_secret_file("keys", tmp_path).level is Level.PROBLEM


def test_tee_devices(tmp_path: Path) -> None:
    (absent,) = machine.check_tee(tmp_path, needed=True)
    assert (absent.level, "confidential VM" in absent.do) == (Level.WARNING, True)
    assert machine.check_tee(tmp_path, needed=False)[0].level is Level.OK
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/tdx_guest").write_text("")
    (half,) = machine.check_tee(tmp_path, needed=True)
    assert (half.level, "configfs" in half.do) == (Level.WARNING, True)
    (tmp_path / "sys/kernel/config/tsm/report").mkdir(parents=True)
    (whole,) = machine.check_tee(tmp_path, needed=True)
    assert (whole.level, "Intel TDX" in whole.what) == (Level.OK, True)


@pytest.mark.parametrize(
    ("library", "level", "what"),
    [
        (FakeNvml(), Level.OK, "1 GPU(s), NVIDIA H100 80GB HBM3, driver 580.65.06: in CC mode"),
        (FakeNvml(feature=0), Level.WARNING, "not in CC mode: it is supported, and turned off"),
        (FakeNvml(support=False), Level.WARNING, "not in CC mode"),
        (FakeNvml(dev_tools=1), Level.WARNING, "DevTools"),
        (FakeNvml(failing=frozenset({"nvmlSystemGetConfComputeState"})), Level.WARNING, "Unknown Error"),
        (FakeNvml(gpus=0), Level.OK, "no GPU; training runs on the CPU"),
    ],
    ids=["on", "off", "not supported", "DevTools", "failing", "no GPU"],
)
def test_gpus(library: FakeNvml, level: Level, what: str) -> None:
    (finding,) = machine.check_gpu(library)
    assert finding.level is level
    assert what in finding.what


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=2", "rich<1", "not-there>=3", 'flwr<1; extra == "coordinator"', 'other>9; extra == "bench"']
    monkeypatch.setattr(metadata, "requires", lambda _name: wanted)
    findings = machine.check_versions("coordinator")
    assert [finding.what.split()[0] for finding in findings] == ["rich", "not-there", "flwr"]
    assert all("superswarm[coordinator]" in finding.do for finding in findings)
    assert len(machine.check_versions(None)) == 2


def test_versions_in_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _name: ["numpy>=2", 'numpy<1; python_version < "3"'])
    assert machine.check_versions(None)[0].level is Level.OK


class Relay:
    """An HTTPS server with a certificate of its own and a clock that can be wrong."""

    def __init__(self, folder: Path, name: str = "localhost") -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.authority = folder / f"{name}.crt"
        self.authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = folder / f"{name}.key"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        relay = self
        self.ahead = 0.0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(404)
                self.end_headers()

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string(SystemClock().now() + relay.ahead)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.authority, private)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = Address("localhost", self.server.server_port)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    one = Relay(tmp_path)
    one.thread.start()
    yield one
    one.server.shutdown()
    one.server.server_close()


def test_the_relay_and_its_clock(relay: Relay, tmp_path: Path) -> None:
    levels = [f.level for f in machine.check_relay(relay.address, relay.authority, SystemClock())]
    assert levels == [Level.OK, Level.OK]
    relay.ahead = 3600
    answers, skew = machine.check_relay(relay.address, relay.authority, SystemClock())
    assert (answers.level, skew.level) == (Level.OK, Level.PROBLEM)
    stranger = Relay(tmp_path, "elsewhere")
    stranger.server.server_close()
    (other,) = machine.check_relay(relay.address, stranger.authority, SystemClock())
    assert (other.level, "another certificate" in other.what) == (Level.PROBLEM, True)
    (absent,) = machine.check_relay(relay.address, tmp_path / "absent.crt", SystemClock())
    assert absent.level is Level.PROBLEM


def test_a_relay_that_does_not_answer(relay: Relay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        closed = Address("127.0.0.1", once.getsockname()[1])
    (finding,) = machine.check_relay(closed, relay.authority, SystemClock())
    assert (finding.level, "firewall" in finding.do) == (Level.PROBLEM, True)


def test_a_relay_can_be_tried_before_anything_is_configured(
    relay: Relay, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "check_versions", lambda _extra: [])
    where = ["--relay", str(relay.address), "--relay-ca", str(relay.authority)]
    cli.run(["doctor", "--json", *where])
    found = [(one["check"], one["level"]) for one in json.loads(capsys.readouterr().out)]
    assert found[-2:] == [("relay", "ok"), ("clock", "ok")]
    assert cli.run(["doctor", *where[:2]]) == 2
    assert cli.run(["doctor", "--program", "trainer", *where]) == 2
