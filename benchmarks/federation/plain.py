"""Plain Flower on this machine: flower-superlink, a flower-supernode a member, `flwr run`. Its own executors.

What an operator who knows Flower would set is set: TLS and node authentication as superswarm has them (`tls`),
subprocess isolation (process isolation has the same SuperExecs started by hand), the database in memory, no
telemetry, no installation of dependencies, one torch thread a client, and executors that ask for work every
`POLL_SECONDS`. Flower's other pauses (its grid's 3 s, its SuperNode's 3 s and 0.5 s) have no setting.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest
from flwr.supercore.control import ControlHttpClient

from benchmarks.federation.times import Times, between
from coordinator.control import parse_public_key
from superswarm.errors import Unavailable
from superswarm.io.certificates import ServerFiles, ensure_server_files, node_key
from superswarm.io.flowerenv import flower_environment, free_loopback_ports
from superswarm.io.processes import Children, spawn

APP = Path(__file__).parents[1] / "plain_flower"
POLL_SECONDS = "0.25"  # 0.1 took 9 % of two idle cores, 0.5 takes 3 %, and each message waits half of it
SCRIPTS = Path(sys.executable).parent
PROJECT = APP.parents[1]


@dataclass
class PlainFlower:
    """A deployment in a folder: `start`, any number of `run`, `stop`."""

    folder: Path
    members: tuple[str, ...]
    tls: bool = True
    children: Children = field(default_factory=Children)

    def start(self) -> float:
        """Start SuperLink and SuperNodes; the seconds until all are connected."""
        began = time.monotonic()
        self.folder.mkdir(exist_ok=True)
        port, *ports = free_loopback_ports(1 + len(self.members))
        self.address = f"127.0.0.1:{port}"
        self.files = ensure_server_files(self.folder, ["localhost", "127.0.0.1"], prefix="superlink")
        secure = ["--enable-supernode-auth", *_certificate(self.files)] if self.tls else ["--insecure"]
        link = ["flower-superlink", "--host", "127.0.0.1", "--port", str(port), "--isolation", "subprocess"]
        self._spawn("superlink", [*link, *secure])
        self._await_superlink()
        with self._control() as control:
            for member, own in zip(self.members, ports, strict=True):
                self._start_node(control, member, own)
            while sum(node.status == "online" for node in _nodes(control)) < len(self.members):
                self._check(began)
                time.sleep(0.05)
        self._configure()
        return time.monotonic() - began

    def run(self, plan: Path, name: str, seconds: float = 1800.0) -> Times:
        """`flwr run`, and wait for the adapter."""
        out = self.folder / name
        out.mkdir()
        began = time.time()
        config = f'plan="{plan}" out="{out}"'
        command = [str(SCRIPTS / "flwr"), "run", str(APP), "bench", "--run-config", config]
        done = subprocess.run(
            command, env=self._environment("cli"), capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            raise Unavailable(f"flwr run failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        while not (out / "times.json").exists():
            if time.time() - began > seconds or self.children.ended():
                raise Unavailable(f"plain Flower did not finish; its logs are in {self.folder}")
            time.sleep(0.05)
        return _times(json.loads((out / "times.json").read_text()), began)

    def stop(self) -> None:
        self.children.stop()
        self.children = Children()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_node(self, control: ControlHttpClient, member: str, port: int) -> None:
        key = self.folder / f"{member}.key"
        public = node_key(key)
        words = ["flower-supernode", "--superlink", self.address, "--isolation", "subprocess"]
        words += ["--host", "127.0.0.1", "--port", str(port), "--node-config", f'member="{member}"']
        if self.tls:
            control.RegisterNode(RegisterNodeRequest(public_key=parse_public_key(public), name=member))
            words += ["--root-certificates", str(self.files.authority), "--auth-supernode-private-key", str(key)]
            words += _certificate(self.files)
        else:
            words += ["--insecure"]
        self._spawn(member, words)

    def _control(self) -> ControlHttpClient:
        authority = self.files.authority.read_bytes() if self.tls else None
        return ControlHttpClient.from_server_address(self.address, not self.tls, authority, [])

    def _await_superlink(self) -> None:
        end = time.monotonic()
        scheme = "https" if self.tls else "http"
        with httpx.Client(verify=False, trust_env=False, timeout=2.0) as client:  # noqa: S501 - only "does it answer"
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if client.get(f"{scheme}://{self.address}/health").status_code == httpx.codes.OK:
                        return
                self._check(end)
                time.sleep(0.05)

    def _check(self, began: float) -> None:
        if self.children.ended() or time.monotonic() - began > 300:
            raise Unavailable(f"plain Flower does not start; its logs are in {self.folder}")

    def _spawn(self, name: str, words: list[str]) -> None:
        command = [str(SCRIPTS / words[0]), *words[1:]]
        child = spawn(
            command,
            name=name,
            log=self.folder / f"{name}.log",
            environment=self._environment(name),
            folder=self.folder,
        )
        self.children.add(child)

    def _environment(self, name: str) -> dict[str, str]:
        home = (self.folder / f"{name}-home").absolute()
        home.mkdir(exist_ok=True)
        return flower_environment(home) | {
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": POLL_SECONDS,
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",  # where Flower finds its own programs
            "PYTHONPATH": str(PROJECT),
        }

    def _configure(self) -> None:
        trust = f'root-certificates = "{self.files.authority.absolute()}"' if self.tls else "insecure = true"
        text = f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "{self.address}"\n{trust}\n'
        home = self.folder / "cli-home"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(text)


def _certificate(files: ServerFiles) -> list[str]:
    return [
        *("--ssl-certfile", str(files.certificate.absolute())),
        *("--ssl-keyfile", str(files.key.absolute())),
        *("--ssl-ca-certfile", str(files.authority.absolute())),
    ]


def _nodes(control: ControlHttpClient) -> list[Any]:
    return list(control.ListNodes(ListNodesRequest()).nodes_info)


def _times(data: Mapping[str, Any], began: float) -> Times:
    begun = {int(number): at for number, at in data["begun"].items()}
    return Times(job=data["finished"] - began, rounds=between(begun))
